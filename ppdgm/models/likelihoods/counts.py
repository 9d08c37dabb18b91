"""Likelihoods for counts: whole numbers from 0."""

from __future__ import annotations

from typing import Literal

from ppdgm.language.vocabulary import Array, Dist, Random, Support, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood, independent
from ppdgm.models.likelihoods.log_counts import log_negative_binomial, log_poisson
from ppdgm.models.likelihoods.scale import Scale, declare_scale, read_scale, row
from ppdgm.program import Context
from ppdgm.specs import PositiveFloat

_MOST = 20.0  # bound on a log mean: exp(20) is 5e8
_MOST_RATE = 1e9  # bound on the rate of a draw, because some generators use 32 bits


class Counts(Likelihood):
    """A likelihood of counts with mean μ = softplus(h) or exp(h); encoders see log(1 + x).

    Args:
        link: "softplus", or "exp" for counts of very different sizes, with h ≤ 20.
        exposure: whether rows have an exposure, the field `exposure` [N], such as a size factor, a time or an area:
            then the mean is exposure · μ.
    """

    link: Literal["softplus", "exp"] = "softplus"
    exposure: bool = False

    @property
    def reads_exposure(self) -> bool:
        return self.exposure

    def means(self, P: Vocabulary, h: Array, exposure: Array | None = None) -> tuple[Array, Array]:
        """μ and log μ, which is finite for every h, times the exposure.

        Both come from h: exp(log μ) is not precise for a large μ.
        """
        if exposure is not None:
            mean, log_mean = self.means(P, h)
            return exposure * mean, P.xp.log(exposure) + log_mean
        xp = P.xp
        if self.link == "exp":
            log_mean = xp.clip(h, None, _MOST)
            return xp.exp(log_mean), log_mean
        far = h < -15.0  # here log log(1 + exp h) = h − ½ exp(h) up to rounding
        low, high = xp.where(far, h, -15.0), xp.where(far, 0.0, h)
        return P.softplus(h), xp.where(far, low - 0.5 * xp.exp(low), xp.log(P.softplus(high)))

    def encoded(self, P: Vocabulary, x: Array) -> Array:
        return P.xp.log1p(P.xp.clip(x, 0.0, None))  # pseudo-inputs may be negative

    @property
    def support(self) -> Support:
        return "nonnegative_integer"

    @property
    def expected_data(self) -> str:
        return f"counts: {super().expected_data}, not scaled (scale='none')"


class Poisson(Counts):
    """p(x|z) = Π μ^x exp(−μ) / x!, for counts x; μ = softplus(h) or exp(h), and h is the decoder's output."""

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        mean, log_mean = self.means(P, *head)
        return independent(
            P,
            mean,
            lambda x: log_poisson(P, x, mean, log_mean),
            lambda random, shape: random.poisson(P.xp.clip(mean, None, _MOST_RATE), shape),
            lambda: mean,
            self.support,
        )


class NegativeBinomial(Counts):
    """p(x|z) = Π Γ(x+θ) / (x! Γ(θ)) (θ/(θ+μ))^θ (μ/(θ+μ))^x, for counts x with variance μ + μ²/θ.

    μ comes from the decoder, and θ as `inverse_dispersion` says. Lopez et al. 2018, doi:10.1038/s41592-018-0229-2.

    Args:
        inverse_dispersion: θ. A number (fixed), "learned" (one for all), "per_dimension" (one for each dimension of
            x), or "network" (from the decoder, for each row and dimension). The larger θ is, the nearer to Poisson.
        min_inverse_dispersion: a floor under a θ that is learned: θ = floor + softplus(s), 1 at the start.
    """

    inverse_dispersion: Scale = "per_dimension"
    min_inverse_dispersion: PositiveFloat = 1e-3

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        self._declare(context, shape)
        return (2, *shape) if self.inverse_dispersion == "network" else shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        network = self.inverse_dispersion == "network"
        h, raw = (row(head[0], P.shape, i) for i in (0, 1)) if network else (head[0], None)
        (mean, log_mean), theta = self.means(P, h, *head[1:]), self._theta(P, raw)
        return independent(
            P,
            mean,
            lambda x: log_negative_binomial(P, x, mean, log_mean, theta),
            lambda random, shape: draw_negative_binomial(P, random, shape, mean, theta),
            lambda: mean,
            self.support,
        )

    def _declare(self, context: Context, shape: tuple[int, ...]) -> None:
        declare_scale(context, "raw_inverse_dispersion", shape, self.inverse_dispersion, self.min_inverse_dispersion)

    def _theta(self, P: Vocabulary, raw: Array | None) -> Array:
        return read_scale(P, "raw_inverse_dispersion", self.inverse_dispersion, self.min_inverse_dispersion, raw)


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """p(x|z) = Π π [x = 0] + (1 − π) NegativeBinomial(x; μ, θ), for counts x; μ and logit π come from the decoder.

    Lopez et al. 2018, doi:10.1038/s41592-018-0229-2. In the paper μ is a share of a cell's total count; here it is
    free, or with `exposure` a rate for each unit of it.
    """

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        self._declare(context, shape)
        return (3 if self.inverse_dispersion == "network" else 2, *shape)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp = P.xp
        h, logit = (row(head[0], P.shape, i) for i in (0, 1))
        raw = row(head[0], P.shape, 2) if self.inverse_dispersion == "network" else None
        (mean, log_mean), theta = self.means(P, h, *head[1:]), self._theta(P, raw)
        log_more, log_kept = -P.softplus(-logit), -P.softplus(logit)  # log π, log(1 − π)

        def log_prob(x: Array) -> Array:
            counted = log_kept + log_negative_binomial(P, x, mean, log_mean, theta)
            return xp.where(x == 0, xp.logaddexp(log_more, counted), counted)

        def sample(random: Random, shape: tuple[int, ...]) -> Array:
            counted = draw_negative_binomial(P, random, shape, mean, theta)
            return xp.where(random.uniform(shape) < P.activation("sigmoid", logit), 0.0, counted)

        return independent(P, h, log_prob, sample, lambda: mean * xp.exp(log_kept), self.support)


def draw_negative_binomial(P: Vocabulary, random: Random, shape: tuple[int, ...], mean: Array, theta: Array) -> Array:
    """A draw of a Poisson whose rate is drawn from a Gamma with shape θ and mean μ."""
    rate = random.gamma(theta, shape) / theta * mean
    return random.poisson(P.xp.clip(rate, None, _MOST_RATE), shape)
