"""Flows: posteriors and priors made of them, coordinate by coordinate."""

from math import prod

import numpy as np
from numpy.polynomial import Polynomial
from scipy.special import expit, logsumexp
from scipy.stats import norm

from reference.base import POSTERIORS, PRIORS, for_each_particle, kind, over, scale_between, soft_scale, standard_normal
from reference.nets import forward

INVERSES = {}  # kind of a flow -> (flow, params, name, y [n, D], context [n, C] or None) -> (f⁻¹(y), log|det ∂f⁻¹/∂y|)
SIZES = {}  # kind of a flow -> (flow, D) -> how many numbers of context it reads; by default its field says


def invert(flow, params, name, y, context=None):
    """f⁻¹(y) [n, D] and log|det ∂f⁻¹/∂y| [n] of the flow whose parameters stand under `name.`."""
    return INVERSES[kind(flow)](flow, params, name, y, context)


# --- layers y_d = s_d x_d + t_d, with s and t of x_<d --------------------------------------------------------------


def made_rows(flow, params, name, i, x, context):
    net = {
        "kind": "MADE",
        "hidden": flow["hidden"],
        "activation": flow["activation"],
        "ordering": ["natural", "reversed"][i % 2],
    }
    given = x if context is None else np.concatenate([x, context], -1)
    out = forward(net, params, f"{name}.nets.{i}", given, (2, x.shape[1]))
    return out[:, 0], out[:, 1]


def iaf_inverse(flow, params, name, y, context):
    """z_d = σ_d z_d + (1 − σ_d) m_d, solved for one coordinate after the other."""
    width, log_det = y.shape[1], np.zeros(len(y))
    for i in reversed(range(flow["depth"])):
        x = np.full_like(y, 0.1)  # what comes later does not matter
        for d in range(width)[:: -1 if i % 2 else 1]:
            m, s = (row[:, d] for row in made_rows(flow, params, name, i, x, context))
            gate = flow["min_scale"] + (1 - flow["min_scale"]) * expit(2 + s)
            x[:, d] = (y[:, d] - (1 - gate) * m) / gate
            log_det -= np.log(gate)
        y = x
    return y, log_det


def maf_inverse(flow, params, name, y, context):
    log_det = np.zeros(len(y))
    for i in range(flow["depth"]):
        t, s = made_rows(flow, params, name, i, y, context)
        a = flow["max_log_scale"] * np.tanh(s / flow["max_log_scale"])
        y, log_det = np.exp(a) * y + t, log_det + a.sum(1)
    return y, log_det


# --- couplings -----------------------------------------------------------------------------------------------------


def coupling_inverse(rows, scalar_inverse):
    """Even layers move the upper half by the lower, odd ones the lower half by the upper."""

    def inverse(flow, params, name, y, context):
        width, log_det = y.shape[1], np.zeros(len(y))
        net = {"kind": "MLP", "hidden": flow["hidden"], "activation": flow["activation"]}
        for i in reversed(range(flow["depth"])):
            lower = np.arange(width) < width // 2
            kept, moved = np.flatnonzero(lower != i % 2), np.flatnonzero(lower == i % 2)
            given = y[:, kept] if context is None else np.concatenate([y[:, kept], context], -1)
            numbers = forward(net, params, f"{name}.nets.{i}", given, (rows(flow), len(moved)))
            y = y.copy()
            for n, d in np.ndindex(len(y), len(moved)):
                y[n, moved[d]], slope = scalar_inverse(flow, numbers[n, :, d], y[n, moved[d]])
                log_det[n] -= np.log(slope)
        return y, log_det

    return inverse


def affine_inverse(flow, numbers, y):
    """x and dy/dx of y = s x + t."""
    scale = np.exp(flow["max_log_scale"] * np.tanh(numbers[1] / flow["max_log_scale"]))
    return (y - numbers[0]) / scale, scale


def spline_inverse(flow, numbers, y):
    """x and dy/dx of the spline: a quotient of quadratics between the knots, whose equation NumPy solves."""
    bins, bound = flow["bins"], flow["bound"]
    if abs(y) >= bound:
        return y, 1.0
    shares = lambda raw: 0.05 / bins + 0.95 * np.exp(raw - logsumexp(raw))
    knots = lambda raw: 2 * bound * np.concatenate([[0.0], np.cumsum(shares(raw))]) - bound
    xs, ys = knots(numbers[:bins]), knots(numbers[bins : 2 * bins])
    unit = np.log(np.expm1(0.99))
    slopes = np.concatenate([[1.0], 0.01 + np.logaddexp(0.0, numbers[2 * bins :] + unit), [1.0]])
    k = min(np.searchsorted(ys, y, side="right"), bins) - 1
    slope = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k])
    theta, rest = Polynomial([0.0, 1.0]), Polynomial([1.0, -1.0])  # θ and 1 − θ
    top = (ys[k + 1] - ys[k]) * (slope * theta * theta + slopes[k] * theta * rest)
    bottom = slope + (slopes[k + 1] + slopes[k] - 2 * slope) * theta * rest
    roots = (top - (y - ys[k]) * bottom).roots()
    at = roots[np.argmin(np.abs(roots - 0.5))].real  # the one in [0, 1]
    derivative = (top.deriv() * bottom - top * bottom.deriv())(at) / bottom(at) ** 2
    width = xs[k + 1] - xs[k]
    return xs[k] + width * at, derivative / width


INVERSES |= {
    "IAF": iaf_inverse,
    "MAF": maf_inverse,
    "RealNVP": coupling_inverse(lambda flow: 2, affine_inverse),
    "RQSpline": coupling_inverse(lambda flow: 3 * flow["bins"] - 1, spline_inverse),
}


# --- parts ---------------------------------------------------------------------------------------------------------


def flow_posterior(program, params, x, z):
    """The head is one vector: location and raw scale of the initial normal, then the context."""
    posterior, event = program["posterior"], z.shape[2:]
    assert kind(posterior["initial"]) == "DiagonalNormal"
    width, flow = prod(event), posterior["flow"]
    seen = SIZES.get(kind(flow), lambda flow, width: flow["context_size"])(flow, width)
    head = for_each_particle(forward(program["encoder"], params, "encoder", x, (2 * width + seen,)), len(z))

    def log_q(z, head):
        context = head[:, 2 * width :] if seen else None
        first, log_det = invert(posterior["flow"], params, "posterior.flow", z.reshape(len(z), width), context)
        initial = posterior["initial"]
        scale = scale_between(head[:, width : 2 * width], initial["min_scale"], initial["max_scale"])
        return norm.logpdf(first, head[:, :width], scale).sum(1) + log_det

    return over(log_q, z, head)


def flow_prior(program, params, z):
    def log_p(z):
        first, log_det = invert(program["prior"]["flow"], params, "prior.flow", z.reshape(len(z), -1))
        return standard_normal(first[None])[0] + log_det

    return over(log_p, z)


def autoregressive_prior(program, params, z):
    prior, width = program["prior"], prod(z.shape[2:])
    net = {"kind": "MADE", "hidden": prior["hidden"], "activation": prior["activation"], "ordering": "natural"}

    def log_p(z):
        z, total = z.reshape(len(z), width), 0.0
        for d in range(width):
            before = np.where(np.arange(width) < d, z, 0.0)
            out = forward(net, params, "prior.net", before, (3, prior["components"], width))[..., d]
            scale = soft_scale(out[:, 2] + np.log(np.expm1(1.0)), prior["min_scale"])
            weights = np.exp(out[:, 0]) / np.exp(out[:, 0]).sum(1, keepdims=True)
            total = total + np.log((weights * norm.pdf(z[:, d, None], out[:, 1], scale)).sum(1))
        return total

    return over(log_p, z)


POSTERIORS |= {"FlowPosterior": flow_posterior}
PRIORS |= {"FlowPrior": flow_prior, "AutoregressivePrior": autoregressive_prior}
