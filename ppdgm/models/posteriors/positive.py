"""Posteriors over positive latents."""

from __future__ import annotations

from abc import abstractmethod
from math import log, pi
from typing import ClassVar

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.posteriors.base import Family, Posterior, halves
from ppdgm.models.posteriors.location_scale import EULER, MOST, LocationScalePosterior, per_dimension
from ppdgm.program import Context
from ppdgm.specs import PositiveFloat

_FAR = 80.0  # |log z| up to which z is a number in float32


class LogLocationScalePosterior(LocationScalePosterior):
    """log z = μ(x) + b(x) ε, with noise ε of a fixed distribution."""

    family: ClassVar[Family] = "positive"
    max_scale: PositiveFloat = 5.0

    @abstractmethod
    def log_moment(self, P: Vocabulary, scale: Array) -> Array:
        """log E exp(b ε)."""

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, shape = P.xp, P.shape
        loc, raw = halves(head[0], shape)
        scale, axes = self.scale(P, raw), tuple(range(-len(shape), 0))

        def log_q(noise: Array, log_z: Array) -> Array:
            return xp.sum(self.log_density(P, noise) - xp.log(scale) - log_z, axis=axes)

        def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
            noise = self.noise(P, random, (*batch_shape, *shape))
            log_z = xp.clip(loc + scale * noise, -_FAR, _FAR)
            return xp.exp(log_z), log_q(noise, log_z)

        def log_prob(z: Array) -> Array:
            log_z = xp.log(z)
            return log_q((log_z - loc) / scale, log_z)

        def mean() -> Array:
            return xp.exp(loc + self.log_moment(P, scale))

        def kl(p: Dist) -> Array | None:
            base, log_mean = getattr(p, "base_dist", None), loc + self.centre * scale  # E log z
            if not isinstance(p, P.dist.Independent):
                return None
            if isinstance(base, P.dist.LogNormal):
                return per_dimension(xp, self.kl_to_normal(P, log_mean, scale, base), shape)
            if not isinstance(base, P.dist.Gamma):
                return None
            a, rate = base.concentration, base.rate
            log_p = a * xp.log(rate) - P.lgamma(a) + (a - 1.0) * log_mean - rate * mean()  # E log p(z)
            return per_dimension(xp, -self.moments()[1] - xp.log(scale) - log_mean - log_p, shape)

        batch_shape = tuple(loc.shape[: len(loc.shape) - len(shape)])
        return P.distribution(sample, log_prob, shape, batch_shape, support="positive", mean=mean, kl=kl)


class DiagonalLogNormal(LogLocationScalePosterior):
    """q(z|x): log z_d ~ N(μ_d(x), b_d(x)²), with b = min_scale + softplus(s(x)), over positive latents.

    Kingma & Welling 2014, arXiv:1312.6114: a draw is a composition, exp(μ + b ε).

    Args:
        min_scale: a floor under b, so that log q stays finite.
        max_scale: a ceiling over b, so that means stay finite; near it, b bends towards it.
    """

    def noise(self, P: Vocabulary, random: Random, shape: tuple[int, ...]) -> Array:
        return random.normal(shape)

    def log_density(self, P: Vocabulary, noise: Array) -> Array:
        return -0.5 * noise * noise - 0.5 * log(2 * pi)

    def moments(self) -> tuple[float, float]:
        return 1.0, 0.5 + 0.5 * log(2 * pi)

    def log_moment(self, P: Vocabulary, scale: Array) -> Array:
        return 0.5 * scale * scale


class DiagonalWeibull(LogLocationScalePosterior):
    """q(z|x) = Π_d Weibull(k_d, λ_d), with log λ = μ(x) and 1/k = b(x) = min_scale + softplus(s(x)), for z > 0.

    Zhang et al. 2018, arXiv:1803.01328. A draw is the inverse distribution function of uniform noise,
    λ (−log u)^(1/k). The KL to a `GammaPrior` has a closed form.

    Args:
        min_scale: a floor under 1/k, so that log q stays finite.
        max_scale: a ceiling over 1/k, so that means stay finite; near it, 1/k bends towards it.
    """

    centre: ClassVar[float] = -EULER

    def noise(self, P: Vocabulary, random: Random, shape: tuple[int, ...]) -> Array:
        return -random.gumbel(shape)  # log(−log u)

    def log_density(self, P: Vocabulary, noise: Array) -> Array:
        return noise - P.xp.exp(P.xp.clip(noise, max=MOST))

    def moments(self) -> tuple[float, float]:
        return pi**2 / 6.0, 1.0 + EULER

    def log_moment(self, P: Vocabulary, scale: Array) -> Array:
        return P.lgamma(1.0 + scale)


class DiagonalGamma(Posterior):
    """q(z|x) = Π_d Gamma(α_d(x), β_d(x)), α = min_concentration + softplus(a), β = min_rate + softplus(r), for z > 0.

    Figurnov et al. 2018, arXiv:1805.08498: the gradient of a draw is that of the implicit distribution function. The KL
    to a `GammaPrior` has a closed form.

    Args:
        min_concentration: a floor under α. Less than 1 permits a pole at 0, where draws in float32 may fall.
        min_rate: a floor under β, so that draws stay finite.
    """

    by_rejection: ClassVar[bool] = True
    family: ClassVar[Family] = "positive"
    min_concentration: PositiveFloat = 1.0
    min_rate: PositiveFloat = 1e-3

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *shape)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        concentration, rate = (P.softplus(raw) for raw in halves(head[0], P.shape))
        found = P.dist.Gamma(self.min_concentration + concentration, self.min_rate + rate)
        return found.to_event(len(P.shape))
