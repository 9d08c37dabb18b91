"""The likelihood of whole numbers given a real latent in their cell; `Dequantised` uses it."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.likelihoods.base import Levels, independent
from ppdgm.program import Context


class Rounding(Levels):
    """p(x|z) = 1 if x is the cell of z, x = ⌊levels · z⌋, else 0; levels outside 0 … levels − 1 become the nearest one.

    Only a posterior inside the cell, `Dequantiser`, has a finite bound.
    """

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def encoded(self, P: Vocabulary, x: Array) -> Array:
        """The lower edge of x's cell."""
        return x / self.levels

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp = P.xp
        cell = xp.clip(xp.floor(head[0] * self.levels), 0.0, self.levels - 1.0)
        return independent(
            P,
            head[0],
            lambda x: xp.where(x == cell, P.full((), 0.0), P.full((), -float("inf"))),
            lambda random, shape: xp.broadcast_to(cell, shape),
            lambda: cell,
            self.support,
        )
