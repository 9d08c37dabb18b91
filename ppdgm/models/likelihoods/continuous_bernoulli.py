"""The continuous Bernoulli likelihood, for data between 0 and 1."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Random, Support, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood, independent
from ppdgm.program import Context

# log(sinh(h/2) / (h/2)) = Σ B₂ₙ h²ⁿ / (2n (2n)!), with Bernoulli numbers; up to |h| = ½ five terms give 1e-14
_SERIES = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600)
_NEAR = 0.5


class ContinuousBernoulli(Likelihood):
    """p(x|z) = Π C(λ) λ^x (1 − λ)^(1−x), for x in [0, 1]; logit λ = h is the decoder's output.

    Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845. C(λ) = h / tanh(h/2); the mean is 1/(1 − exp(−h)) − 1/h, not λ.
    """

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        h = head[0]
        return independent(
            P,
            h,
            lambda x: log_density(P, x, h),
            lambda random, shape: self.draw(P, random, shape, h),
            lambda: 0.5 + log_sinhc_slope(P, h),
            self.support,
        )

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        """F⁻¹(u) = log(1 + u (exp(h) − 1)) / h, computed for −|h|, which can't overflow, and mirrored if h > 0."""
        xp, steep = P.xp, P.xp.clip(P.xp.abs(head), 1e-6, None)
        low = xp.clip(-xp.log1p(random.uniform(shape) * xp.expm1(-steep)) / steep, 0.0, 1.0)
        return xp.where(head > 0, 1.0 - low, low)

    @property
    def support(self) -> Support:
        return "unit_interval"

    @property
    def expected_data(self) -> str:
        return f"{super().expected_data} (scale the data first: scale='unit')"


def log_density(P: Vocabulary, x: Array, h: Array) -> Array:
    """h x − log((exp(h) − 1) / h), as −|h| y + log |h| − log(1 − exp(−|h|)), with y the distance to the nearer end.

    Near h = 0 it is h (x − ½) − log(sinh(h/2) / (h/2)), by a series, because there the gradient of the formula would be
    noise.
    """
    xp = P.xp
    near, far = _split(P, h)
    series = sum(c * near ** (2 * n) for n, c in enumerate(_SERIES, 1))
    tilted = xp.log(far) - xp.log(-xp.expm1(-far)) - far * xp.where(h > 0, 1.0 - x, x)
    return xp.where(_is_near(P, h), near * (x - 0.5) - series, tilted)


def log_sinhc_slope(P: Vocabulary, h: Array) -> Array:
    """½ coth(h/2) − 1/h, the derivative of log(sinh(h/2) / (h/2)), odd in h. The mean is this plus ½."""
    xp = P.xp
    near, far = _split(P, h)
    series = sum(2 * n * c * near ** (2 * n - 1) for n, c in enumerate(_SERIES, 1))
    return xp.where(_is_near(P, h), series, xp.sign(h) * (-0.5 - 1.0 / xp.expm1(-far) - 1.0 / far))


def _is_near(P: Vocabulary, h: Array) -> Array:
    return P.xp.abs(h) < _NEAR


def _split(P: Vocabulary, h: Array) -> tuple[Array, Array]:
    """h where the series is used, and |h| where the formula is used; harmless numbers elsewhere."""
    small = _is_near(P, h)
    return P.xp.where(small, h, 0.0 * h), P.xp.where(small, 1.0 + 0.0 * h, P.xp.abs(h))
