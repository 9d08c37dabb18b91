"""Means of rows with weights, and their errors."""

from __future__ import annotations

import numpy as np


def weighted_mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    """Σ w v / Σ w; rows of weight 0 do not count, even if they are not finite."""
    if weights is None:
        return float(values.mean())
    counts = weights > 0
    return float(np.average(values[counts], weights=weights[counts]))


def weighted_error(values: np.ndarray, weights: np.ndarray | None) -> float:
    """The standard error of the mean over rows, n/(n − 1) Σ w² (v − m)² / (Σ w)² under the root, of n rows that count.

    It is that of a ratio of two means, to first order. With equal weights it is the usual one. NaN for one row.
    """
    weights = np.ones(len(values)) if weights is None else weights
    counts = weights > 0
    v, w = values[counts], weights[counts]
    if len(v) < 2:
        return float("nan")
    spread = w**2 * (v - np.average(v, weights=w)) ** 2
    return float(np.sqrt(len(v) / (len(v) - 1) * spread.sum()) / w.sum())


def weighted_noise(errors: np.ndarray, weights: np.ndarray | None) -> float:
    """The standard error of the mean over particles, of rows with independent draws: √(Σ w² e²) / Σ w."""
    weights = np.ones(len(errors)) if weights is None else weights
    counts = weights > 0
    return float(np.sqrt(((weights * errors)[counts] ** 2).sum()) / weights.sum())
