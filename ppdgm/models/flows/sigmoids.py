"""The monotone map y = logit Σ w σ(a x + b), its slope and its inverse, all in log space."""

from __future__ import annotations

from math import expm1, log

from ppdgm.language.vocabulary import Array, Vocabulary

HALVINGS, STEPS = 24, 3  #: of the interval that contains an inverse; then of Newton's, inside it: to rounding
MIN_SLOPE = 0.01  #: a floor under a, so that the inverse stays finite
_UNIT = log(expm1(1.0 - MIN_SLOPE))  # its softplus is a slope of 1 minus the floor

Sigmoids = tuple[Array, Array, Array]  # log w, log a and b, each [..., M, D]


def sigmoids(P: Vocabulary, raw: Array, spread: float) -> Sigmoids:
    """log w, log a and b from numbers [..., 3 M, D]; numbers of 0 give equal w, a = 1, and b from −spread to spread."""
    m = raw.shape[-2] // 3
    weight, slope, shift = raw[..., :m, :], raw[..., m : 2 * m, :], raw[..., 2 * m :, :]
    places = [spread * (2.0 * i / (m - 1) - 1.0) if m > 1 else 0.0 for i in range(m)]
    log_weight = weight - P.xp.expand_dims(P.logsumexp(weight, -2), axis=-2)
    return log_weight, P.xp.log(MIN_SLOPE + P.softplus(slope + _UNIT)), shift + P.constant(places)[:, None]


def rise(P: Vocabulary, given: Sigmoids, x: Array) -> tuple[Array, Array]:
    """y and log dy/dx at x [..., D]: log S − log(1 − S), and log S′ − log S − log(1 − S), S = Σ w σ(a x + b)."""
    log_weight, log_slope, shift = given
    at = P.xp.exp(log_slope) * x[..., None, :] + shift
    below, above = -P.softplus(-at), -P.softplus(at)  # log σ and log (1 − σ)
    inside, outside = P.logsumexp(log_weight + below, -2), P.logsumexp(log_weight + above, -2)
    log_rise = P.logsumexp(log_weight + log_slope + below + above, -2)
    return inside - outside, log_rise - inside - outside


def fall(P: Vocabulary, given: Sigmoids, y: Array) -> Array:
    """x with rise(x) = y [..., D]: between the solutions of each sigmoid alone, by bisection and Newton's steps."""
    log_weight, log_slope, shift = (P.stop_gradient(a) for a in given)
    target = P.stop_gradient(y)
    alone = (target[..., None, :] - shift) * P.xp.exp(-log_slope)
    still = lambda x: rise(P, (log_weight, log_slope, shift), x)

    def halve(ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        below = still(middle)[0] < target
        return P.xp.where(below, middle, low), P.xp.where(below, high, middle)

    def step(x: Array) -> Array:
        there, log_rise = still(x)
        return P.xp.clip(x + (target - there) * P.xp.exp(-log_rise), low, high)

    low, high = P.repeat(HALVINGS, halve, (P.xp.min(alone, axis=-2), P.xp.max(alone, axis=-2)))
    found = P.repeat(STEPS, step, 0.5 * (low + high))
    return implicit(P, found, y, *rise(P, given, found))


def implicit(P: Vocabulary, found: Array, y: Array, there: Array, log_slope: Array) -> Array:
    """x, found without a gradient, with that of the implicit function f(x; θ) = y: ∂x = (∂y − ∂f/∂θ) / f′(x).

    Args:
        P: the vocabulary.
        found: x.
        y: what f should be.
        there, log_slope: f(x; θ) and log f′(x).
    """
    step = (y - there) * P.stop_gradient(P.xp.exp(-log_slope))
    return found + (step - P.stop_gradient(step))
