"""The families of a table's columns: the log-probability, a draw and the mean of each number of a block of columns."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import NamedTuple

import numpy as np

from ppdgm.language.vocabulary import Array, Random, Vocabulary
from ppdgm.models.likelihoods.counts import draw_negative_binomial
from ppdgm.models.likelihoods.log_counts import log_negative_binomial, log_poisson

_MOST = 20.0  # bound on a log mean of counts: exp(20) is 5e8
_MOST_LOG = 80.0  # bound on the logarithm of a positive number, in float32


class Family(NamedTuple):
    """Distributions of the numbers of a block, [..., n].

    Attributes:
        log_prob: x -> log p of each number.
        sample: (random, shape) -> a draw of each number.
        mean: () -> the mean of each number; of a category, the most probable one.
    """

    log_prob: Callable[[Array], Array]
    sample: Callable[[Random, tuple[int, ...]], Array]
    mean: Callable[[], Array]


def shifted_normal(P: Vocabulary, h: Array, loc: Array, scale: Array, spread: Array) -> Family:
    """N(m + s h, (s σ)²), with m and s those of the column."""
    centre, width = loc + scale * h, scale * spread
    return Family(
        lambda x: -0.5 * (((x - loc) / scale - h) / spread) ** 2 - P.xp.log(width) - 0.5 * log(2 * pi),
        lambda random, shape: centre + width * random.normal(shape),
        lambda: centre,
    )


def log_normal(P: Vocabulary, h: Array, loc: Array, scale: Array, spread: Array) -> Family:
    """log x ~ N(m + s h, (s σ)²), with m and s those of the column's logarithms; the mean has ½ (s σ)² more."""
    xp, of_log = P.xp, shifted_normal(P, h, loc, scale, spread)
    back = lambda v: xp.exp(xp.clip(v, -_MOST_LOG, _MOST_LOG))

    def log_prob(x: Array) -> Array:
        log_x = xp.log(x)
        return of_log.log_prob(log_x) - log_x

    return Family(
        log_prob,
        lambda random, shape: back(of_log.sample(random, shape)),
        lambda: back(of_log.mean() + 0.5 * (scale * spread) ** 2),
    )


def counts(P: Vocabulary, h: Array, loc: Array, theta: Array | None) -> Family:
    """Negative binomial of mean μ = exp(m + h) and variance μ + μ²/θ; Poisson without θ."""
    log_mean = P.xp.clip(loc + h, None, _MOST)
    mean = P.xp.exp(log_mean)
    if theta is None:
        return Family(
            lambda x: log_poisson(P, x, mean, log_mean),
            lambda random, shape: random.poisson(mean, shape),
            lambda: mean,
        )
    return Family(
        lambda x: log_negative_binomial(P, x, mean, log_mean, theta),
        lambda random, shape: draw_negative_binomial(P, random, shape, mean, theta),
        lambda: mean,
    )


def binary(P: Vocabulary, h: Array) -> Family:
    """Bernoulli with logit h."""
    p = P.activation("sigmoid", h)
    return Family(
        lambda x: x * h - P.softplus(h),
        lambda random, shape: P.xp.astype(random.uniform(shape) < p, h.dtype),
        lambda: p,
    )


def categories(P: Vocabulary, logits: Array) -> Family:
    """Any probabilities of the levels: softmax of [..., n, K]."""
    return _levels(P, logits - P.logsumexp(logits, -1)[..., None], by_order=False)


def ordered(P: Vocabulary, h: Array, cuts: Array) -> Family:
    """P(x ≤ k) = σ(c_k − h), for cut points c_0 < … < c_(K−2), [n, K − 1].

    McCullagh 1980. log (σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − exp(a − b)) of neighbours a < b.
    """
    xp = P.xp
    at = cuts - h[..., None]
    below, above = -P.softplus(-at), -P.softplus(at)
    gaps = xp.log(-xp.expm1(cuts[..., :-1] - cuts[..., 1:]))
    inner = below[..., 1:] + above[..., :-1] + gaps
    return _levels(P, P.concat([below[..., :1], inner, above[..., -1:]]), by_order=True)


def _levels(P: Vocabulary, log_p: Array, by_order: bool) -> Family:
    """Levels with the log-probabilities [..., n, K]; the mean of ordered ones is that of their numbers."""
    xp, levels = P.xp, P.constant(np.arange(log_p.shape[-1]))
    return Family(
        lambda x: xp.sum(xp.where(x[..., None] == levels, log_p, 0.0), axis=-1),
        lambda random, shape: xp.astype(
            xp.argmax(log_p + random.gumbel((*shape, log_p.shape[-1])), axis=-1), log_p.dtype
        ),
        lambda: (
            xp.sum(xp.exp(log_p) * levels, axis=-1) if by_order else xp.astype(xp.argmax(log_p, axis=-1), log_p.dtype)
        ),
    )
