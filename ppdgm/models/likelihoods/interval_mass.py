"""log of the probability of an interval, precise in both tails and for narrow intervals: normal and Laplace."""

from __future__ import annotations

from math import log, pi

import numpy as np
from numpy.polynomial import chebyshev
from scipy.special import erfcx

from ppdgm.language.vocabulary import Array, Vocabulary

_TERMS = 30  # of the series: 1e-15
_NARROW = 0.1  # width times distance from 0, below which the density's own series has an error of 1e-11


def _coefficients() -> tuple[float, ...]:
    """Chebyshev coefficients of log(erfcx(x) / t) over t = 2 / (2 + x) in (0, 1], which has a limit at t = 0."""

    def smooth(u: np.ndarray) -> np.ndarray:
        t = (u + 1) / 2
        found: np.ndarray = np.log(erfcx(2 / t - 2) / t)
        return found

    return tuple(float(c) for c in chebyshev.chebinterpolate(smooth, _TERMS))  # type: ignore[type-var]  # NumPy's stub


_COEFFICIENTS = _coefficients()  # numbers, because torch.compile can't look into the function


def log_left_tail(P: Vocabulary, e: Array) -> Array:
    """log Φ(e), for e ≤ 0."""
    x = -e / 2**0.5
    t = 2.0 / (2.0 + x)
    u, before, now = 2.0 * t - 1.0, 0.0 * t, 0.0 * t
    first, *rest = _COEFFICIENTS
    for c in reversed(rest):  # Clenshaw's recurrence
        before, now = now, 2.0 * u * now - before + c
    return P.xp.log(t) - x * x + (u * now - before + first) - log(2.0)


def log_normal_mass(P: Vocabulary, low: Array, high: Array) -> Array:
    """log (Φ(high) − Φ(low)), for finite low < high; numbers of size 1e10 stand for infinite ones."""
    xp = P.xp
    flip = low + high > 0  # the left tail is precise
    a, b = xp.where(flip, -high, low), xp.where(flip, -low, high)
    middle, width = 0.5 * (a + b), b - a
    narrow = width * (1.0 - middle) < _NARROW  # middle ≤ 0
    m = xp.where(narrow, middle, P.full((), 0.0))
    w = xp.where(narrow, width, P.full((), _NARROW))
    square = m * m
    series = w**2 * (square - 1.0) / 24.0 + w**4 * (square * square - 6.0 * square + 3.0) / 1920.0
    of_density = xp.log(w) - 0.5 * square - 0.5 * log(2 * pi) + xp.log1p(series)
    a, b = xp.where(narrow, P.full((), -1.0), a), xp.where(narrow, P.full((), 0.0), b)
    below = log_left_tail(P, a)  # a < 0
    inside = b <= 0
    last = log_left_tail(P, xp.where(inside, b, -b))
    gap = xp.where(inside, below - last, P.full((), -log(2.0)))
    one_side = last + log1m_exp(P, gap)
    outside = xp.where(inside, P.full((), 0.25), xp.exp(below) + xp.exp(last))
    return xp.where(narrow, of_density, xp.where(inside, one_side, xp.log1p(-outside)))


def log1m_exp(P: Vocabulary, x: Array) -> Array:
    """log(1 − exp(x)), for x < 0."""
    xp, near = P.xp, x > -log(2.0)
    some = P.full((), -1.0)
    return xp.where(near, xp.log(-xp.expm1(xp.where(near, x, some))), xp.log1p(-xp.exp(xp.where(near, some, x))))


def log_laplace_mass(P: Vocabulary, low: Array, high: Array) -> Array:
    """log (F(high) − F(low)) of the standard Laplace distribution, for finite low < high."""
    xp, flip = P.xp, low + high > 0
    a, b = xp.where(flip, -high, low), xp.where(flip, -low, high)
    inside = b <= 0
    one_side = xp.where(inside, b, P.full((), 0.0)) - log(2.0) + log1m_exp(P, xp.where(inside, a - b, P.full((), -1.0)))
    a, b = xp.where(inside, P.full((), -1.0), a), xp.where(inside, P.full((), 1.0), b)
    around = xp.log(-0.5 * (xp.expm1(a) + xp.expm1(-b)))
    return xp.where(inside, one_side, around)
