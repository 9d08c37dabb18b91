"""Densities by the chain rule and by flows: in a decoder, and alone. Causal nets are read pixel by pixel."""

from math import prod

import numpy as np
from scipy.signal import correlate
from scipy.special import expit
from scipy.stats import norm

from reference.base import ENCODED, LIKELIHOODS, OUTPUTS, over
from reference.flows import INVERSES, coupling_inverse, invert
from reference.nets import forward
from reference.pixels import plus, snail


def outputs_of(likelihood, event):
    return OUTPUTS.get(likelihood["kind"], lambda likelihood, event: event)(likelihood, event)


def autoregressive(net, each, params, prefix, x, condition, event):
    """log p(x) [n] of x [n, *event] and conditions [n, …] or None: every number by a net that sees no later number."""
    outputs, seen = outputs_of(each, event), ENCODED.get(each["kind"], lambda likelihood, x: x)(each, x)
    if net["kind"] == "MADE":
        flat = seen.reshape(len(x), -1)
        given = flat if condition is None else np.concatenate([flat, condition.reshape(len(x), -1)], 1)
        shape = (prod(outputs) // prod(event), prod(event))
        head = forward(net, params, f"{prefix}net", given, shape).reshape(len(x), *outputs)
    else:
        own = {n[len(prefix) + 4 :]: np.asarray(v, float) for n, v in params.items() if n.startswith(f"{prefix}net.")}
        image = seen.reshape(len(x), *((1, *event) if len(event) == 2 else event))
        read = {"PixelCNNPlusPlus": plus, "PixelSNAIL": snail}.get(net["kind"])
        head = read(net, own, image, condition) if read else pixels(net, own, seen, condition, event)
        head = head.reshape(len(x), *outputs)
    return LIKELIHOODS[each["kind"]](each, params, x, head[None])[0]


def pixels(net, own, x, condition, event):
    """The gated PixelCNN: full square kernels, of which what may not be seen is zero."""
    colours, height, width = event if len(event) == 3 else (1, *event)
    v = h = x.reshape(len(x), colours, height, width)
    group = lambda features: np.repeat(np.arange(colours), features // colours)
    c = net["channels"]
    for i in range(net["layers"]):
        reach = (net["first_kernel"] if i == 0 else net["kernel"]) // 2
        size = 2 * reach + 1
        down, across = np.zeros((2 * c, v.shape[1], size, size)), np.zeros((2 * c, h.shape[1], size, size))
        down[:, :, : reach + 1] = own[f"layers.{i}.vertical.weight"]
        across[:, :, reach, : reach + 1] = own[f"layers.{i}.horizontal.weight"][:, :, 0]
        features = np.arange(colours) if i == 0 else group(c)
        for o, k in np.ndindex(2 * c, h.shape[1]):
            mine = group(c)[o % c]
            if not (features[k] < mine if i == 0 else features[k] <= mine):
                across[o, k, reach, reach] = 0.0
        above = same(v, down) + own[f"layers.{i}.vertical.bias"][:, None, None]
        lower = np.zeros_like(above)
        lower[:, :, 1:] = above[:, :, :-1]
        row = same(h, across) + own[f"layers.{i}.horizontal.bias"][:, None, None]
        row = row + point(lower, own, f"layers.{i}.between", None)
        if condition is not None:
            weight, bias = own[f"layers.{i}.condition.weight"], own[f"layers.{i}.condition.bias"]
            if weight.ndim == 2:
                extra = (condition @ weight + bias)[:, :, None, None]
            else:
                extra = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], condition) + bias[:, None, None]
            above, row = above + extra[:, : 2 * c], row + extra[:, 2 * c :]
        v = np.tanh(above[:, :c]) * expit(above[:, c:])
        row = np.tanh(row[:, :c]) * expit(row[:, c:])
        row = point(row, own, f"layers.{i}.residual", (group(c), group(c)))
        h = row if i == 0 else h + row
    out = point(np.maximum(h, 0), own, "outputs.0", (group(c), group(net["hidden"])))
    count = len(own["outputs.1.bias"])
    out = point(np.maximum(out, 0), own, "outputs.1", (group(net["hidden"]), np.arange(count) % colours))
    return out + own.get("position", 0.0)


def same(x, weight):
    """Correlation with zeros around the image, which keeps its size."""
    pad = weight.shape[-1] // 2
    wide = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return np.array([[correlate(image, w, "valid")[0] for w in weight] for image in wide])


def point(x, own, name, groups):
    """A 1×1 convolution; features see those of their own colour and of earlier ones."""
    weight = own[f"{name}.weight"][:, :, 0, 0]
    if groups is not None:
        weight = np.where(groups[0][None] <= groups[1][:, None], weight, 0.0)
    return np.einsum("oi,nihw->nohw", weight, x) + own[f"{name}.bias"][:, None, None]


def read_size(flow, width):
    """How many numbers of context a flow reads."""
    if flow["kind"] == "Chain":
        return sum(read_size(each, width) for each in flow["flows"])
    return flow.get("context_size", 0)


def chain_inverse(flow, params, name, y, context):
    total, end = np.zeros(len(y)), None if context is None else context.shape[1]
    for i, each in reversed(list(enumerate(flow["flows"]))):
        seen = None
        if end is not None and (size := read_size(each, y.shape[1])):
            seen, end = context[:, end - size : end], end - size
        y, log_det = invert(each, params, f"{name}.{i}", y, seen)
        total = total + log_det
    return y, total


def matrix(params, name):
    if f"{name}.weight" in params:
        return np.asarray(params[f"{name}.weight"], float)
    own = {n: np.asarray(params[f"{name}.{n}"], float) for n in ("permutation", "lower", "upper", "log_scale", "sign")}
    lower = np.tril(own["lower"], -1) + np.eye(len(own["sign"]))
    upper = np.triu(own["upper"], 1) + np.diag(own["sign"] * np.exp(own["log_scale"]))
    return own["permutation"] @ lower @ upper


def linear_inverse(flow, params, name, y, context):
    weight = matrix(params, name)
    return np.stack([weight @ row for row in y]), np.full(len(y), np.linalg.slogdet(weight)[1])


def norm_inverse(flow, params, name, y, context):
    log_scale = params[f"{name}.log_scale"]
    return np.exp(log_scale) * (y + params[f"{name}.shift"]), np.full(len(y), log_scale.sum())


def nice_inverse(flow, params, name, y, context):
    shifted = coupling_inverse(lambda flow: 1, lambda flow, numbers, y: (y - numbers[0], 1.0))
    y, none = shifted(flow, params, name, y, context)
    log_scale = params[f"{name}.log_scale"]
    return y * np.exp(-log_scale), none - log_scale.sum()


def glow_inverse(flow, params, name, y, context):
    """Pixel by pixel where the paper's equations are so: the matrix of channels times each pixel."""
    own = {n[len(name) + 1 :]: np.asarray(v, float) for n, v in params.items() if n.startswith(f"{name}.")}
    image = flow["image"] if len(flow["image"]) == 3 else (1, *flow["image"])
    h, total, noise = y.reshape(len(y), *image), np.zeros(len(y)), []
    conv = lambda n, x: same(x, own[f"{n}.weight"]) + own[f"{n}.bias"][:, None, None]

    def halves(out):
        half = out.shape[1] // 2
        return out[:, :half], flow["max_log_scale"] * np.tanh(out[:, half:] / flow["max_log_scale"])

    for level in range(flow["levels"]):
        h = np.concatenate(  # each channel's four pixels of a square, side by side
            [np.stack([h[:, c, a::2, b::2] for a in (0, 1) for b in (0, 1)], 1) for c in range(h.shape[1])], 1
        )
        for step in range(flow["depth"]):
            at = f"levels.{level}.{step}"
            scale = own[f"{at}.norm.log_scale"]
            h = np.exp(scale)[:, None, None] * (h + own[f"{at}.norm.shift"][:, None, None])
            weight = matrix(own, f"{at}.mix")
            pixels = h.shape[2] * h.shape[3]
            total = total + pixels * (scale.sum() + np.linalg.slogdet(weight)[1])
            for i, j in np.ndindex(*h.shape[2:]):
                h[:, :, i, j] = h[:, :, i, j] @ weight.T
            a, b = np.split(h, 2, axis=1)
            inner = conv(f"{at}.net.0", a)
            if context is not None:
                inner = inner + (context @ own[f"{at}.context.weight"] + own[f"{at}.context.bias"])[:, :, None, None]
            inner = np.maximum(conv(f"{at}.net.1", np.maximum(inner, 0)), 0)
            shift, log_scale = halves(conv(f"{at}.net.2", inner))
            h, total = np.concatenate([a, b * np.exp(log_scale) + shift], 1), total + log_scale.sum((1, 2, 3))
        out = h
        if level < flow["levels"] - 1:
            h, out = np.split(h, 2, axis=1)
            loc, log_scale = halves(conv(f"levels.{level}.split", h))
            out, total = (out - loc) / np.exp(log_scale), total - log_scale.sum((1, 2, 3))
        noise.append(out.reshape(len(y), -1))
    return np.concatenate(noise, 1), total


INVERSES |= {
    "Chain": chain_inverse,
    "InvertibleLinear": linear_inverse,
    "ActNorm": norm_inverse,
    "NICE": nice_inverse,
    "Glow": glow_inverse,
}


def autoregressive_likelihood(table, params, x, head):
    log_p = lambda h, x: autoregressive(table["net"], table["each"], params, "likelihood.", x, h, x.shape[1:])
    return over(log_p, head, np.broadcast_to(x, (len(head), *x.shape)))


def flow_likelihood(table, params, x, head):
    def log_p(h, x):
        noise, log_det = invert(table["flow"], params, "likelihood.flow", x.reshape(len(x), -1), h)
        return norm.logpdf(noise).sum(1) + log_det

    return over(log_p, head, np.broadcast_to(x, (len(head), *x.shape)))


def condition_of(program, data):
    """The one-hot label and the covariates, side by side; None if there are none."""
    parts = []
    if program.get("classes"):
        parts.append((data["label"][:, None] == np.arange(program["classes"])) * 1.0)
    if program.get("covariates"):
        parts.append(data["y"].reshape(len(data["y"]), -1))
    return np.concatenate(parts, 1) if parts else None


def log_density(program, params, data):
    """log p(x | label, y) [N] of an AutoregressiveModel."""
    event = tuple(program["event_shape"])
    given = condition_of(program, data)
    x = np.asarray(data["x"], float)
    return autoregressive(program["net"], program["likelihood"], params, "", x, given, event)


LIKELIHOODS |= {"Autoregressive": autoregressive_likelihood, "FlowLikelihood": flow_likelihood}
OUTPUTS |= {
    "Autoregressive": lambda table, event: tuple(table["condition"]),
    "FlowLikelihood": lambda table, event: (read_size(table["flow"], prod(event)),),
}
ENCODED |= {
    "Autoregressive": lambda table, x: ENCODED.get(table["each"]["kind"], lambda each, x: x)(table["each"], x),
}
