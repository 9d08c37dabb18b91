"""Log-probabilities of counts without differences of large numbers: precise in float32 at any size.

log Γ(x + θ) − log Γ(θ), or x log μ − μ − log x!, are small differences of numbers that grow as x log x. With Stirling's
formula the large parts cancel by hand. Its errors remain, and deviances, which are sums of numbers of one sign.
Loader 2000, "Fast and accurate computation of binomial probabilities".
"""

from __future__ import annotations

from math import log, pi

from ppdgm.language.vocabulary import Array, Vocabulary

# log Γ(a + 1) − (a + ½) log a + a − ½ log 2π = Σ Bₙ₊₁ / (n (n + 1) aⁿ) over odd n; from a = 8 on six terms give 1e-14,
# and three give 3e-10
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_LARGE = 8.0
_ATANH = tuple(2 / (2 * n + 3) for n in range(6))  # (2 atanh w − 2 w) / w³, in w²
# |u| below the first: u − log(1 + u) is a series in w = u / (2 + u), six terms give 1e-14, three 2e-8; u below the
# second: 1 + u is small
_NEAR, _FAR = 0.2, -0.9


def log_poisson(P: Vocabulary, x: Array, mean: Array, log_mean: Array) -> Array:
    """log (μ^x exp(−μ) / x!) = −½ log 2πx − δ(x) − x (u − log(1 + u)), with u = μ/x − 1; −μ at x = 0.

    Args:
        P: vocabulary.
        x: counts.
        mean: μ; it may be 0 if it is too small for a float.
        log_mean: log μ.
    """
    at, is_zero = _positive(P, x)
    log_x = P.xp.log(at)
    lost = at * excess(P, (mean - at) / at, log_mean - log_x)
    return P.xp.where(is_zero, -mean, -0.5 * (log(2 * pi) + log_x) - stirling_error(P, at) - lost)


def log_negative_binomial(P: Vocabulary, x: Array, mean: Array, log_mean: Array, theta: Array) -> Array:
    """log (Γ(x + θ) / (x! Γ(θ)) (θ/(θ + μ))^θ (μ/(θ + μ))^x), which tends to `log_poisson` as θ → ∞.

    It is −½ log 2πx − ½ log(1 + x/θ) + δ(x + θ) − δ(θ) − δ(x) − x (u − log(1 + u)) − θ (v − log(1 + v)), with x (1 + u)
    and θ (1 + v) the expected shares of x + θ: u x = −v θ = (μ − x) θ / (θ + μ). At x = 0 it is −θ log(1 + μ/θ).

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
    low, inverse = xp.clip(a, None, _LARGE), 1.0 / xp.clip(a, _LARGE - 1.0, None)  # no gradient is cut where it is used
    series = _horner(_STIRLING[: _terms(P, a)], inverse * inverse) * inverse
    return xp.where(large, series, P.lgamma(low + 1.0) - (low + 0.5) * xp.log(low) + low - 0.5 * log(2 * pi))


def excess(P: Vocabulary, u: Array, log_1p: Array) -> Array:
    """u − log(1 + u) ≥ 0, for u ≥ −1.

    Args:
        P: vocabulary.
        u: relative differences.
        log_1p: log(1 + u), computed in another way. It is used if u is so near to −1 that 1 + u is not precise.
    """
    xp = P.xp
    small = xp.clip(u, -_NEAR, _NEAR)
    w = small / (2.0 + small)
    square = w * w
    series = _horner(_ATANH[: _terms(P, u)], square)
    beyond = u - xp.where(u < _FAR, log_1p, xp.log1p(xp.clip(u, _FAR - 0.05, None)))
    return xp.where(xp.abs(u) < _NEAR, w * small - w * square * series, beyond)


def _terms(P: Vocabulary, x: Array) -> int:
    """How many terms of a series make a difference in the floating type of x."""
    return 3 if P.xp.finfo(x.dtype).eps > 1e-10 else 6


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    """c₀ + c₁ x + c₂ x² + …"""
    total: Array = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = c + total * x
    return total


def _positive(P: Vocabulary, x: Array) -> tuple[Array, Array]:
    """x with 1 instead of 0, and a mask of where it is 0."""
    is_zero = x == 0
    return x + is_zero, is_zero
