"""Diagonal posteriors outside the Gaussian: z = μ + bε, with noise ε of a fixed distribution."""

from __future__ import annotations

from abc import abstractmethod
from math import lgamma, log, pi
from typing import Annotated, ClassVar

from pydantic import Field

from ppdgm.language.vocabulary import Array, Dist, Namespace, Random, Vocabulary
from ppdgm.models.posteriors.base import halves
from ppdgm.models.posteriors.normal import ScaledPosterior
from ppdgm.program import Context

EULER = 0.5772156649015329  #: Euler's constant
MOST = 60.0  #: above, exp(−ε) of a Gumbel's density soon overflows in float32


class LocationScalePosterior(ScaledPosterior):
    """q(z|x) = Π_d f((z_d − μ_d(x))/b_d(x))/b_d(x), b = min_scale + softplus(s(x)), with f the density of a noise."""

    centre: ClassVar[float] = 0.0  #: E ε

    @abstractmethod
    def noise(self, P: Vocabulary, random: Random, shape: tuple[int, ...]) -> Array:
        """Draws of ε; they do not depend on the posterior's parameters."""

    @abstractmethod
    def log_density(self, P: Vocabulary, noise: Array) -> Array:
        """log f(ε), elementwise."""

    @abstractmethod
    def moments(self) -> tuple[float, float]:
        """The variance of ε, and its entropy in nats."""

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *shape)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, shape = P.xp, P.shape
        loc, raw = halves(head[0], shape)
        scale, axes = self.scale(P, raw), tuple(range(-len(shape), 0))

        def log_q(noise: Array) -> Array:
            return xp.sum(self.log_density(P, noise) - xp.log(scale), axis=axes)

        def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
            noise = self.noise(P, random, (*batch_shape, *shape))
            return loc + scale * noise, log_q(noise)

        def kl(p: Dist) -> Array | None:
            if not (isinstance(p, P.dist.Independent) and isinstance(p.base_dist, P.dist.Normal)):
                return None
            return per_dimension(xp, self.kl_to_normal(P, mean(), scale, p.base_dist), shape)

        def mean() -> Array:
            return loc + self.centre * scale if self.centre else loc

        batch_shape = tuple(loc.shape[: len(loc.shape) - len(shape)])
        return P.distribution(sample, lambda z: log_q((z - loc) / scale), shape, batch_shape, mean=mean, kl=kl)

    def kl_to_normal(self, P: Vocabulary, mean: Array, scale: Array, p: Dist) -> Array:
        """−H(ε) − log b + ½ log(2π s²) + (b² Var(ε) + (E z − m)²)/(2 s²) of each dimension, for p = N(m, s²)."""
        (variance, entropy), m, s = self.moments(), p.loc, p.scale
        ratio = (scale * scale * variance + (mean - m) ** 2) / (2.0 * s * s)
        return ratio + P.xp.log(s) - P.xp.log(scale) + (0.5 * log(2 * pi) - entropy)


def per_dimension(xp: Namespace, form: Array, shape: tuple[int, ...]) -> Array:
    """[..., *shape] to [..., D]."""
    return xp.reshape(form, (*form.shape[: len(form.shape) - len(shape)], -1))


class DiagonalLaplace(LocationScalePosterior):
    """q(z|x) = Π_d exp(−|z_d − μ_d|/b_d)/(2 b_d), with μ(x), b(x) = min_scale + softplus(s(x)).

    Kingma & Welling 2014, arXiv:1312.6114.

    Args:
        min_scale: a floor under b, so that log q stays finite.
        max_scale: a ceiling over b; near it, b bends towards it.
    """

    def noise(self, P: Vocabulary, random: Random, shape: tuple[int, ...]) -> Array:
        return P.xp.log(random.uniform(shape)) - P.xp.log(random.uniform(shape))  # the difference of two exponentials

    def log_density(self, P: Vocabulary, noise: Array) -> Array:
        return -P.xp.abs(noise) - log(2.0)

    def moments(self) -> tuple[float, float]:
        return 2.0, 1.0 + log(2.0)


class DiagonalLogistic(LocationScalePosterior):
    """q(z|x) = Π_d f((z_d − μ_d)/b_d)/b_d, f(ε) = e^−ε/(1 + e^−ε)², with μ(x), b(x) = min_scale + softplus(s(x)).

    Kingma & Welling 2014, arXiv:1312.6114.

    Args:
        min_scale: a floor under b, so that log q stays finite.
        max_scale: a ceiling over b; near it, b bends towards it.
    """

    def noise(self, P: Vocabulary, random: Random, shape: tuple[int, ...]) -> Array:
        return random.gumbel(shape) - random.gumbel(shape)  # exact in both tails; log u − log(1 − u) only in one

    def log_density(self, P: Vocabulary, noise: Array) -> Array:
        return -noise - 2.0 * P.softplus(-noise)

    def moments(self) -> tuple[float, float]:
        return pi**2 / 3.0, 2.0


class DiagonalGumbel(LocationScalePosterior):
    """q(z|x) = Π_d f((z_d − μ_d)/b_d)/b_d, f(ε) = exp(−ε − e^−ε), with μ(x), b(x) = min_scale + softplus(s(x)).

    Kingma & Welling 2014, arXiv:1312.6114: a draw is the inverse distribution function of uniform noise. μ is the mode.

    Args:
        min_scale: a floor under b, so that log q stays finite.
        max_scale: a ceiling over b; near it, b bends towards it.
    """

    centre: ClassVar[float] = EULER

    def noise(self, P: Vocabulary, random: Random, shape: tuple[int, ...]) -> Array:
        return random.gumbel(shape)

    def log_density(self, P: Vocabulary, noise: Array) -> Array:
        return -noise - P.xp.exp(P.xp.clip(-noise, max=MOST))

    def moments(self) -> tuple[float, float]:
        return pi**2 / 6.0, 1.0 + EULER


class DiagonalStudentT(LocationScalePosterior):
    """q(z|x) = Π_d t_ν((z_d − μ_d)/b_d)/b_d, f(ε) ∝ (1 + ε²/ν)^−(ν+1)/2, with μ(x), b(x) = min_scale + softplus(s(x)).

    Kingma & Welling 2014, arXiv:1312.6114.

    Args:
        df: degrees of freedom ν, more than 2: with fewer the variance, and the KL to a normal prior, are infinite.
        min_scale: a floor under b, so that log q stays finite.
        max_scale: a ceiling over b; near it, b bends towards it.
    """

    df: Annotated[float, Field(gt=2)] = 5.0

    def noise(self, P: Vocabulary, random: Random, shape: tuple[int, ...]) -> Array:
        chi = 2.0 * random.gamma(P.full((), 0.5 * self.df), shape)  # χ² with ν degrees of freedom
        return random.normal(shape) * P.xp.sqrt(self.df / chi)

    def log_density(self, P: Vocabulary, noise: Array) -> Array:
        half = 0.5 * (self.df + 1.0)
        return self._log_constant - half * P.xp.log1p(noise * noise / self.df)

    def moments(self) -> tuple[float, float]:
        half = 0.5 * (self.df + 1.0)
        entropy = half * (_digamma(half) - _digamma(0.5 * self.df)) - self._log_constant
        return self.df / (self.df - 2.0), entropy

    @property
    def _log_constant(self) -> float:
        return lgamma(0.5 * (self.df + 1.0)) - lgamma(0.5 * self.df) - 0.5 * log(self.df * pi)


def _digamma(x: float) -> float:
    """The derivative of log Γ at x > 0, to 1e-12: SciPy's can't be traced by torch.compile."""
    shift = sum(1.0 / (x + i) for i in range(10))
    y = 1.0 / (x + 10.0) ** 2
    return log(x + 10.0) - 0.5 / (x + 10.0) - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y / 240))) - shift
