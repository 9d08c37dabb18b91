"""Every likelihood in float32 over its whole range, value and gradient, against mpmath at 60 digits.

A number of the head that is rounded moves log p by |number · slope| · ε: so much of an error is not the formula's. What
is allowed is 3e-6 of |log p| (or of a nat, where that is less), and four such roundings. A slope may be off by 1e-4 of
itself, and by 1e-6 of the count or level, as near the top of log p it is the small difference of such numbers.
"""

from itertools import product

import mpmath as mp
import numpy as np
import pytest
from likelihood_tools import declare, log_prob
from readings import BACKENDS

from ppdgm.models import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    MixtureOfDiscretisedLogistics,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)

EPS = float(np.finfo("float32").eps)
STEP = mp.mpf(10) ** -25
softplus = lambda h: h + mp.log1p(mp.exp(-h)) if h > 0 else mp.log1p(mp.exp(h))
log_sigmoid = lambda h: -softplus(-h)


def raw(value):
    """softplus⁻¹."""
    return value + np.log(-np.expm1(-value))


# --- log-probabilities by their equations ----------------------------------------------------------------------------


def poisson(x, log_mean):
    return x * log_mean - mp.exp(log_mean) - mp.loggamma(x + 1)


def negative_binomial(x, log_mean, theta):
    ratio = mp.exp(log_mean) / theta
    chosen = mp.loggamma(x + theta) - mp.loggamma(theta) - mp.loggamma(x + 1)
    return chosen - theta * mp.log1p(ratio) - x * mp.log1p(1 / ratio)


def zero_inflated(x, h, logit, s):
    counted = log_sigmoid(-logit) + negative_binomial(x, h, FLOOR + softplus(s))
    return log_sum(log_sigmoid(logit), counted) if x == 0 else counted


def log_sum(a, b):
    return max(a, b) + mp.log1p(mp.exp(-abs(a - b)))


def continuous_bernoulli(x, h):
    return h * x + mp.log(h / mp.expm1(h)) if h else h * (x - mp.mpf(1) / 2)


def categorical(x, *h):
    return -mp.log(sum(mp.exp(other - h[int(x)]) for other in h))


def logistic(x, loc, scale, levels=256):
    edge = lambda k: ((2 * k - levels) / mp.mpf(levels - 1) - loc) / scale
    low, high = edge(x), edge(x + 1)
    if x == 0:
        return log_sigmoid(high)
    if x == levels - 1:
        return log_sigmoid(-low)
    return log_sigmoid(high) + log_sigmoid(-low) + mp.log(-mp.expm1(low - high))


def mixture(x, a, b, loc, other, s, t):
    one = log_sigmoid(a - b) + logistic(x, loc, FLOOR + softplus(s))
    return log_sum(one, log_sigmoid(b - a) + logistic(x, other, FLOOR + softplus(t)))


# --- where they are asked --------------------------------------------------------------------------------------------

FLOOR = mp.mpf(float(np.float32(1e-3)))
TINY = mp.mpf(float(np.float32(1e-15)))
MEANS = (1e-6, 0.1, 3.0, 20.0, 300.0, 1e5, 1e6)
LOGITS = (-80.0, -20.0, -3.0, -1e-3, 0.0, 1e-6, 3.0, 16.7, 20.0, 80.0)
NEAR = (-0.6, -0.4, 1e-12, 0.1, 0.4999, 0.5001, -1e4, 1e4)  # around λ = ½, and far from it
COUNTS = [
    (max(0.0, round(mean + z * (mean + mean**2 / theta) ** 0.5)), np.log(mean), raw(theta))
    for mean, theta in product(MEANS, (0.01, 0.5, 7.9, 8.1, 1e3, 1e5, 1e6, 1e8))
    for z in (0, 1, 8)
] + [(x, np.log(mean), raw(1e5)) for x, mean in product((0.0, 1.0, 100.0), MEANS)]
COUNTS += [(4.0, np.log(3.0), raw(4.0 - 1e-3)), (1.0, np.log(0.8), raw(1e5))]  # x + θ = 8, and u = −0.2: the seams
SCALED = [
    (float(np.float32(loc + z * scale)), loc, raw(scale))
    for scale, loc in product((1e-15, 1e-6, 1e-3, 1.0, 1e6, 1e15), (0.0, 0.7))
    for z in (-30.0, -3.0, 0.5, 5.0, 30.0)  # of which none is 1 or 2: there a slope is 0
]
EDGES = [
    (x, loc, raw(scale))
    for x, loc, scale in product((0.0, 1.0, 127.0, 254.0, 255.0), (-1e3, -1.0, 0.0039, 0.7), (1e-6, 1e-3, 0.3, 1e6))
]

#: name -> (likelihood, log-probability of x and the head's numbers, points (x, *head))
RANGES = {
    "bernoulli": (Bernoulli(), lambda x, h: x * h - softplus(h), list(product((0.0, 1.0), LOGITS))),
    "categorical": (
        Categorical(levels=4),
        categorical,
        [(x, *h) for x in (0.0, 3.0) for h in ((0, 1, 2, 3), (80, 0, -80, 79.99), (500, -1e4, 500, 0), (-50,) * 4)],
    ),
    "continuous bernoulli": (
        ContinuousBernoulli(),
        continuous_bernoulli,
        list(product((0.0, 1e-6, 0.25, 0.9999, 1.0), LOGITS + NEAR)),
    ),
    "gaussian": (
        Gaussian(scale="network", min_scale=1e-15),
        lambda x, loc, s: (
            -(((x - loc) / (TINY + softplus(s))) ** 2) / 2 - mp.log((TINY + softplus(s)) ** 2 * 2 * mp.pi) / 2
        ),
        SCALED,
    ),
    "laplace": (
        Laplace(scale="network", min_scale=1e-15),
        lambda x, loc, s: -abs(x - loc) / (TINY + softplus(s)) - mp.log(2 * (TINY + softplus(s))),
        [p for p in SCALED if p[0] != np.float32(p[1])],  # not at the kink
    ),
    "logistic": (
        DiscretisedLogistic(min_scale=1e-15),
        lambda x, loc, s: logistic(x, loc, TINY + softplus(s)),
        EDGES,
    ),
    "mixture": (
        MixtureOfDiscretisedLogistics(components=2),
        mixture,
        [
            (x, 0.0, logit, loc, 0.3, s, t)
            for x, logit, loc in product((0.0, 5.0, 255.0), (-80.0, 0.0, 3.0), (-3.0, 1.0))
            for s, t in ((-50.0, 0.0), (20.0, -3.0))
        ],
    ),
    "poisson": (Poisson(), lambda x, h: poisson(x, mp.log(softplus(h))), [(x, raw(np.exp(m))) for x, m, _ in COUNTS]),
    "poisson exp": (Poisson(link="exp"), poisson, [(x, m) for x, m, _ in COUNTS]),
    "negative binomial": (
        NegativeBinomial(link="exp", inverse_dispersion="network"),
        lambda x, h, s: negative_binomial(x, h, FLOOR + softplus(s)),
        COUNTS,
    ),
    "zero inflated": (
        ZeroInflatedNegativeBinomial(link="exp", inverse_dispersion="network"),
        zero_inflated,
        [
            (x, np.log(mean), logit, raw(theta))
            for x, mean, logit in product((0.0, 3.0), (0.01, 3.0, 1e5), (-80.0, 3.0))
            for theta in (0.5, 1e6)
        ],
    ),
}


def right(spec, exact, points):
    """Points as float32 holds them; log p [N]; its slopes [N, H], and of each number how much its rounding may move."""
    points = np.array(points, "float32").astype(float)
    values, slopes, moved = [], [], []
    for x, *head in points:
        at = [mp.mpf(x), *map(mp.mpf, head)]
        slope = [
            mp.diff(exact, tuple(at), tuple(int(i == j) for i in range(len(at))), h=STEP) for j in range(1, len(at))
        ]
        values.append(exact(*at))
        slopes.append(slope)
        moved.append(sum(abs(s * h) for s, h in zip(slope, at[1:], strict=True)))
    as_float = lambda found: np.array(found, dtype=float)
    return points, as_float(values), as_float(slopes), as_float(moved)


@pytest.mark.parametrize("name", RANGES)
def test_values_and_slopes_are_right_over_the_whole_range(name):
    spec, exact, points = RANGES[name]
    with mp.workdps(60):
        points, values, slopes, moved = right(spec, exact, points)
    head = points[:, 1:].reshape(len(points), *declare(spec)[1])
    for backend in BACKENDS:
        found, gradient = log_prob(backend, spec, points[:, :1], head, "float32")
        error, slip = np.abs(found - values), np.abs(gradient.reshape(slopes.shape) - slopes)
        allowed = 3e-6 * np.maximum(1, np.abs(values)) + 4 * EPS * moved
        assert (error <= allowed).all(), (points[np.argmax(error / allowed)], backend)
        allowed = 1e-4 * np.abs(slopes) + (0.0 if name in ("gaussian", "laplace") else 1e-6 * (1 + points[:, :1]))
        assert (slip <= allowed).all(), (points[np.argmax((slip / allowed).max(1))], backend)
