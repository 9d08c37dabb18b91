"""Discrete latents and their relaxations: a value that is certain is a draw of the discrete distribution."""

import numpy as np
from scipy.special import expit, gammaln, softmax
from scipy.stats import bernoulli, logistic

from reference.base import CODES, POSTERIORS, PRIORS, for_each_particle, per_datum, soft_scale
from reference.nets import forward


def temperature(part, params, name):
    """τ of a part: fixed, scheduled or learned."""
    value = part["temperature"]
    if isinstance(value, str):
        return soft_scale(params[f"{name}.raw_temperature"], part["min_temperature"])
    return max(params[f"{name}.temperature"], part["min_temperature"]) if isinstance(value, dict) else value


def categorical_or_relaxed(y, logits, tau):
    """log Π π_c of log one-hot vectors; else Maddison et al.'s density of x = exp y on the simplex, times Π x_k."""
    probs, x = softmax(logits, -1), np.exp(y)
    if np.isin(x, (0, 1)).all():
        return per_datum(np.log((x * probs).sum(-1)))
    size = y.shape[-1]
    log_density = gammaln(size) + (size - 1) * np.log(tau) - size * np.log((probs * x**-tau).sum(-1))
    return per_datum(log_density + np.log(probs * x ** (-tau - 1)).sum(-1) + y.sum(-1))


def bernoulli_or_relaxed(y, log_odds, tau):
    """Of bits as log-odds ±1000; else log-odds that are logistic with mean a/τ and scale 1/τ."""
    if (np.abs(y) == 1000).all():
        return per_datum(bernoulli.logpmf(y > 0, expit(log_odds)))
    return per_datum(logistic.logpdf(y, log_odds / tau, 1 / tau))


def posterior(density):
    def log_prob(program, params, x, z):
        head = for_each_particle(forward(program["encoder"], params, "encoder", x, z.shape[2:]), len(z))
        return density(z, head, temperature(program["posterior"], params, "posterior"))

    return log_prob


def categorical_prior(program, params, z):
    learned = program["prior"]["weights"] == "learned"
    logits = params["prior.logits"] if learned else np.zeros(z.shape[2:])
    return categorical_or_relaxed(z, np.broadcast_to(logits, z.shape), program["prior"]["temperature"])


def bernoulli_prior(program, params, z):
    probs = program["prior"]["probs"]
    log_odds = params["prior.logits"] if probs == "learned" else np.full(z.shape[2:], np.log(probs / (1 - probs)))
    return bernoulli_or_relaxed(z, np.broadcast_to(log_odds, z.shape), program["prior"]["temperature"])


def gumbel_code(program, params, z):
    """Codebook vectors, as channels: [K, B, E, *latent]."""
    weights = np.exp(z)
    if program["posterior"]["straight_through"]:
        weights = np.eye(z.shape[-1])[z.argmax(-1)]
    book = params.get("posterior.codebook", np.eye(z.shape[-1]))
    return np.stack([(weights * column).sum(-1) for column in book.T], axis=2)


def binary_code(program, params, z):
    return (z > 0).astype(float) if program["posterior"]["straight_through"] else expit(z)


PRIORS |= {"CategoricalPrior": categorical_prior, "BernoulliPrior": bernoulli_prior}
POSTERIORS |= {
    "GumbelSoftmax": posterior(categorical_or_relaxed),
    "RelaxedBernoulli": posterior(bernoulli_or_relaxed),
}
CODES |= {"GumbelSoftmax": gumbel_code, "RelaxedBernoulli": binary_code}
