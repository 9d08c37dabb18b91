"""Per-pixel independent baselines: each likelihood's own family, fitted pixel by pixel to the training data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logsumexp
from scipy.stats import laplace, nbinom, norm, poisson

from benchmarks.covering.choices import LEVELS

NUMBERS = np.arange(LEVELS)
Table = Callable[[np.ndarray], np.ndarray]  # parameters -> log-probability of each level


def baseline(likelihood: str, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """log p of each held-out row, in nats."""
    train, test = (x.reshape(len(x), -1).astype(float) for x in (train, test))
    if likelihood in TABLES:
        table, starts = TABLES[likelihood]
        tables = [_fitted(table, starts, np.bincount(c.astype(int), minlength=LEVELS)) for c in train.T]
        return np.array([t[c.astype(int)] for t, c in zip(tables, test.T, strict=True)]).sum(0)
    return CLOSED[likelihood](train, test).sum(1)


def _bernoulli(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    p = (train.sum(0) + 1) / (len(train) + 2)
    return test * np.log(p) + (1 - test) * np.log1p(-p)


def _continuous_bernoulli(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """log p = hx − log((exp h − 1)/h), whose mean rises with h: by bisection."""
    mean = lambda h: 1 / -np.expm1(-h) - 1 / h
    low, high = np.full(train.shape[1], -700.0), np.full(train.shape[1], 700.1)
    for _ in range(60):
        middle = (low + high) / 2
        below = mean(middle) < train.mean(0)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return test * low - np.log(np.expm1(low) / low)


def _gaussian(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    return norm.logpdf(test, train.mean(0), train.std(0))


def _laplace(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    middle = np.median(train, axis=0)
    return laplace.logpdf(test, middle, np.abs(train - middle).mean(0))


def _categorical(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    counts = (train[:, :, None] == NUMBERS).sum(0) + 1.0
    log_probs = np.log(counts / counts.sum(-1, keepdims=True))
    return np.stack([log_probs[i, c.astype(int)] for i, c in enumerate(test.T)], axis=1)


def _poisson(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    return poisson.logpmf(test, (train.sum(0) + 0.5) / len(train))


CLOSED = {
    "bernoulli": _bernoulli,
    "continuous bernoulli": _continuous_bernoulli,
    "gaussian": _gaussian,
    "laplace": _laplace,
    "categorical": _categorical,
    "poisson": _poisson,
}


# --- families without a formula: maximum likelihood over the levels ------------------------------------------------


def _logistic(loc: float, raw: float) -> np.ndarray:
    """Masses of a logistic on levels in [−1, 1]; the lowest and the highest include the tail beyond them."""
    edges = (2 * NUMBERS[:-1] + 1) / (LEVELS - 1) - 1
    cdf = np.concatenate([[0.0], expit((edges - loc) / (1e-3 + np.logaddexp(0, raw))), [1.0]])
    return np.log(np.maximum(np.diff(cdf), 1e-12))


def _mixture(v: np.ndarray) -> np.ndarray:
    each = [_logistic(loc, raw) for loc, raw in v[3:].reshape(3, 2)]
    return logsumexp(log_softmax(v[:3])[:, None] + each, axis=0)


def _negative_binomial(v: np.ndarray) -> np.ndarray:
    mean, theta = np.exp(np.clip(v[0], -12, 6)), np.exp(np.clip(v[1], -7, 7))
    return nbinom.logpmf(NUMBERS, theta, theta / (theta + mean))


def _zero_inflated(v: np.ndarray) -> np.ndarray:
    counted = _negative_binomial(v) + np.log(expit(-v[2]))
    return np.where(NUMBERS == 0, np.logaddexp(counted, np.log(expit(v[2]))), counted)


TABLES: dict[str, tuple[Table, list[list[float]]]] = {
    "discretised logistic": (lambda v: _logistic(*v), [[0.0, -1.0], [-1.0, -2.0], [1.0, -2.0]]),
    "logistics": (
        _mixture,
        [[0, 0, 0, -1.0, -3.0, 0.0, -1.0, 1.0, -3.0]],
    ),
    "negative binomial": (_negative_binomial, [[1.0, 0.0], [-3.0, 0.0]]),
    "zero-inflated": (_zero_inflated, [[1.0, 1.0, 0.0], [-3.0, 0.0, -3.0]]),
}


def _fitted(table: Table, starts: list[list[float]], counts: np.ndarray) -> np.ndarray:
    """Log-probabilities of the levels, from the best of several starts; a prior of 1e-3 on v² keeps it finite."""
    loss = lambda v: -(counts * table(v)).sum() / counts.sum() + 1e-3 * (v**2).mean()
    found = [minimize(loss, start, method="L-BFGS-B", options={"maxiter": 40}) for start in starts]
    return table(min(found, key=lambda f: f.fun).x)
