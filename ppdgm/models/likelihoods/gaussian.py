"""The Gaussian likelihood, for real data."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods.scale import LocationScaleLikelihood


class Gaussian(LocationScaleLikelihood):
    """p(x|z) = N(μ, diag σ²), with μ the decoder's output."""

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return P.dist.Normal(*self.location_and_scale(P, head[0])).to_event(len(P.shape))

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        loc, scale = self.location_and_scale(P, head)
        return loc + scale * random.normal(shape)
