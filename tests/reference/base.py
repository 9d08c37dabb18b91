"""What references of all families share, and the tables that each family's module fills, by kind."""

import numpy as np
from scipy.stats import norm

PROGRAMS = {}  # kind -> (program, params, data, latents) -> (log p, log q) [K, B]
PRIORS = {}  # kind -> (program, params, z) -> log p(z) [K, B]
POSTERIORS = {}  # kind -> (program, params, x, z) -> log q(z|x) [K, B]
LIKELIHOODS = {}  # kind -> (likelihood, params, x, head [K, B, *outputs]) -> log p(x|z) [K, B]
OUTPUTS = {}  # kind of a likelihood -> (likelihood, event) -> shape of the decoder's output; by default the event's
ENCODED = {}  # kind of a likelihood -> (likelihood, x) -> what the encoder sees; by default x
CODES = {}  # kind of a posterior -> (program, params, z) -> what the decoder sees; by default z


def kind(spec):
    return spec["kind"].rpartition(":")[2]


def over(function, *arrays):
    """`function` of [n, …] applied to arrays [K, B, …]."""
    k, b = arrays[0].shape[:2]
    out = function(*(a.reshape(k * b, *a.shape[2:]) for a in arrays))
    return out.reshape(k, b, *out.shape[1:])


def for_each_particle(x, k):
    """[B, …] -> [K, B, …]."""
    return np.stack([x] * k)


def per_datum(terms):
    """The sum over all but particles and data."""
    return terms.reshape(*terms.shape[:2], -1).sum(-1)


def soft_scale(raw, floor):
    return floor + np.logaddexp(0.0, raw)


def scale_between(raw, floor, ceiling):
    """floor + log((1 + e^s) / (1 + e^(s − c))), c = ceiling − floor."""
    return soft_scale(raw, floor) - np.logaddexp(0.0, raw - (ceiling - floor))


def standard_normal(z):
    return per_datum(norm.logpdf(z))
