"""The VAE that every contestant trains, its data, and what a contestant is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DATA, PIXELS, HIDDEN, LATENT = 20_000, 784, 200, 50
LEARNING_RATE = 1e-3

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
"""Indices of the minibatches into the data, `[S, B]`: one row per step."""

Stretch = Callable[[], Floats]
"""Takes one step per row, going on from where the last stretch ended, and returns each step's loss, `[S]`, in
nats per row. It returns when the work is done, so its wall time is what the steps cost."""

Contestant = Callable[[Rows], Stretch]
"""Puts the rows on the device, outside the timed part, and returns the stretch that trains on them."""


class Unavailable(Exception):
    """A contestant that can't run here, with the reason in a sentence."""


class Layer(NamedTuple):
    """The initial values of one dense layer: weight `[in, out]`, bias `[out]`."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Problem:
    """A VAE 784-200-200-50 under the Monte Carlo ELBO, averaged over `particles` and over a minibatch of
    `batch`.

    The encoder gives the posterior's mean and log standard deviation, each 50 wide. There is no logarithm of
    a sum over particles: K = 50 is the ELBO with less noise, not the importance-weighted bound.
    """

    batch: int
    particles: int
    data: Floats
    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]

    def __str__(self) -> str:
        return f"{self.batch}x{self.particles}"

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the posterior's draws; a single particle has no axis, as in code written by hand."""
        return (self.batch, LATENT) if self.particles == 1 else (self.particles, self.batch, LATENT)

    def rows(self, steps: int, seed: int) -> Rows:
        """Random minibatches for a number of steps, the same for every contestant."""
        return np.random.default_rng(seed).integers(DATA, size=(steps, self.batch))


def make_problem(batch: int, particles: int) -> Problem:
    """The problem of one size; data and initial weights are the same in all."""
    rng = np.random.default_rng(1)
    encoder = _layers(rng, PIXELS, HIDDEN, HIDDEN, 2 * LATENT)
    decoder = _layers(rng, LATENT, HIDDEN, HIDDEN, PIXELS)
    return Problem(batch, particles, _data(), encoder, decoder)


@cache
def _data() -> Floats:
    """Binary noise with the density of ink of handwritten digits: the speed does not depend on what the
    images show.
    """
    return (np.random.default_rng(0).random((DATA, PIXELS)) < 0.13).astype(np.float32)


def _layers(rng: np.random.Generator, *widths: int) -> tuple[Layer, ...]:
    weights = [rng.standard_normal((n_in, n_out)) / n_in**0.5 for n_in, n_out in pairwise(widths)]
    return tuple(Layer(w.astype(np.float32), np.zeros(w.shape[1], np.float32)) for w in weights)
