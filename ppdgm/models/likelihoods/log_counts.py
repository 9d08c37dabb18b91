"""Log-probabilities of counts without differences of large numbers: right in float32 at any size.

log Γ(x + θ) − log Γ(θ), or x log μ − μ − log x!, are small differences of numbers that grow as x log x. Stirling's
formula takes the large parts out by hand: what is left are its errors, and deviances, which are sums of numbers of one
sign. Loader 2000, "Fast and accurate computation of binomial probabilities".
"""

from __future__ import annotations

from math import log, pi

from ppdgm.language import Array, Vocabulary

# log Γ(a + 1) − (a + ½) log a + a − ½ log 2π = Σ Bₙ₊₁ / (n (n + 1) aⁿ) over odd n; from a = 8 on to 1e-14 of six terms
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_LARGE = 8.0
_NEAR, _FAR = 0.2, -0.9  # where u − log(1 + u) is a series in u / (2 + u), to 1e-14 of six terms; where 1 + u is small


def log_poisson(P: Vocabulary, x: Array, mean: Array, log_mean: Array) -> Array:
    """log (μ^x exp(−μ) / x!) = −½ log 2πx − δ(x) − x (u − log(1 + u)), with u = μ/x − 1; −μ at x = 0.

    Args:
        P: vocabulary.
        x: counts.
        mean: μ; it may be 0 where it is too small for a float.
        log_mean: log μ.
    """
    at, is_zero = _positive(P, x)
    log_x = P.xp.log(at)
    lost = at * excess(P, (mean - at) / at, log_mean - log_x)
    return P.xp.where(is_zero, -mean, -0.5 * (log(2 * pi) + log_x) - stirling_error(P, at) - lost)


def log_negative_binomial(P: Vocabulary, x: Array, mean: Array, log_mean: Array, theta: Array) -> Array:
    """log (Γ(x + θ) / (x! Γ(θ)) (θ/(θ + μ))^θ (μ/(θ + μ))^x), which is `log_poisson`'s for θ → ∞.

    It is −½ log 2πx − ½ log(1 + x/θ) + δ(x + θ) − δ(θ) − δ(x) − x (u − log(1 + u)) − θ (v − log(1 + v)), with x (1 + u)
    and θ (1 + v) the shares of x + θ that are expected: u x = −v θ = (μ − x) θ / (θ + μ). At x = 0, −θ log(1 + μ/θ).

    Args:
        P: vocabulary.
        x: counts.
        mean, log_mean: μ and log μ, as for `log_poisson`.
        theta: θ.
    """
    xp, (at, is_zero) = P.xp, _positive(P, x)
    log_x, log_ratio = xp.log(at), xp.log((at + theta) / (mean + theta))
    kept = theta / (theta + mean)
    lost = at * excess(P, (mean - at) / at * kept, log_mean - log_x + log_ratio)
    lost = lost + theta * excess(P, (at - mean) / (theta + mean), log_ratio)
    errors = stirling_error(P, at + theta) - stirling_error(P, theta) - stirling_error(P, at)
    counted = -0.5 * (log(2 * pi) + log_x + xp.log1p(at / theta)) + errors - lost
    return xp.where(is_zero, -theta * xp.log1p(mean / theta), counted)


def stirling_error(P: Vocabulary, a: Array) -> Array:
    """δ(a) = log Γ(a + 1) − ((a + ½) log a − a + ½ log 2π), for a > 0: nearly 1 / 12a."""
    xp, large = P.xp, a >= _LARGE
    low, inverse = xp.where(large, 1.0 + 0.0 * a, a), 1.0 / xp.where(large, a, _LARGE + 0.0 * a)
    series = 0.0 * a
    for c in reversed(_STIRLING):
        series = c + series * (inverse * inverse)
    direct = P.lgamma(low + 1.0) - (low + 0.5) * xp.log(low) + low - 0.5 * log(2 * pi)
    return xp.where(large, series * inverse, direct)


def excess(P: Vocabulary, u: Array, log_1p: Array) -> Array:
    """u − log(1 + u) ≥ 0, for u ≥ −1.

    Args:
        P: vocabulary.
        u: relative differences.
        log_1p: log(1 + u), from elsewhere: taken where u is so near to −1 that it has lost its digits.
    """
    xp = P.xp
    near, far = xp.abs(u) < _NEAR, u < _FAR
    small, large = xp.where(near, u, 0.0 * u), xp.where(near | far, 1.0 + 0.0 * u, u)
    w = small / (2.0 + small)
    series = 0.0 * u
    for n in reversed(range(6)):
        series = 1 / (2 * n + 3) + series * (w * w)
    beyond = xp.where(far, u - log_1p, large - xp.log1p(large))
    return xp.where(near, w * small - 2.0 * w * w * w * series, beyond)


def _positive(P: Vocabulary, x: Array) -> tuple[Array, Array]:
    """x, with 1 in the place of 0, and where it is 0."""
    return P.xp.where(x == 0, 1.0 + 0.0 * x, x), x == 0
