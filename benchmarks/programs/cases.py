"""The programs that are raced, at any size."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import prod
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

from . import losses

Loss = Callable[[Any, dict[str, Any], Any], Any]  # (operations, parameters, x [B, …]) -> a number
Draw = Callable[[Any, dict[str, Any], int], Any]  # (operations, parameters, n) -> n images
BOUNDS = ("analytic", "monte_carlo", "importance")
NO_RELAXATION = "its own bounds know no relaxation with a discrete KL"
NO_DREG = "it has no doubly reparameterised gradient"


@dataclass(frozen=True)
class Sizes:
    """Of a program: images [side, side], widths of nets and latents, particles, layers."""

    side: int = 28
    hidden: int = 200
    latent: int = 50
    components: int = 100
    depth: int = 2  # layers of a flow
    levels: int = 2  # latents of a ladder
    level: int = 40  # their width
    groups: int = 30
    classes: int = 10
    k: int = 10
    draws: int = 50  # of the ELBO in "vamp-50"


@dataclass(frozen=True)
class Case:
    """A program with its engine, and the same loss by hand.

    Attributes:
        elbo: one of the libraries' own bounds, `BOUNDS`; or why they have none.
        images: draws by hand, if they are written.
        pythae: the name of the same model in pythae.
        rows_of: the number of rows of the data.
        stepped: whether JAX by hand takes single jitted steps and no scan.
    """

    name: str
    program: Program
    engine: Engine
    by_hand: Loss
    batch: int = 100
    elbo: str = "analytic"
    particles: int = 1
    images: Draw | None = None
    pythae: str | None = None
    device: str = "cpu"
    rows_of: int = 10_000
    stepped: bool = False
    given: NDArray[np.float32] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.name

    @property
    def data(self) -> NDArray[np.float32]:
        """Binary noise with the density of ink of handwritten digits: speed does not depend on what images show."""
        shape = self.program.event_shape  # type: ignore[attr-defined]  # every program here is of images
        x = _noise(self.rows_of, prod(shape)) if self.given is None else self.given
        return x.reshape(-1, *shape)

    def first(self) -> dict[str, NDArray[np.float32]]:
        """The values that every contestant starts from."""
        return self.program.initialise(0, {"x": self.data})

    def rows(self, steps: int, seed: int) -> NDArray[np.int64]:
        """Random minibatches, the same for every contestant."""
        return np.random.default_rng(seed).integers(len(self.data), size=(steps, self.batch))


@cache
def _noise(rows: int, width: int) -> NDArray[np.float32]:
    return (np.random.default_rng(0).random((rows, width), np.float32) < 0.13).astype(np.float32)


def _nets(s: Sizes) -> dict[str, Any]:
    net = MLP(hidden=(s.hidden, s.hidden))
    return {"event_shape": (s.side**2,), "encoder": net, "decoder": net}


def _vae(s: Sizes) -> Case:
    program = VAE(latent=s.latent, **_nets(s))
    return Case("vae", program, SVI(), losses.vae, images=losses.vae_images, pythae="VAE")


def _few(s: Sizes) -> Case:
    return replace(_vae(s), name="vae-20", batch=20)


def _vamp(s: Sizes) -> Case:
    program = VAE(latent=s.latent, prior=VampPrior(components=s.components), **_nets(s))
    return Case("vamp", program, SVI(), losses.vamp, elbo="monte_carlo")


def _many(s: Sizes) -> Case:
    many = {"engine": SVI(k=s.draws), "by_hand": partial(losses.vamp, k=s.draws), "particles": s.draws}
    return replace(_vamp(s), name="vamp-50", batch=20, **many)


def _iaf(s: Sizes) -> Case:
    flow = FlowPosterior(flow=IAF(depth=s.depth, hidden=(s.hidden,)))
    return Case("iaf", VAE(latent=s.latent, posterior=flow, **_nets(s)), SVI(), losses.iaf, elbo="monte_carlo")


def _ladder(s: Sizes) -> Case:
    nets = _nets(s)
    program = HierarchicalVAE(latent=(s.level,) * s.levels, levels=nets["encoder"], features=s.hidden, **nets)
    return Case("ladder", program, SVI(), losses.ladder, images=losses.ladder_images)


def _convolutional(s: Sizes) -> Case:
    program = VAE(event_shape=(s.side, s.side), latent=s.latent, encoder=ConvEncoder(), decoder=ConvDecoder())
    return Case("convolutional", program, SVI(), losses.convolutional, images=losses.convolutional_images, stepped=True)


def _gumbel(s: Sizes) -> Case:
    relaxed = GumbelSoftmax(classes=s.classes)
    program = VAE(latent=s.groups, posterior=relaxed, prior=CategoricalPrior(), **_nets(s))
    return Case("gumbel", program, SVI(), partial(losses.gumbel, classes=s.classes), elbo=NO_RELAXATION)


def _iwae(s: Sizes) -> Case:
    by_hand, program = partial(losses.iwae, k=s.k), VAE(latent=s.latent, **_nets(s))
    return Case("iwae", program, IWAE(k=s.k), by_hand, 20, "importance", s.k, losses.vae_images, "IWAE")


def _dreg(s: Sizes) -> Case:
    engine, by_hand = IWAE(k=s.k, estimator="dreg"), partial(losses.dreg, k=s.k)
    return replace(_iwae(s), name="iwae-dreg", engine=engine, by_hand=by_hand, elbo=NO_DREG, pythae=None)


MAKERS: dict[str, Callable[[Sizes], Case]] = {
    "vae": _vae,
    "vae-20": _few,
    "vamp": _vamp,
    "vamp-50": _many,
    "iaf": _iaf,
    "ladder": _ladder,
    "convolutional": _convolutional,
    "gumbel": _gumbel,
    "iwae": _iwae,
    "iwae-dreg": _dreg,
}


OTHER_SIZES = ("vae-20", "vamp-50")  # of programs that are there already


def make(name: str, sizes: Sizes = Sizes(), **changes: Any) -> Case:
    """A case; changes are those of `Case`'s attributes, such as batch."""
    return replace(MAKERS[name](sizes), **changes)
