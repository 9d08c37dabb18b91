"""Each program written by hand over `ops_jax.py` or `ops_torch.py`: −bound of a minibatch, in nats per row, and draws.

Sizes are read from the parameters, which have ppdgm's names and shapes. x is [B, …].
"""

from math import log, pi
from typing import Any

import numpy as np

Ops = Any  # JaxOps or TorchOps
Params = dict[str, Any]


def _mlp(o: Ops, p: Params, net: str, h: Any) -> Any:
    """Two hidden layers with tanh."""
    for i in (0, 1):
        h = o.xp.tanh(o.linear(p, f"{net}.layers.{i}", h))
    return o.linear(p, f"{net}.layers.2", h)


def _normal_head(o: Ops, head: Any, floor: float = 1e-4) -> tuple[Any, Any]:
    width = head.shape[-1] // 2
    return head[..., :width], floor + o.softplus(head[..., width:])


def _encoded(o: Ops, p: Params, x: Any) -> tuple[Any, Any]:
    return _normal_head(o, _mlp(o, p, "encoder", x))


def _decoded(o: Ops, p: Params, z: Any, x: Any) -> Any:
    """log p(x|z)."""
    return o.bernoulli(_mlp(o, p, "decoder", z), x)


def _log_normal(o: Ops, z: Any, loc: Any, scale: Any) -> Any:
    return (-0.5 * ((z - loc) / scale) ** 2 - o.xp.log(scale)).sum(-1) - 0.5 * z.shape[-1] * log(2 * pi)


def _log_standard(z: Any) -> Any:
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * log(2 * pi)


def _kl_standard(o: Ops, loc: Any, scale: Any) -> Any:
    return 0.5 * (scale**2 + loc**2 - 1.0 - 2.0 * o.xp.log(scale)).sum(-1)


def vae(o: Ops, p: Params, x: Any) -> Any:
    loc, scale = _encoded(o, p, x)
    z = loc + scale * o.normal(tuple(loc.shape))
    return (_kl_standard(o, loc, scale) - _decoded(o, p, z, x)).mean()


def vamp(o: Ops, p: Params, x: Any, k: int | None = None) -> Any:
    """With k, the mean over k draws for each row, [K, B]."""
    inputs = o.sigmoid(4.0 * p["prior.pseudo_inputs"])
    loc, scale = _encoded(o, p, x)
    locs, scales = _encoded(o, p, inputs)
    z = loc + scale * o.normal(tuple(loc.shape) if k is None else (k, *loc.shape))
    log_p = o.logsumexp(_log_normal(o, z[..., None, :], locs, scales), -1) - log(len(inputs))
    return (_log_normal(o, z, loc, scale) - log_p - _decoded(o, p, z, x)).mean()


def _masks(width: int, hidden: int, natural: bool) -> tuple[Any, Any]:
    """Of a masked net with a context: hidden unit k sees the first k D/H inputs, and output d those before d."""
    rank = np.arange(width) if natural else np.arange(width)[::-1]
    degree = np.arange(hidden) * width // hidden
    return rank[:, None] + 1 <= degree, degree[:, None] <= np.tile(rank, 2)


def iaf(o: Ops, p: Params, x: Any) -> Any:
    hidden, width = p["posterior.flow.nets.0.layers.1.weight"].shape
    width //= 2
    head = _mlp(o, p, "encoder", x)
    loc, scale = _normal_head(o, head[..., : 2 * width])
    noise = o.normal(tuple(loc.shape))
    z, context = loc + scale * noise, head[..., 2 * width :]
    log_q = _log_standard(noise) - o.xp.log(scale).sum(-1)
    for i in range(sum(n.endswith(".0.weight") and ".flow.nets." in n for n in p)):
        first, last = _masks(width, hidden, natural=i % 2 == 0)
        net = f"posterior.flow.nets.{i}.layers"
        weight = p[f"{net}.0.weight"]
        seen = context @ weight[width:] + p[f"{net}.0.bias"]
        h = o.relu(z @ (weight[:width] * o.constant(first)) + seen)
        out = h @ (p[f"{net}.1.weight"] * o.constant(last)) + p[f"{net}.1.bias"]
        rest = 0.99 * o.sigmoid(-2.0 - out[..., width:])
        log_scale = o.xp.log1p(-rest)
        z = o.xp.exp(log_scale) * z + rest * out[..., :width]
        log_q = log_q - log_scale.sum(-1)
    return (log_q - _log_standard(z) - _decoded(o, p, z, x)).mean()


def _conditional(o: Ops, p: Params, level: int, above: Any) -> tuple[Any, Any]:
    """p(z_l|z_{l+1})."""
    return _normal_head(o, _mlp(o, p, f"z{level}.conditional", above), floor=0.01)


def ladder(o: Ops, p: Params, x: Any) -> Any:
    depth = _levels(p)
    h = [o.silu(_mlp(o, p, "encoder", x))]
    for level in range(2, depth + 1):
        h.append(h[-1] + o.silu(_mlp(o, p, f"z{level}.features", h[-1])))
    loc, scale = _normal_head(o, o.linear(p, f"z{depth}.encoder.layers.0", h[-1]))
    z, kl = loc + scale * o.normal(tuple(loc.shape)), _kl_standard(o, loc, scale)
    for level in range(depth - 1, 0, -1):
        loc, scale = _conditional(o, p, level, z)
        own, own_scale = _normal_head(o, o.linear(p, f"z{level}.encoder.layers.0", o.concat([h[level - 1], z])))
        gate = scale**2 / (scale**2 + own_scale**2)
        at, spread = loc + gate * (own - loc), own_scale * o.xp.sqrt(gate)
        z = at + spread * o.normal(tuple(at.shape))
        kl = kl + (o.xp.log(scale / spread) + (spread**2 + (at - loc) ** 2) / (2.0 * scale**2) - 0.5).sum(-1)
    return (kl - _decoded(o, p, z, x)).mean()


def _levels(p: Params) -> int:
    return 1 + sum(n.endswith(".conditional.layers.0.weight") for n in p)


def convolutional(o: Ops, p: Params, x: Any) -> Any:
    h = x[:, None]
    for i in (0, 1):
        h = o.relu(o.conv(p, f"encoder.convs.{i}", h))
    loc, scale = _normal_head(o, o.linear(p, "encoder.output", h.reshape(len(x), -1)))
    z = loc + scale * o.normal(tuple(loc.shape))
    logits = _drawn_by_convolutions(o, p, z)
    return (_kl_standard(o, loc, scale) - o.bernoulli(logits.reshape(len(x), -1), x.reshape(len(x), -1))).mean()


def _drawn_by_convolutions(o: Ops, p: Params, z: Any) -> Any:
    """Logits [B, 1, S, S]."""
    channels = p["decoder.convs.0.weight"].shape[0]
    h = o.relu(o.linear(p, "decoder.input", z))
    side = round((h.shape[-1] // channels) ** 0.5)
    h = o.relu(o.transposed(p, "decoder.convs.0", h.reshape(len(z), channels, side, side)))
    return o.transposed(p, "decoder.convs.1", h)


def gumbel(o: Ops, p: Params, x: Any, classes: int) -> Any:
    logits = _mlp(o, p, "encoder", x).reshape(len(x), -1, classes)
    log_probs = o.log_softmax(logits)
    kl = (o.xp.exp(log_probs) * (log_probs + log(classes))).sum((-1, -2))
    y = o.xp.exp(o.log_softmax((logits + o.gumbel(tuple(logits.shape))) / 0.5))
    code = o.xp.swapaxes(y, -1, -2).reshape(len(x), -1)
    return (kl - _decoded(o, p, code, x)).mean()


def _log_weights(o: Ops, p: Params, x: Any, z: Any, loc: Any, scale: Any) -> Any:
    return _decoded(o, p, z, x) + _log_standard(z) - _log_normal(o, z, loc, scale)


def log_weights(o: Ops, p: Params, x: Any, k: int) -> Any:
    """log p(x, z) − log q(z|x) of k draws for each row, [K, B], of the VAE."""
    loc, scale = _encoded(o, p, x)
    return _log_weights(o, p, x, loc + scale * o.normal((k, *loc.shape)), loc, scale)


def iwae(o: Ops, p: Params, x: Any, k: int) -> Any:
    return -(o.logsumexp(log_weights(o, p, x, k), 0) - log(k)).mean()


def dreg(o: Ops, p: Params, x: Any, k: int) -> Any:
    """The same bound with the doubly reparameterised gradient. Tucker et al. 2019, arXiv:1810.04152, equation 8."""
    width = p["encoder.layers.2.bias"].shape[0] // 2
    noise = o.normal((k, len(x), width))

    def draw(p: Params) -> tuple[Any, tuple[Any, Any]]:
        loc, scale = _encoded(o, p, x)
        return loc + scale * noise, (loc, scale)

    return o.doubly(p, draw, lambda p, z, q: _log_weights(o, p, x, z, *q))


def vae_images(o: Ops, p: Params, n: int) -> Any:
    """n images that the VAE draws."""
    width = p["decoder.layers.0.weight"].shape[0]
    return o.flips(o.sigmoid(_mlp(o, p, "decoder", o.normal((n, width)))))


def ladder_images(o: Ops, p: Params, n: int) -> Any:
    depth = _levels(p)
    z = o.normal((n, p[f"z{depth - 1}.conditional.layers.0.weight"].shape[0]))
    for level in range(depth - 1, 0, -1):
        loc, scale = _conditional(o, p, level, z)
        z = loc + scale * o.normal(tuple(loc.shape))
    return o.flips(o.sigmoid(_mlp(o, p, "decoder", z)))


def convolutional_images(o: Ops, p: Params, n: int) -> Any:
    logits = _drawn_by_convolutions(o, p, o.normal((n, p["decoder.input.weight"].shape[0])))
    return o.flips(o.sigmoid(logits[:, 0]))
