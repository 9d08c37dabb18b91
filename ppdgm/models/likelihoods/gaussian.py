"""The Gaussian likelihood, for real data."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods.interval_mass import log_normal_mass
from ppdgm.models.likelihoods.scale import LocationScaleLikelihood


class Gaussian(LocationScaleLikelihood):
    """p(x|z) = N(μ, diag σ²), with μ the decoder's output."""

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return P.dist.Normal(*self.location_and_scale(P, head[0])).to_event(len(P.shape))

    def log_mass(self, P: Vocabulary, low: Array, high: Array, head: Array) -> Array:
        loc, scale = self.location_and_scale(P, head)
        return log_normal_mass(P, (low - loc) / scale, (high - loc) / scale)

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        loc, scale = self.location_and_scale(P, head)
        return loc + scale * random.normal(shape)
