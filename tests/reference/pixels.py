"""PixelCNN++ and PixelSNAIL in NumPy: full square kernels with zeros, and loops over pixels."""

import numpy as np
from scipy.special import expit

from reference.base import LIKELIHOODS, OUTPUTS, over
from reference.likelihoods import log_discretised_logistic


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def both_signs(x):
    return elu(np.concatenate([x, -x], 1))


def causal_conv(x, own, name):
    """A kernel [2 or 1, 1 to 3] as a square of three, whose last row is the pixel's own."""
    weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
    h, w = weight.shape[2:]
    full = np.zeros((*weight.shape[:2], 3, 3))
    left = {3: 0, 2: 0, 1: 1}[w]
    full[:, :, 2 - h : 2, left : left + w] = weight
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for i, j in np.ndindex(*x.shape[2:]):
        out[:, :, i, j] = np.einsum("oikl,nikl->no", full, wide[:, :, i : i + 3, j : j + 3]) + bias
    return out


def moved(x, down, right):
    out = np.zeros_like(x)
    height, width = x.shape[2:]
    out[:, :, down:, right:] = x[:, :, : height - down, : width - right]
    return out


def block(x, own, name, beside, condition):
    h = causal_conv(both_signs(x), own, f"{name}.0")
    if beside is not None:
        h = h + causal_conv(both_signs(beside), own, f"{name}.beside")
    h = causal_conv(both_signs(h), own, f"{name}.1")
    if condition is not None:
        weight, bias = own[f"{name}.condition.weight"], own[f"{name}.condition.bias"]
        if weight.ndim == 2:
            h = h + (condition @ weight + bias)[:, :, None, None]
        else:
            h = h + np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], condition) + bias[:, None, None]
    value, gate = np.split(h, 2, axis=1)
    return x + value * expit(gate)


def start(x, own):
    """x with ones, and features of the pixels above and to the left."""
    ones = np.concatenate([x, np.ones_like(x[:, :1])], 1)
    return ones, moved(causal_conv(ones, own, "first.row"), 1, 0) + moved(causal_conv(ones, own, "first.left"), 0, 1)


def larger(x, own, name):
    weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
    height, width = x.shape[2:]
    out = np.zeros((len(x), weight.shape[1], 2 * height, 2 * width)) + bias[:, None, None]
    for i, j, k, m in np.ndindex(height, width, *weight.shape[2:]):
        column = 2 * j + m - (weight.shape[3] - 2)
        if 0 <= column < 2 * width:
            out[:, :, 2 * i + k, column] += x[:, :, i, j] @ weight[:, :, k, m]
    return out


def plus(net, own, x, condition):
    x, corner = start(x, own)
    above, kept, conditions = moved(causal_conv(x, own, "first.above"), 1, 0), [], [condition]
    for _ in range(1, net["levels"]):
        last = conditions[-1]
        if last is not None and last.ndim == 4:
            last = sum(last[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
        conditions.append(last)
    kept.append((above, corner))
    for level in range(net["levels"]):
        if level:
            above = causal_conv(above, own, f"smaller.{level}.above")[:, :, ::2, ::2]
            corner = causal_conv(corner, own, f"smaller.{level}.corner")[:, :, ::2, ::2]
            kept.append((above, corner))
        for i in range(net["blocks"]):
            above = block(above, own, f"down.{level}.{i}.above", None, conditions[level])
            corner = block(corner, own, f"down.{level}.{i}.corner", above, conditions[level])
            kept.append((above, corner))
    above, corner = kept.pop()
    for level in range(net["levels"])[::-1]:
        for i in range(net["blocks"] + (level < net["levels"] - 1)):
            other, other_corner = kept.pop()
            above = block(above, own, f"up.{level}.{i}.above", other, conditions[level])
            beside = np.concatenate([above, other_corner], 1)
            corner = block(corner, own, f"up.{level}.{i}.corner", beside, conditions[level])
        if level:
            above, corner = larger(above, own, f"larger.{level}.above"), larger(corner, own, f"larger.{level}.corner")
    assert not kept
    return causal_conv(elu(corner), own, "output")


def snail(net, own, x, condition):
    n, _, height, width = x.shape
    _, h = start(x, own)
    row, column = np.mgrid[:height, :width]
    place = np.stack([(row + 0.5) / height - 0.5, (column + 0.5) / width - 0.5])
    place = np.broadcast_to(place, (n, *place.shape))
    for i in range(net["layers"]):
        name = f"layers.{i}"
        for j in range(net["blocks"]):
            h = block(h, own, f"{name}.{j}", None, condition)
        content = block(np.concatenate([x, h, place], 1), own, f"{name}.content", None, None)
        content = causal_conv(content, own, f"{name}.content.out").reshape(n, -1, height * width)
        query = block(np.concatenate([h, place], 1), own, f"{name}.query", None, None)
        query = causal_conv(query, own, f"{name}.query.out").reshape(n, -1, height * width)
        size, mixed = net["key"], np.zeros((n, net["value"], height * width))
        for a in range(1, height * width):
            scores = np.einsum("nk,nkb->nb", query[:, :, a], content[:, :size, :a]) / np.sqrt(size)
            weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            mixed[:, :, a] = np.einsum("nb,nvb->nv", weights, content[:, size:, :a])
        h = block(h, own, f"{name}.mixed", mixed.reshape(n, -1, height, width), None)
    return causal_conv(elu(h), own, "output")


def coupled_likelihood(table, params, x, head):
    return over(lambda h, x: coupled(table, h, x), head, np.broadcast_to(x, (len(head), *x.shape)))


def coupled(table, head, x):
    """log p(x) [n] of x [n, *event]: for each pixel, the sum over components of the product over colours."""
    event = x.shape[1:]
    colours = event[0] if len(event) == 3 else 1
    head = head.reshape(len(x), -1, table["components"], colours, int(np.prod(event)) // colours)
    x = x.reshape(len(x), colours, -1)
    logits, means, raws = head[:, 0].sum(2), head[:, 1], np.maximum(head[:, 2], table["min_log_scale"])
    slopes = np.tanh(head[:, 3:]).swapaxes(1, 2).reshape(len(x), table["components"], -1, x.shape[2])
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights, centre = weights / weights.sum(1, keepdims=True), 2 * x / (table["levels"] - 1) - 1
    total = 0.0
    for k in range(table["components"]):
        log_p, a = 0.0, iter(range(slopes.shape[2]))
        for c in range(colours):
            loc = means[:, k, c] + sum(slopes[:, k, next(a)] * centre[:, d] for d in range(c))
            log_p = log_p + log_discretised_logistic(x[:, c], loc, np.exp(raws[:, k, c]), table["levels"])
        total = total + weights[:, k] * np.exp(log_p)
    return np.log(total).sum(1)


LIKELIHOODS |= {"CoupledDiscretisedLogistics": coupled_likelihood}


def coupled_outputs(table, event):
    colours = event[0] if len(event) == 3 else 1
    return (3 + (colours - 1 + 1) // 2, table["components"], *event)


OUTPUTS |= {"CoupledDiscretisedLogistics": coupled_outputs}
