"""The aggregated posterior as the prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from ppdgm.errors import ProgramError, SpecError
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.priors.mixture import MixturePrior
from ppdgm.program import Context
from ppdgm.specs import PositiveInt


class AggregatedPosterior(MixturePrior):
    """p(z) = 1/N Σ_n q(z|x_n), over the N rows of the training data: the prior with the largest ELBO on them.

    Tomczak & Welling 2018, arXiv:1705.07120; Hoffman & Johnson 2016. KL(q(z)‖p(z)) is 0 on the training data, so that
    the ELBO there is the reconstruction minus the mutual information; it overfits. Each training step encodes all rows,
    and the program keeps them as a state, `rows`. With a flow posterior it mixes the base distributions.

    Args:
        components: N, the number of rows of the training data.
        weights: "uniform", 1/N.
    """

    follows: ClassVar[bool] = True

    components: PositiveInt
    weights: Literal["uniform"] = "uniform"

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if context.inputs is None:
            raise ProgramError(
                "AggregatedPosterior mixes q(z|x_n), but here the guide does not draw this z from x only. Use "
                "MixtureOfGaussians() or StandardNormal(), or a guide that draws this z first, from x."
            )
        context.state("rows", (self.components, *context.inputs), self._first)
        return ()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        posterior, rows = head[0], P.param("rows")

        def draw(random: Random, m: Array) -> Array:
            return random.draw(posterior(rows[m]), tuple(m.shape))[0]

        return self.mixture(P, posterior(rows[:, None]), draw)

    @staticmethod
    def _first(rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None) -> np.ndarray:
        x = None if data is None else data.get("x")
        if x is None:  # before there are data, only shapes matter
            return rng.random(shape)
        if x.shape != shape:
            raise SpecError(
                f"AggregatedPosterior.components: got {shape[0]} for training data of shape {x.shape}, expected their "
                f"number of rows, of shape {shape[1:]}: AggregatedPosterior(components={len(x)})."
            )
        return np.asarray(x)
