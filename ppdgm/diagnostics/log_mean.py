"""The logarithm of a mean of weights, with an error and a bias that are valid for few and unequal weights too."""

from __future__ import annotations

import numpy as np

from ppdgm.diagnostics.arrays import log_sum_exp, over_data


def log_mean(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log 1/K Σ_k w_k over the first axis, and by the jackknife its standard error and bias.

    With L_(k) the value without particle k: error² = (K − 1)/K Σ_k (L_(k) − L̄)², bias = (K − 1)(L̄ − L). The error of
    the delta method, sd(w) / (√K mean(w)), is never above 1, however unequal the weights are; the error of the
    jackknife is in expectation too large, not too small. Efron & Stein 1981, "The jackknife estimate of variance".

    Args:
        terms: log-weights, [K, n]; −∞ for a weight of 0.

    Returns:
        values, errors and biases, [n]. A bias is at most 0, except for rounding; if a few weights make up most of the
        sum, the true bias is lower than this estimate. Errors and biases are NaN for a single particle or if all
        weights are 0; if only one weight is not 0, the error is ∞ and the bias −∞.
    """
    values, errors, biases = np.empty((3, terms.shape[1]))
    for where, block in over_data(terms):
        values[where], errors[where], biases[where] = _log_mean(block)
    return values, errors, biases


def _log_mean(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count, size = terms.shape
    top = terms.max(0)
    top = np.where(np.isfinite(top), top, 0.0)
    relative = terms - top
    total = log_sum_exp(relative)
    values = total - np.log(count) + top
    if count == 1:
        return values, np.full(size, np.nan), np.full(size, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = _left_out(relative, total)
        mean = without.mean(0)
        errors = np.sqrt((count - 1) / count * ((without - mean) ** 2).sum(0))
        biases = (count - 1) * (mean - np.log1p(-1.0 / count))
    lonely = np.isneginf(without.min(0))  # only one weight is not 0
    return values, np.where(lonely, np.inf, errors), np.where(lonely, -np.inf, biases)


def _left_out(terms: np.ndarray, total: np.ndarray) -> np.ndarray:
    """log Σ_(j≠k) w_j − log Σ w for each k, [K, n]."""
    most, each = terms.argmax(0), np.arange(terms.shape[1])
    rest = terms.copy()
    rest[most, each] = -np.inf
    without = np.log1p(-np.exp(rest - total))  # for the others: their shares are at most one half
    without[most, each] = log_sum_exp(rest) - total  # 1 − share would be rounding if the share is nearly 1
    return without
