"""NumPyro's distributions, corrected where they must not differ from Pyro's, for programs and for plain pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as native
from jax.scipy.special import gammaln
from numpyro.distributions import constraints

from ppdgm.language import density
from ppdgm.language.density import power_of_zero
from ppdgm.language.native import Constraint
from ppdgm.language.vocabulary import Array, Dist, Namespace


class BernoulliLogits(native.BernoulliLogits):
    """NumPyro's, except for two things: values are floating, as Pyro's, and the gradient is right at logits of 0.

    NumPyro scores with clip(h, 0) + log1p(exp(−|h|)) − xh. At h = 0, JAX takes its derivative as −x, not σ(0) − x:
    the first gradient of a decoder whose last layer starts from zeros is wrong by half a unit per pixel.
    """

    def log_prob(self, value: Array) -> Array:
        """x h − log(1 + exp h)."""
        if self._validate_args:
            self._validate_sample(value)
        return _log_prob(self.logits, jnp.asarray(value, jnp.result_type(self.logits)))  # whole numbers have no tangent

    def enumerate_support(self, expand: bool = True) -> Array:
        return super().enumerate_support(expand).astype(jnp.result_type(self.logits))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return super().sample(key, sample_shape).astype(jnp.result_type(self.logits))


def _score(logits: Array, value: Array) -> Array:
    # The form without overflow that is fastest on XLA's CPU; its derivative is written out below.
    return value * logits - jnp.clip(logits, 0) - jnp.log1p(jnp.exp(-jnp.abs(logits)))


def _score_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    logits, value = primals
    small = jnp.exp(-jnp.abs(logits))  # shared with the value; jax.nn.sigmoid would compute it again
    mean = jnp.where(logits >= 0, 1.0, small) / (1.0 + small)
    return _score(logits, value), (value - mean) * tangents[0] + logits * tangents[1]


_log_prob = jax.custom_jvp(_score)
_log_prob.defjvp(_score_jvp)


# Densities at 0: NumPyro leaves out the end of the support (Pyro and SciPy have it), or computes 0 · log 0 there.


def _checked(d: Dist, value: Array, log_prob: Array) -> Array:
    """−∞ outside the support, if the distribution checks its values."""
    return jnp.where(d._validate_sample(value), log_prob, -jnp.inf) if d._validate_args else log_prob


class Exponential(native.Exponential):
    """NumPyro's, also at 0."""

    support = constraints.nonnegative


class HalfNormal(native.HalfNormal):
    """NumPyro's, also at 0."""

    support = constraints.nonnegative


class HalfCauchy(native.HalfCauchy):
    """NumPyro's, also at 0."""

    support = constraints.nonnegative


class Gamma(native.Gamma):
    """NumPyro's, also at 0."""

    mends = native.Gamma
    support = constraints.nonnegative

    def log_prob(self, value: Array) -> Array:
        """a log b − log Γ(a) + (a − 1) log x − b x."""
        at_zero = self.concentration * jnp.log(self.rate) - gammaln(self.concentration)
        inner = super().log_prob(jnp.where(value == 0, 1.0, value))
        return jnp.where(value == 0, at_zero + power_of_zero(jnp, self.concentration - 1.0), inner)


class Chi2(Gamma, native.Chi2):
    """NumPyro's, also at 0."""

    mends = native.Chi2


class Weibull(density.WeibullEnds, native.Weibull):
    """NumPyro's, also at 0."""

    xp: ClassVar[Namespace] = jnp
    mends = native.Weibull
    support = constraints.nonnegative


class Dirichlet(native.Dirichlet):
    """NumPyro's, also if some shares are 0."""

    mends = native.Dirichlet

    def log_prob(self, value: Array) -> Array:
        """log Γ(Σ a) + Σ (a − 1) log x − log Γ(a)."""
        power = self.concentration - 1.0
        terms = jnp.where(value == 0, power_of_zero(jnp, power), jnp.log(jnp.where(value == 0, 1.0, value)) * power)
        normaliser = jnp.sum(gammaln(self.concentration), axis=-1) - gammaln(jnp.sum(self.concentration, axis=-1))
        return _checked(self, value, jnp.sum(terms, axis=-1) - normaliser)


class Kumaraswamy(density.KumaraswamyEnds, native.Kumaraswamy):
    """NumPyro's, which clips 1 − xᵃ at 1."""

    xp: ClassVar[Namespace] = jnp


class Pareto(native.Pareto):
    """NumPyro's, also at the scale."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.__dict__["base_dist"] = mended(self.__dict__["base_dist"])  # an Exponential at 0

    @constraints.dependent_property(is_discrete=False, event_dim=0)  # type: ignore[untyped-decorator]  # NumPyro's own
    def support(self) -> Constraint:
        return constraints.greater_than_eq(self.scale)


class GeometricProbs(native.GeometricProbs):
    """NumPyro's, also if success is certain."""

    def log_prob(self, value: Array) -> Array:
        """x log(1 − p) + log p."""
        inner = value * jnp.log1p(-jnp.where(value == 0, 0.5, self.probs))
        return _checked(self, value, jnp.where(value == 0, 0.0, inner) + jnp.log(self.probs))


class _Classes:
    """Also scores whole numbers that are written as floating ones, as Pyro's does: a field x always is."""

    def log_prob(self, value: Array) -> Array:
        """log p of a class number; −∞ if a floating number is not one."""
        score: Callable[[Array], Array] = super().log_prob  # type: ignore[misc]  # NumPyro's, which comes after this class
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            return score(value)
        whole = value == jnp.floor(value)
        return jnp.where(whole, score(jnp.where(whole, value, 0).astype(jnp.int32)), -jnp.inf)


class CategoricalProbs(_Classes, native.CategoricalProbs):
    """NumPyro's, also for floating data."""

    mends = native.CategoricalProbs


class CategoricalLogits(_Classes, native.CategoricalLogits):
    """NumPyro's, also for floating data."""

    mends = native.CategoricalLogits


class OrderedLogistic(_Classes, density.OrderedLogits, native.OrderedLogistic):
    """NumPyro's, also for floating data, and far from the cut points."""

    xp: ClassVar[Namespace] = jnp
    mends = native.OrderedLogistic


class TwoSidedTruncatedDistribution(native.TwoSidedTruncatedDistribution):
    """NumPyro's, also above the mean: there it takes the difference of two probabilities close to 1, which is 0."""

    mends = native.TwoSidedTruncatedDistribution

    @property
    def _log_diff_tail_probs(self) -> Array:
        """log [F(high) − F(low)], from the side on which F is small; the base is symmetric."""
        base, log_cdf = self.base_dist, getattr(self.base_dist, "log_cdf", None)
        if log_cdf is None:
            return super()._log_diff_tail_probs
        up = self.low > base.loc
        outer, inner = (
            jnp.where(up, 2 * base.loc - self.high, self.low),
            jnp.where(up, 2 * base.loc - self.low, self.high),
        )
        top = log_cdf(inner)
        return top + jnp.log(-jnp.expm1(log_cdf(outer) - top))


_MENDED: dict[type, type] = {
    getattr(native, mended.__name__): mended
    for mended in (
        Exponential, HalfNormal, HalfCauchy, Gamma, Chi2, Weibull, Dirichlet, Kumaraswamy, Pareto, GeometricProbs,
        CategoricalProbs, CategoricalLogits, OrderedLogistic, TwoSidedTruncatedDistribution,
    )
}  # fmt: skip


def mended(d: Dist) -> Dist:
    """A distribution of the user's; NumPyro's classes, also inside it, are replaced by those of this file."""
    return density.mend(d, _MENDED, native.Distribution)


class Distributions:
    """`numpyro.distributions`, with some of its classes replaced by those of this file."""

    @staticmethod
    def Bernoulli(probs: Array | None = None, logits: Array | None = None, **options: Any) -> Dist:
        """Bernoulli by probabilities or by logits."""
        return native.Bernoulli(probs, **options) if logits is None else BernoulliLogits(logits, **options)

    @staticmethod
    def Categorical(probs: Array | None = None, logits: Array | None = None, **options: Any) -> Dist:
        """Categorical by probabilities or by logits."""
        return CategoricalProbs(probs, **options) if logits is None else CategoricalLogits(logits, **options)

    @staticmethod
    def Geometric(probs: Array | None = None, logits: Array | None = None, **options: Any) -> Dist:
        """Geometric by probabilities or by logits."""
        return GeometricProbs(probs, **options) if logits is None else native.GeometricLogits(logits, **options)

    @staticmethod
    def TruncatedNormal(*args: Array, **options: Any) -> Dist:
        """A normal between two bounds, or above or below one."""
        return mended(native.TruncatedNormal(*args, **options))

    @staticmethod
    def TruncatedDistribution(*args: Any, **options: Any) -> Dist:
        """A symmetric distribution between two bounds, or above or below one."""
        return mended(native.TruncatedDistribution(*args, **options))

    def __getattr__(self, name: str) -> Any:
        found = getattr(native, name)
        return _MENDED.get(found, found) if isinstance(found, type) else found
