"""What the contract suite needs to know of a small program to run over it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np


def normal_latents(**shapes):
    """Latents from nowhere in particular: standard normals of the sites' shapes, [K, B, *shape]."""
    return lambda rng, k, b: {site: rng.normal(size=(k, b, *shape)) for site, shape in shapes.items()}


def binary(rng, size, shape):
    return {"x": rng.normal(size=(size, *shape)) > 0}


def real(rng, size, shape):
    return {"x": rng.normal(size=(size, *shape))}


@dataclass(frozen=True)
class Instance:
    """A small program with data.

    Attributes:
        make: () -> the program.
        data: (rng, size, event_shape) -> fields.
        latents: (rng, k, b) -> values of the latent sites from elsewhere, [K, B, *event]; None where the guide can
            score only its own draws.
        sites: latent sites, in the guide's order.
        closed_forms: those of them whose closed-form KL is known on both backends, and valid.
        by_rejection: whether draws, of the same noise, jump as parameters move: differences of them are no gradients.
        handlers: whether plain handlers, without enumeration, can read it.
        still: parameters that the log-weight does not depend on at its own draws, each with the reason.
        tolerance: of log-weights, relative, in float32; more than 1e-5 only for a reason that stands beside it.
    """

    make: Callable
    data: Callable = binary
    latents: Callable | None = None
    sites: tuple[str, ...] = ("z",)
    closed_forms: tuple[str, ...] = ()
    by_rejection: bool = False
    handlers: bool = True
    still: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 1e-5


def noise(value, rng):
    return value + 0.3 * rng.normal(size=value.shape)


def as_float32(fields):
    return {n: np.asarray(v).astype(np.float32) for n, v in fields.items()}
