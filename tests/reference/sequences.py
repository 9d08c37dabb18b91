"""Nets for sequences, time by time; and masked nets in a given order, unit by unit."""

from math import prod

import numpy as np
from scipy.special import expit

from reference.nets import ACTIVATIONS, forward


def affine(own, name, v):
    return v @ own[f"{name}.weight"] + own[f"{name}.bias"]


def rows_of(x, event):
    """[T, C]."""
    return np.reshape(x, (event[0], -1))


def of_time(condition, t):
    """What the output at a time sees of a condition: none, a vector, or a row for each time."""
    if condition is None:
        return np.zeros(0)
    return condition if condition.ndim == 1 else condition[t]


def heads(net, params, prefix, x, condition, event, outputs):
    """[*outputs] from one x [*event]: the output at t from the rows before t."""
    own = {n[len(prefix) + 1 :]: np.asarray(v, float) for n, v in params.items() if n.startswith(f"{prefix}.")}
    rows, numbers = rows_of(x, event), prod(outputs) // event[0]
    past = np.concatenate([np.zeros((1, rows.shape[1])), rows])  # row t is x_{t−1}
    found = {"GRU": gru, "LSTM": lstm, "Windowed": windowed, "WaveNet": wavenet}[net["kind"]](
        net, own, past[:-1], condition, numbers
    )
    out = np.stack(found).reshape(event[0], numbers // rows.shape[1], rows.shape[1]).transpose(1, 0, 2)
    return (out + own.get("position", 0.0)).reshape(outputs)


def gru(net, own, late, condition, numbers):
    h, found = np.zeros(net["width"]), []
    for t, x in enumerate(late):
        c = of_time(condition, t)
        r, u, a = np.split(affine(own, "input", np.concatenate([x, c])), 3)
        r_h, u_h, a_h = np.split(affine(own, "state", h), 3)
        r, u = expit(r + r_h), expit(u + u_h)
        h = (1 - u) * np.tanh(a + r * a_h) + u * h
        found.append(affine(own, "outputs", np.concatenate([h, c])))
    return found


def lstm(net, own, late, condition, numbers):
    h, cell, found = np.zeros(net["width"]), np.zeros(net["width"]), []
    for t, x in enumerate(late):
        c = of_time(condition, t)
        i, f, o, g = np.split(affine(own, "input", np.concatenate([x, c])) + affine(own, "state", h), 4)
        cell = expit(f + 1) * cell + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(cell)
        found.append(affine(own, "outputs", np.concatenate([h, c])))
    return found


def windowed(net, own, late, condition, numbers):
    found, d = [], net["window"]
    for t in range(len(late)):
        seen = [late[t - i] if t >= i else np.zeros(late.shape[1]) for i in range(d - 1, -1, -1)]
        given = np.concatenate([*seen, of_time(condition, t)])
        found.append(forward(net["net"], own, "net", given[None], (numbers,))[0])
    return found


def wavenet(net, own, late, condition, numbers):
    """Every layer by a sum over the taps of its filter."""
    k, c = net["kernel"], net["channels"]
    h = np.array([affine(own, "first", x) for x in late])
    dilations = [2**i for i in range(net["layers"])] * net["stacks"]
    total = 0.0
    for n, d in enumerate(dilations):
        taps = own[f"layers.{n}.filter.weight"].reshape(k, c, 2 * c)
        z = []
        for t in range(len(h)):
            a = own[f"layers.{n}.filter.bias"].copy()
            for i in range(k):  # the latest tap is the last
                if t - d * i >= 0:
                    a += h[t - d * i] @ taps[k - 1 - i]
            if condition is not None:
                a += affine(own, f"layers.{n}.condition", of_time(condition, t))
            z.append(np.tanh(a[:c]) * expit(a[c:]))
        total = total + np.array([affine(own, f"layers.{n}.skip", v) for v in z])
        if n < len(dilations) - 1:
            h = h + np.array([affine(own, f"layers.{n}.residual", v) for v in z])
    return [affine(own, "outputs.1", np.maximum(affine(own, "outputs.0", np.maximum(v, 0)), 0)) for v in total]


def masked(net, own, places, degrees, x, condition, outputs):
    """[n, *outputs] of a masked net in which number j has a place: a unit of degree m sees the first m places.

    Args:
        net: its text.
        own: parameters by name.
        places: [D].
        degrees: of each hidden layer, [units].
        x: [n, D].
        condition: [n, C] or None.
        outputs: (…, D) in all.
    """
    width, layers = len(places), len(net["hidden"])
    h, sees = x, [{j} for j in range(width)]
    if condition is not None:
        h, sees = np.concatenate([x, condition], 1), [*sees, *(set() for _ in range(condition.shape[1]))]
    before = [{j for j in range(width) if places[j] < m} for m in range(width + 1)]
    for layer in range(layers + 1):
        weight, bias = own[f"layers.{layer}.weight"], own[f"layers.{layer}.bias"]
        if layer < layers:
            own_sees = [before[int(m)] for m in degrees[layer]]
        else:
            own_sees = [before[int(places[j])] for _ in range(prod(outputs) // width) for j in range(width)]
        out = np.tile(bias, (len(x), 1))
        for unit, mine in enumerate(own_sees):
            for i, theirs in enumerate(sees):
                if theirs <= mine:
                    out[:, unit] += h[:, i] * weight[i, unit]
        h, sees = (ACTIVATIONS[net["activation"]](out) if layer < layers else out), own_sees
    return h.reshape(len(x), *outputs)
