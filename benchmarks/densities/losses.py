"""−log p of a minibatch in nats per row, written by hand over `ops_jax.py` or `ops_torch.py`; x is [B, 28, 28].

Sizes are read from the parameters, which have ppdgm's names and shapes.
"""

from math import log, pi
from typing import Any

Ops = Any  # JaxOps or TorchOps
Params = dict[str, Any]


def pixel_cnn(o: Ops, p: Params, x: Any) -> Any:
    """A gated PixelCNN of binary images."""
    p = {n.removeprefix("net."): v for n, v in p.items()}
    gated = lambda h: o.xp.tanh(h[:, : h.shape[1] // 2]) * o.sigmoid(h[:, h.shape[1] // 2 :])
    above = row = x[:, None]
    for i in range(sum(n.endswith(".vertical.weight") for n in p)):
        reach = p[f"layers.{i}.vertical.weight"].shape[2] - 1
        h = o.convolved(p, f"layers.{i}.vertical", above, ((reach, 0), (reach, reach)))
        if i == 0:  # a pixel does not see itself: the last column of the kernel is not used
            weight = p[f"layers.{i}.horizontal.weight"][..., :-1]
            own = {"k.weight": weight, "k.bias": p[f"layers.{i}.horizontal.bias"]}
            across = o.convolved(own, "k", row[..., :-1], ((0, 0), (reach, 0)))
        else:
            across = o.convolved(p, f"layers.{i}.horizontal", row, ((0, 0), (reach, 0)))
        lower = o.xp.concatenate([o.xp.zeros_like(h[:, :, :1]), h[:, :, :-1]], 2)
        across = gated(across + o.convolved(p, f"layers.{i}.between", lower))
        across = o.convolved(p, f"layers.{i}.residual", across)
        above, row = gated(h), across if i == 0 else row + across
    h = o.convolved(p, "outputs.0", o.relu(row))
    logits = o.convolved(p, "outputs.1", o.relu(h)) + p["position"]
    return -o.bernoulli(logits.reshape(len(x), -1), x.reshape(len(x), -1)).mean()


def glow(o: Ops, p: Params, x: Any) -> Any:
    """A Glow of real images; log-scales are bounded by 2."""
    levels = 1 + max(int(n.split(".")[2]) for n in p if n.endswith(".norm.shift"))
    depth = 1 + max(int(n.split(".")[3]) for n in p if n.endswith(".norm.shift"))
    h, total = x[:, None], 0.0
    for level in range(levels):
        n, c, height, width = h.shape
        h = h.reshape(n, c, height // 2, 2, width // 2, 2)
        h = o.permuted(h, (0, 1, 3, 5, 2, 4)).reshape(n, 4 * c, height // 2, width // 2)
        for step in range(depth):
            h, log_det = _step(o, p, f"flow.levels.{level}.{step}", h)
            total = total + log_det
        if level < levels - 1:
            half = h.shape[1] // 2
            h, out = h[:, :half], h[:, half:]
            loc, log_scale = _bounded(o, o.convolved(p, f"flow.levels.{level}.split", h, ((1, 1), (1, 1))))
            out, total = (out - loc) * o.xp.exp(-log_scale), total - log_scale.sum((1, 2, 3))
            total = total + _log_standard(out)
    return -(total + _log_standard(h)).mean()


def _step(o: Ops, p: Params, name: str, h: Any) -> tuple[Any, Any]:
    """Norm, 1×1 convolution W = P L (U + diag s), and coupling; log|det| [B]."""
    scale, channels, pixels = p[f"{name}.norm.log_scale"], h.shape[1], h.shape[2] * h.shape[3]
    h = o.xp.exp(scale)[:, None, None] * (h + p[f"{name}.norm.shift"][:, None, None])
    log_s = p[f"{name}.mix.log_scale"]
    eye = o.constant(_eye(channels))
    lower = o.xp.tril(p[f"{name}.mix.lower"], -1) + eye
    upper = o.xp.triu(p[f"{name}.mix.upper"], 1) + eye * (o.stop(p[f"{name}.mix.sign"]) * o.xp.exp(log_s))
    weight = o.stop(p[f"{name}.mix.permutation"]) @ lower @ upper
    h = (weight @ h.reshape(len(h), channels, -1)).reshape(h.shape)
    a, b = h[:, : channels // 2], h[:, channels // 2 :]
    inner = o.relu(o.convolved(p, f"{name}.net.0", a, ((1, 1), (1, 1))))
    inner = o.relu(o.convolved(p, f"{name}.net.1", inner))
    shift, log_scale = _bounded(o, o.convolved(p, f"{name}.net.2", inner, ((1, 1), (1, 1))))
    h = o.xp.concatenate([a, b * o.xp.exp(log_scale) + shift], 1)
    return h, pixels * (scale.sum() + log_s.sum()) + log_scale.sum((1, 2, 3))


def _bounded(o: Ops, out: Any) -> tuple[Any, Any]:
    half = out.shape[1] // 2
    return out[:, :half], 2.0 * o.xp.tanh(out[:, half:] / 2.0)


def _log_standard(z: Any) -> Any:
    return (-0.5 * z**2 - 0.5 * log(2 * pi)).sum((1, 2, 3))


def _eye(n: int) -> list[list[float]]:
    return [[float(i == j) for j in range(n)] for i in range(n)]
