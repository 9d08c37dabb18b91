"""Discretised logistic likelihoods, for ordered whole numbers, such as pixels with 256 grey levels."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods.base import Levels, independent
from ppdgm.models.likelihoods.scale import LocationScaleLikelihood, Scale, row
from ppdgm.program import Context
from ppdgm.specs import PositiveFloat, PositiveInt


class DiscretisedLogistic(Levels, LocationScaleLikelihood):
    """p(x|z) = Π F(c + δ) − F(c − δ), with F the CDF of Logistic(μ, σ) and c = 2x / (levels − 1) − 1 in [−1, 1].

    δ = 1 / (levels − 1) is half a level; the lowest and the highest level also get the probability beyond them. μ and σ
    are in units of c. Kingma et al. 2016, arXiv:1606.04934.

    Args:
        scale: σ. A number (fixed), "learned" (one for all), "per_dimension" (one for each dimension of x), or
            "network" (from the decoder, for each row and dimension: the most certain pixels differ between images).
    """

    scale: Scale = "network"

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        loc, scale = self.location_and_scale(P, head[0])
        return independent(
            P,
            loc,
            lambda x: log_mass(P, x, loc, scale, self.levels),
            lambda random, shape: draw_level(P, random, shape, loc, scale, self.levels),
            lambda: mean_level(P, loc, scale, self.levels),
            self.support,
        )

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        return draw_level(P, random, shape, *self.location_and_scale(P, head), self.levels)


class MixtureOfDiscretisedLogistics(Levels):
    """p(x|z) = Π Σ_c π_c DiscretisedLogistic(x; μ_c, σ_c), with π, μ and σ from the decoder for each dimension.

    Salimans et al. 2017, arXiv:1701.05517, without the autoregression over the colours of a pixel: dimensions are
    independent given z.

    Args:
        components: the number of logistics in the mixture.
        min_scale: a floor under each σ = min_scale + softplus(s), in units in which the levels span [−1, 1].
    """

    components: PositiveInt = 5
    min_scale: PositiveFloat = 1e-3

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (3, self.components, *shape)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp = P.xp
        log_weights, loc, scale = self._components(P, head[0])

        def log_prob(x: Array) -> Array:
            return P.logsumexp(log_weights + log_mass(P, x[..., None], loc, scale, self.levels), -1)

        def mean() -> Array:
            return xp.sum(xp.exp(log_weights) * mean_level(P, loc, scale, self.levels), axis=-1)

        sample = lambda random, shape: self.draw(P, random, shape, head[0])
        return independent(P, loc[..., 0], log_prob, sample, mean, self.support)

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        log_weights, loc, scale = self._components(P, head)
        chosen = P.xp.argmax(log_weights + random.gumbel((*shape, self.components)), axis=-1)
        of = lambda each: P.xp.sum(each * P.one_hot(chosen, self.components), axis=-1)
        return draw_level(P, random, shape, of(loc), of(scale), self.levels)

    def _components(self, P: Vocabulary, head: Array) -> tuple[Array, Array, Array]:
        """Log-weights, locations and scales, each [..., *event, components]."""
        xp, wide = P.xp, (self.components, *P.shape)
        logits, loc, raw = (xp.moveaxis(row(head, wide, i), -1 - len(P.shape), -1) for i in range(3))
        return logits - P.logsumexp(logits, -1)[..., None], loc, self.min_scale + P.softplus(raw)


def log_mass(P: Vocabulary, x: Array, loc: Array, scale: Array, levels: int) -> Array:
    """log of σ(b) − σ(a), from the lower edge a of x's level to the upper edge b; a is −∞ at 0, b is ∞ at the top.

    It is computed as σ(b) σ(−a) (1 − exp(a − b)), which has no difference of nearly equal numbers.
    """
    xp, half = P.xp, 1.0 / (levels - 1)
    centre = (2.0 * x - (levels - 1)) / (levels - 1)
    below, above = P.softplus((centre - half - loc) / scale), P.softplus((loc - half - centre) / scale)
    width = xp.log(-xp.expm1(-2.0 * half / scale))
    first, last = x == 0, x == levels - 1
    return -xp.where(first, 0.0, below) - xp.where(last, 0.0, above) + xp.where(first | last, 0.0, width)


def draw_level(P: Vocabulary, random: Random, shape: tuple[int, ...], loc: Array, scale: Array, levels: int) -> Array:
    """The level that is nearest to a draw of the logistic."""
    xp, u = P.xp, random.uniform(shape)
    return nearest_level(P, loc + scale * (xp.log(u) - xp.log1p(-u)), levels)


def nearest_level(P: Vocabulary, c: Array, levels: int) -> Array:
    """The level that is nearest to a number, in units in which the levels span [−1, 1]."""
    return P.xp.clip(P.xp.round((c + 1.0) * ((levels - 1) / 2)), 0.0, levels - 1.0)


def mean_level(P: Vocabulary, loc: Array, scale: Array, levels: int) -> Array:
    """Σ_{k ≥ 1} P(x ≥ k), one level at a time: all levels at once would need `levels` times the memory of the image."""

    def add(state: tuple[Array, Array]) -> tuple[Array, Array]:
        k, total = state
        edge = (2.0 * k - levels) / (levels - 1)
        return k + 1.0, total + P.activation("sigmoid", (loc - edge) / scale)

    _, mean = P.repeat(levels - 1, add, (P.full((), 1.0), 0.0 * (loc + scale)))
    return mean
