"""Nets, as their docstrings give them: `forward(net, params, name, x, outputs)` for x [n, *inputs]."""

from math import prod

import numpy as np
from scipy.signal import correlate
from scipy.special import expit
from scipy.stats import norm as standard_normal

ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * standard_normal.cdf(x),
    "silu": lambda x: x * expit(x),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "sigmoid": expit,
    "identity": lambda x: x,
}


def forward(net, params, name, x, outputs):
    """[n, *inputs] -> [n, *outputs]; `params` holds the net's parameters under `name.`."""
    own = {key[len(name) + 1 :]: np.asarray(v, float) for key, v in params.items() if key.startswith(name + ".")}
    kinds = {
        "MLP": mlp,
        "GatedMLP": gated_mlp,
        "ResidualMLP": residual_mlp,
        "RevNet": rev_net,
        "IRevNet": i_rev_net,
        "MADE": made,
        "ConvEncoder": conv_encoder,
        "ConvDecoder": conv_decoder,
    }
    x = np.asarray(x, float)
    return kinds[net["kind"]](net, own, x, outputs).reshape(len(x), *outputs)


def affine(own, name, h):
    return np.einsum("io,ni->no", own[f"{name}.weight"], h) + own[f"{name}.bias"]


def normalise(own, name, h):
    """Each row at mean 0 and variance 1, then scaled and shifted."""
    rows = np.stack([(row - row.mean()) / np.sqrt(row.var() + 1e-5) for row in h])
    return own[f"{name}.scale"] * rows + own[f"{name}.shift"]


def option(net, field):
    """A field that may be absent: a norm of none is left out of the text, or written as a table."""
    value = net.get(field)
    return None if isinstance(value, dict) else value


def mlp(net, own, x, outputs):
    h = x.reshape(len(x), -1)
    for i in range(len(net["hidden"])):
        h = affine(own, f"layers.{i}", h)
        if option(net, "norm") == "layer":
            h = normalise(own, f"norms.{i}", h)
        h = ACTIVATIONS[net["activation"]](h)
    return affine(own, f"layers.{len(net['hidden'])}", h)


def made(net, own, x, outputs):
    """Unit by unit: a hidden one sees the first inputs up to its number, an output d the units up to d's place."""
    width, layers = outputs[-1], len(net["hidden"]) + 1
    least = 0 if x.shape[1] > width or width == 1 else 1
    places = np.argsort(made_order(net, width))
    seen = np.concatenate([places + 1, np.zeros(x.shape[1] - width)])
    h = x
    for i in range(layers):
        units = net["hidden"][i] if i + 1 < layers else prod(outputs)
        if i + 1 < layers:
            up_to = least + np.floor(np.arange(units) * (width - least) / units)
        else:
            up_to = places[np.arange(units) % width]
        weight, bias = own[f"layers.{i}.weight"], own[f"layers.{i}.bias"]
        h = np.stack([h[:, seen <= n] @ weight[seen <= n, k] + bias[k] for k, n in enumerate(up_to)], axis=1)
        h, seen = (ACTIVATIONS[net["activation"]](h), up_to) if i + 1 < layers else (h, seen)
    return h


def made_order(net, width):
    """The inputs' numbers as they follow each other; a random one by Lehmer's generator."""
    if net["ordering"] == "random":
        order, state = np.arange(width), net["seed"] + 1
        for last in reversed(range(1, width)):
            state = 48271 * state % (2**31 - 1)
            order[[last, state % (last + 1)]] = order[[state % (last + 1), last]]
        return order
    named = {"natural": np.arange(width), "reversed": np.arange(width)[::-1]}
    return named[net["ordering"]] if isinstance(net["ordering"], str) else np.array(net["ordering"])


def gated_mlp(net, own, x, outputs):
    h = x.reshape(len(x), -1)
    for i, width in enumerate(net["hidden"]):
        weight, bias = own[f"layers.{i}.weight"], own[f"layers.{i}.bias"]
        value = h @ weight[:, :width] + bias[:width]
        gate = h @ weight[:, width:] + bias[width:]
        h = ACTIVATIONS[net["activation"]](value) * expit(gate)
    return affine(own, f"layers.{len(net['hidden'])}", h)


def residual_mlp(net, own, x, outputs):
    a = ACTIVATIONS[net["activation"]]
    h = affine(own, "input", x.reshape(len(x), -1))
    for i in range(net["blocks"]):
        normed = normalise(own, f"norms.{i}", h) if option(net, "norm") == "layer" else h
        h = h + affine(own, f"blocks.{i}.1", a(affine(own, f"blocks.{i}.0", a(normed))))
    return affine(own, "output", a(h))


def rev_net(net, own, x, outputs):
    a, half = ACTIVATIONS[net["activation"]], net["width"] // 2
    h = affine(own, "input", x.reshape(len(x), -1))
    first, second = h[:, :half], h[:, half:]

    def inner(name, h):
        h = normalise(own, f"{name}.norm", h) if option(net, "norm") == "layer" else h
        return affine(own, f"{name}.1", a(affine(own, f"{name}.0", a(h))))

    for i in range(net["blocks"]):
        first = first + inner(f"blocks.{i}.f", second)
        second = second + inner(f"blocks.{i}.g", first)
    return affine(own, "output", a(np.concatenate([first, second], 1)))


def i_rev_net(net, own, x, outputs):
    h, groups = as_images(x, x.shape[1:]), {"activation": net["activation"], "norm": "group", "groups": 1}

    def inner(name, h):
        for j in (0, 1):
            h = convolve(normalise_and_activate(groups, own, f"{name}.{j}", h), own, f"{name}.{j}", 1, 1)
        return h

    for level in range(net["levels"]):
        h = np.stack([h[:, c, i::2, j::2] for c in range(h.shape[1]) for i in (0, 1) for j in (0, 1)], 1)
        first, second = np.split(h, 2, axis=1)
        for i in range(net["blocks"]):
            first = first + inner(f"levels.{level}.{i}.f", second)
            second = second + inner(f"levels.{level}.{i}.g", first)
        h = np.concatenate([first, second], 1)
    return affine(own, "output", h.reshape(len(h), -1))


def conv_encoder(net, own, x, outputs):
    h = as_images(x, x.shape[1:])
    for i in range(len(net["channels"])):
        h = convolve(h, own, f"convs.{i}", net["stride"], net["padding"])
        h = gated(net, h, lambda h, name=f"convs.{i}": normalise_and_activate(net, own, name, h))
    h = residual_blocks(net, own, h)
    return affine(own, "output", h.reshape(len(h), -1))


def conv_decoder(net, own, x, outputs):
    sizes = [outputs[-2:]]
    for _ in net["channels"]:
        sizes.append([(n + 2 * net["padding"] - net["kernel"]) // net["stride"] + 1 for n in sizes[-1]])
    h = affine(own, "input", x.reshape(len(x), -1)).reshape(len(x), -1, *sizes[-1])
    h = residual_blocks(net, own, gated(net, h, lambda h: normalise_and_activate(net, own, "input", h)))
    for i in range(len(net["channels"])):
        h = convolve_transposed(h, own, f"convs.{i}", net["stride"], net["padding"], sizes[-2 - i])
        if i + 1 < len(net["channels"]):
            h = gated(net, h, lambda h, name=f"convs.{i}": normalise_and_activate(net, own, name, h))
    return h


def as_images(x, event):
    """[n, C, H, W]; dimensions before the last two are channels."""
    return x.reshape(len(x), prod(event[:-2]), *event[-2:])


def normalise_and_activate(net, own, name, h):
    if option(net, "norm") == "group":
        h = h.copy()
        for image in h:
            for channels in np.split(np.arange(len(image)), net["groups"]):
                group = image[channels]
                image[channels] = (group - group.mean()) / np.sqrt(group.var() + 1e-5)
        scale, shift = own[f"{name}.norm.scale"], own[f"{name}.norm.shift"]
        h = np.einsum("nchw,c->nchw", h, scale) + shift[:, None, None]
    return ACTIVATIONS[net["activation"]](h)


def gated(net, h, function):
    """function(first half of the channels) · σ(second half), with gates."""
    if not net["gated"]:
        return function(h)
    value, gate = np.split(h, 2, axis=1)
    return function(value) * expit(gate)


def residual_blocks(net, own, h):
    """h ← h + conv(a(conv(a(h)))), a norm before each activation, and one activation after the last block."""
    for i in range(net["residual"]):
        inner = convolve(normalise_and_activate(net, own, f"blocks.{i}.0", h), own, f"blocks.{i}.0", 1, 1)
        outer = convolve(normalise_and_activate(net, own, f"blocks.{i}.1", inner), own, f"blocks.{i}.1", 1, 1)
        h = h + gated(net, outer, lambda h: h)
    return ACTIVATIONS[net["activation"]](h) if net["residual"] else h


def convolve(h, own, name, stride, padding):
    """y[o, i, j] = b[o] + Σ w[o, c, k, l] h[c, i stride + k − padding, j stride + l − padding]."""
    weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
    padded = np.pad(h, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    images = [[correlate(x, w, "valid")[0, ::stride, ::stride] for w in weight] for x in padded]
    return np.array(images) + bias[:, None, None]


def convolve_transposed(h, own, name, stride, padding, size):
    """y[o, i stride + k − padding, j stride + l − padding] += w[c, o, k, l] h[c, i, j], on an image of `size`."""
    weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
    kernel = weight.shape[-1]
    canvas = np.zeros((len(h), weight.shape[1], size[0] + 2 * padding + kernel, size[1] + 2 * padding + kernel))
    for i in range(h.shape[2]):
        for j in range(h.shape[3]):
            patch = np.einsum("nc,cokl->nokl", h[:, :, i, j], weight)
            canvas[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel] += patch
    return canvas[:, :, padding : padding + size[0], padding : padding + size[1]] + bias[:, None, None]
