"""Flows made of sums of sigmoids: the neural autoregressive one, number by number, and the mixture's quantiles."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, softmax
from scipy.stats import norm

from reference.flows import INVERSES, SIZES
from reference.nets import forward


def sigmoids(raw, spread):
    """w, a and b [M] of one number, from its 3 M numbers."""
    m = len(raw) // 3
    a = 0.01 + np.logaddexp(0.0, raw[m : 2 * m] + np.log(np.expm1(0.99)))
    return softmax(raw[:m]), a, raw[2 * m :] + (np.linspace(-spread, spread, m) if m > 1 else 0.0)


def rise(w, a, b, x):
    """y and dy/dx."""
    inside, outside = w @ expit(a * x + b), w @ expit(-a * x - b)
    return np.log(inside) - np.log(outside), w @ (a * expit(a * x + b) * expit(-a * x - b)) / (inside * outside)


def numbers(flow, params, name, i, x, context):
    net = {
        "kind": "MADE", "hidden": flow["hidden"], "activation": flow["activation"],
        "ordering": ["natural", "reversed"][i % 2],
    }  # fmt: skip
    given = x if context is None else np.concatenate([x, context], -1)
    return forward(net, params, f"{name}.nets.{i}", given, (3 * flow["units"], x.shape[1]))


def naf_inverse(flow, params, name, y, context):
    total, width = np.zeros(len(y)), y.shape[1]
    if flow["one_pass"] == "inverse":
        for i in range(flow["depth"]):
            raw, out = numbers(flow, params, name, i, y, context), np.empty_like(y)
            for n, d in np.ndindex(*y.shape):
                out[n, d], slope = rise(*sigmoids(raw[n, :, d], 1.0), y[n, d])
                total[n] += np.log(slope)
            y = out
        return y, total
    for i in reversed(range(flow["depth"])):
        x = np.full_like(y, 0.3)  # what comes later does not matter
        for d in range(width)[:: -1 if i % 2 else 1]:
            raw = numbers(flow, params, name, i, x, context)
            for n in range(len(y)):
                given = sigmoids(raw[n, :, d], 1.0)
                x[n, d] = brentq(lambda v, given=given, to=y[n, d]: rise(*given, v)[0] - to, -1e3, 1e3, xtol=1e-14)
                total[n] -= np.log(rise(*given, x[n, d])[1])
        y = x
    return y, total


def cdf_inverse(flow, params, name, y, context):
    """z = Φ⁻¹(F(x)), from the smaller of F and 1 − F; log|dz/dx| = log f(x) − log φ(z)."""
    raw = np.broadcast_to(params[f"{name}.numbers"], (len(y), 3 * flow["components"] * y.shape[1]))
    raw = (raw if context is None else raw + context).reshape(len(y), -1, y.shape[1])
    z, total = np.empty_like(y), np.zeros(len(y))
    for n, d in np.ndindex(*y.shape):
        w, a, b = sigmoids(raw[n, :, d], 2.0)
        below, above = w @ expit(a * y[n, d] + b), w @ expit(-a * y[n, d] - b)
        z[n, d] = norm.ppf(below) if below < 0.5 else norm.isf(above)
        density = w @ (a * expit(a * y[n, d] + b) * expit(-a * y[n, d] - b))
        total[n] += np.log(density) - norm.logpdf(z[n, d])
    return z, total


INVERSES |= {"NAF": naf_inverse, "CDFFlow": cdf_inverse}
SIZES |= {"CDFFlow": lambda flow, width: 3 * flow["components"] * width}
