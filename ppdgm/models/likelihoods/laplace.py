"""The Laplace likelihood, for real data with outliers."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods.interval_mass import log_laplace_mass
from ppdgm.models.likelihoods.scale import LocationScaleLikelihood


class Laplace(LocationScaleLikelihood):
    """p(x|z) = Π exp(−|x − μ| / σ) / 2σ. μ, the decoder's output, is the mean and the median."""

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return P.dist.Laplace(*self.location_and_scale(P, head[0])).to_event(len(P.shape))

    def log_mass(self, P: Vocabulary, low: Array, high: Array, head: Array) -> Array:
        loc, scale = self.location_and_scale(P, head)
        return log_laplace_mass(P, (low - loc) / scale, (high - loc) / scale)

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        loc, scale = self.location_and_scale(P, head)
        return loc + scale * (P.xp.log(random.uniform(shape)) - P.xp.log(random.uniform(shape)))
