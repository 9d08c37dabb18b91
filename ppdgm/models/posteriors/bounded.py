"""Posteriors over latents in the unit interval, and on the simplex."""

from __future__ import annotations

from typing import ClassVar

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.posteriors.base import Family, Posterior, halves
from ppdgm.program import Context
from ppdgm.specs import PositiveFloat

_LAST = 1.0 - 2.0**-24  # the largest number below 1 in float32: at 1 itself other densities are 0


class UnitPosterior(Posterior):
    """A posterior of two concentrations a, b = min_concentration + softplus(r) for each latent in (0, 1)."""

    family: ClassVar[Family] = "unit"
    min_concentration: PositiveFloat = 1.0

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *shape)

    def concentrations(self, P: Vocabulary, head: Array) -> tuple[Array, Array]:
        """a and b, [..., *shape]."""
        first, second = halves(head, P.shape)
        return self.min_concentration + P.softplus(first), self.min_concentration + P.softplus(second)


class DiagonalBeta(UnitPosterior):
    """q(z|x) = Π_d Beta(a_d(x), b_d(x)), with a, b = min_concentration + softplus(r(x)), over latents in (0, 1).

    Figurnov et al. 2018, arXiv:1805.08498: a draw is a composition of gamma draws. The KL to a `BetaPrior` has a closed
    form.

    Args:
        min_concentration: a floor under a and b. Less than 1 permits poles at 0 and 1, where draws in float32 may fall.
    """

    by_rejection: ClassVar[bool] = True

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return P.dist.Beta(*self.concentrations(P, head[0])).to_event(len(P.shape))


class DiagonalKumaraswamy(UnitPosterior):
    """q(z|x) = Π_d a b z^(a−1) (1 − z^a)^(b−1), a, b = min_concentration + softplus(r(x)), over latents in (0, 1).

    Nalisnick & Smyth 2017, arXiv:1605.06197. Like a Beta, but a draw is the inverse distribution function of uniform
    noise, (1 − u^(1/b))^(1/a).

    Args:
        min_concentration: a floor under a and b. Less than 1 permits poles at 0 and 1, where draws in float32 may fall.
    """

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, shape, axes = P.xp, P.shape, tuple(range(-len(P.shape), 0))
        a, b = self.concentrations(P, head[0])

        def log_q(log_z: Array, log_rest: Array) -> Array:  # of log z and log(1 − z^a)
            return xp.sum(xp.log(a) + xp.log(b) + (a - 1.0) * log_z + (b - 1.0) * log_rest, axis=axes)

        def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
            log_rest = xp.log(random.uniform((*batch_shape, *shape))) / b
            log_z = xp.log(-xp.expm1(log_rest)) / a
            return xp.clip(xp.exp(log_z), max=_LAST), log_q(log_z, log_rest)

        def log_prob(z: Array) -> Array:
            log_z = xp.log(z)
            return log_q(log_z, xp.log(-xp.expm1(a * log_z)))

        def mean() -> Array:
            shift = 1.0 + 1.0 / a
            return b * xp.exp(P.lgamma(shift) + P.lgamma(b) - P.lgamma(shift + b))

        batch_shape = tuple(a.shape[: len(a.shape) - len(shape)])
        return P.distribution(sample, log_prob, shape, batch_shape, support="unit_interval", mean=mean)


class DirichletPosterior(Posterior):
    """q(z|x) = Dirichlet(α(x)), α = min_concentration + softplus(r(x)): positive numbers that add up to 1.

    Figurnov et al. 2018, arXiv:1805.08498. The numbers are the last axis of the latent; other axes are independent. The
    KL to a `DirichletPrior` has a closed form.

    Args:
        min_concentration: a floor under α. Less than 1 permits poles, where draws in float32 may fall.
    """

    by_rejection: ClassVar[bool] = True
    family: ClassVar[Family] = "simplex"
    min_concentration: PositiveFloat = 1.0

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_simplex(self, shape)
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        found = P.dist.Dirichlet(self.min_concentration + P.softplus(head[0]))
        return found.to_event(len(P.shape) - 1) if len(P.shape) > 1 else found


def check_simplex(part: object, shape: tuple[int, ...]) -> None:
    """Refuse one number that adds up to 1."""
    if shape[-1] < 2:
        raise SpecError(
            f"{type(part).__name__}: got latents of shape {shape}, expected at least 2 numbers that add up to 1."
        )
