"""The programs that are raced, and the loss of each written by hand: −bound of a minibatch, in nats per row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import log, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppdgm.inference import IWAE, SVI, Engine
from ppdgm.models import (
    IAF,
    MLP,
    VAE,
    CategoricalPrior,
    ConvDecoder,
    ConvEncoder,
    FlowPosterior,
    GumbelSoftmax,
    HierarchicalVAE,
    Program,
    VampPrior,
)

DATA = 10_000
Ops = Any  # JaxOps or TorchOps
Params = dict[str, Any]
Loss = Callable[[Ops, Params, Any], Any]  # (operations, parameters, x [B, …]) -> a number


@dataclass(frozen=True)
class Case:
    """A program with its engine, and the same loss by hand."""

    name: str
    program: Program
    engine: Engine
    by_hand: Loss
    batch: int = 100
    elbo: str = "analytic"  # of the libraries' own bounds: "analytic", "monte_carlo" or "importance"
    particles: int = field(default=1)
    device: str = "cpu"

    def __str__(self) -> str:
        return self.name

    @property
    def data(self) -> NDArray[np.float32]:
        """Binary noise with the density of ink of handwritten digits: speed does not depend on what images show."""
        shape = self.program.event_shape  # type: ignore[attr-defined]  # every program here is of images
        return _noise().reshape(DATA, *shape)

    def first(self) -> dict[str, NDArray[np.float32]]:
        """The values that every contestant starts from."""
        return self.program.initialise(0, {"x": self.data})

    def rows(self, steps: int, seed: int) -> NDArray[np.int64]:
        """Random minibatches, the same for every contestant."""
        return np.random.default_rng(seed).integers(DATA, size=(steps, self.batch))


@cache
def _noise() -> NDArray[np.float32]:
    return (np.random.default_rng(0).random((DATA, 784)) < 0.13).astype(np.float32)


def _mlp(o: Ops, p: Params, net: str, h: Any, activation: Any = None) -> Any:
    """784-200-200-… with tanh."""
    for i in (0, 1):
        h = (activation or o.xp.tanh)(o.linear(p, f"{net}.layers.{i}", h))
    return o.linear(p, f"{net}.layers.2", h)


def _normal_head(o: Ops, head: Any, width: int, floor: float = 1e-4) -> tuple[Any, Any]:
    return head[..., :width], floor + o.softplus(head[..., width:])


def _log_normal(o: Ops, z: Any, loc: Any, scale: Any) -> Any:
    return (-0.5 * ((z - loc) / scale) ** 2 - o.xp.log(scale)).sum(-1) - 0.5 * z.shape[-1] * log(2 * pi)


def _kl_standard(o: Ops, loc: Any, scale: Any) -> Any:
    return 0.5 * (scale**2 + loc**2 - 1.0 - 2.0 * o.xp.log(scale)).sum(-1)


def vae(o: Ops, p: Params, x: Any) -> Any:
    loc, scale = _normal_head(o, _mlp(o, p, "encoder", x), 50)
    z = loc + scale * o.normal(tuple(loc.shape))
    return (_kl_standard(o, loc, scale) - o.bernoulli(_mlp(o, p, "decoder", z), x)).mean()


def vamp(o: Ops, p: Params, x: Any) -> Any:
    inputs = o.sigmoid(4.0 * p["prior.pseudo_inputs"])
    loc, scale = _normal_head(o, _mlp(o, p, "encoder", x), 50)
    locs, scales = _normal_head(o, _mlp(o, p, "encoder", inputs), 50)
    z = loc + scale * o.normal(tuple(loc.shape))
    log_p = o.logsumexp(_log_normal(o, z[:, None], locs, scales), -1) - log(len(inputs))
    log_q = _log_normal(o, z, loc, scale)
    return (log_q - log_p - o.bernoulli(_mlp(o, p, "decoder", z), x)).mean()


def _masks(width: int, hidden: int, natural: bool) -> tuple[Any, Any]:
    """Of a masked net with a context: hidden unit k sees the first k D/H inputs, and output d those before d."""
    rank = np.arange(width) if natural else np.arange(width)[::-1]
    degree = np.arange(hidden) * width // hidden
    return rank[:, None] + 1 <= degree, degree[:, None] <= np.tile(rank, 2)


MASKS = [_masks(50, 200, natural) for natural in (True, False)]


def iaf(o: Ops, p: Params, x: Any) -> Any:
    head = _mlp(o, p, "encoder", x)
    loc, scale = _normal_head(o, head[..., :100], 50)
    noise = o.normal(tuple(loc.shape))
    z, context = loc + scale * noise, head[..., 100:]
    log_q = (-0.5 * noise**2 - o.xp.log(scale)).sum(-1) - 25.0 * log(2 * pi)
    for i, (first, last) in enumerate(MASKS):
        net = f"posterior.flow.nets.{i}.layers"
        weight = p[f"{net}.0.weight"]
        seen = context @ weight[50:] + p[f"{net}.0.bias"]
        h = o.relu(z @ (weight[:50] * o.constant(first)) + seen)
        out = h @ (p[f"{net}.1.weight"] * o.constant(last)) + p[f"{net}.1.bias"]
        rest = 0.99 * o.sigmoid(-2.0 - out[..., 50:])
        log_scale = o.xp.log1p(-rest)
        z = o.xp.exp(log_scale) * z + rest * out[..., :50]
        log_q = log_q - log_scale.sum(-1)
    log_p = -0.5 * (z**2).sum(-1) - 25.0 * log(2 * pi)
    return (log_q - log_p - o.bernoulli(_mlp(o, p, "decoder", z), x)).mean()


def ladder(o: Ops, p: Params, x: Any) -> Any:
    xp = o.xp
    h1 = o.silu(_mlp(o, p, "encoder", x))
    h2 = h1 + o.silu(_mlp(o, p, "z2.features", h1))
    loc2, scale2 = _normal_head(o, o.linear(p, "z2.encoder.layers.0", h2), 40)
    z2 = loc2 + scale2 * o.normal(tuple(loc2.shape))
    loc, scale = _normal_head(o, _mlp(o, p, "z1.conditional", z2), 40, floor=0.01)
    above = (xp.concatenate if hasattr(xp, "concatenate") else xp.cat)([h1, z2], -1)
    own, own_scale = _normal_head(o, o.linear(p, "z1.encoder.layers.0", above), 40)
    gate = scale**2 / (scale**2 + own_scale**2)
    loc1, scale1 = loc + gate * (own - loc), own_scale * xp.sqrt(gate)
    z1 = loc1 + scale1 * o.normal(tuple(loc1.shape))
    kl1 = (xp.log(scale / scale1) + (scale1**2 + (loc1 - loc) ** 2) / (2.0 * scale**2) - 0.5).sum(-1)
    return (_kl_standard(o, loc2, scale2) + kl1 - o.bernoulli(_mlp(o, p, "decoder", z1), x)).mean()


def convolutional(o: Ops, p: Params, x: Any) -> Any:
    h = x[:, None]
    for i in (0, 1):
        h = o.relu(o.conv(p, f"encoder.convs.{i}", h))
    loc, scale = _normal_head(o, o.linear(p, "encoder.output", h.reshape(len(x), -1)), 50)
    z = loc + scale * o.normal(tuple(loc.shape))
    h = o.relu(o.linear(p, "decoder.input", z).reshape(len(x), 64, 7, 7))
    logits = o.transposed(p, "decoder.convs.1", o.relu(o.transposed(p, "decoder.convs.0", h)))
    seen = o.bernoulli(logits.reshape(len(x), -1), x.reshape(len(x), -1))
    return (_kl_standard(o, loc, scale) - seen).mean()


def gumbel(o: Ops, p: Params, x: Any) -> Any:
    logits = _mlp(o, p, "encoder", x).reshape(len(x), 30, 10)
    log_probs = o.log_softmax(logits)
    kl = (o.xp.exp(log_probs) * (log_probs + log(10))).sum((-1, -2))
    y = o.xp.exp(o.log_softmax((logits + o.gumbel(tuple(logits.shape))) / 0.5))
    code = o.xp.swapaxes(y, -1, -2).reshape(len(x), -1)
    return (kl - o.bernoulli(_mlp(o, p, "decoder", code), x)).mean()


def iwae(o: Ops, p: Params, x: Any) -> Any:
    loc, scale = _normal_head(o, _mlp(o, p, "encoder", x), 50)
    z = loc + scale * o.normal((10, *loc.shape))
    log_w = o.bernoulli(_mlp(o, p, "decoder", z), x) - 0.5 * (z**2).sum(-1) - 25.0 * log(2 * pi)
    log_w = log_w - _log_normal(o, z, loc, scale)
    return -(o.logsumexp(log_w, 0) - log(10)).mean()


_IMAGE: dict[str, Any] = {"event_shape": (784,), "encoder": MLP(), "decoder": MLP()}
CASES = {
    case.name: case
    for case in (
        Case("vae", VAE(**_IMAGE), SVI(), vae),
        Case("vamp", VAE(prior=VampPrior(components=100), **_IMAGE), SVI(), vamp, elbo="monte_carlo"),
        Case(
            "iaf",
            VAE(posterior=FlowPosterior(flow=IAF(depth=2)), **_IMAGE),
            SVI(),
            iaf,
            elbo="monte_carlo",
        ),
        Case("ladder", HierarchicalVAE(**_IMAGE), SVI(), ladder),
        Case(
            "convolutional",
            VAE(event_shape=(28, 28), encoder=ConvEncoder(), decoder=ConvDecoder()),
            SVI(),
            convolutional,
        ),
        Case(
            "gumbel",
            VAE(latent=30, posterior=GumbelSoftmax(classes=10), prior=CategoricalPrior(), **_IMAGE),
            SVI(),
            gumbel,
            elbo="none",
        ),
        Case("iwae", VAE(**_IMAGE), IWAE(k=10), iwae, batch=20, elbo="importance", particles=10),
    )
}
