"""Pareto smoothed importance sampling, by ArviZ 0.x or 1.x."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from types import ModuleType

import numpy as np

from ppdgm.errors import DataError, PackageMissing, PpdgmError

LEAST = 30  # the least number of draws: a tail is a fifth of the draws if they are few, and a fit needs six
_UNDERFLOW = -np.log(np.finfo(np.float64).tiny)  # how far below the largest log-weight a weight counts as 0


@cache
def arviz() -> ModuleType:
    """ArviZ, imported when first needed: it takes a second or two.

    Raises:
        PackageMissing: ArviZ is not installed.
        PpdgmError: ArviZ can't write its cache folder; without it 0.23 doesn't load.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # 0.23 announces 1.0 once a day
            return importlib.import_module("arviz")
    except ImportError as error:
        raise PackageMissing(f"This diagnostic uses ArviZ ({error}): pip install 'arviz>=0.23'.") from None
    except OSError as error:
        raise PpdgmError(
            f"ArviZ can't write to its cache folder ({error}). Set XDG_CACHE_HOME to a folder that can be written."
        ) from None


def is_first_generation() -> bool:
    """Whether ArviZ is 0.x, with InferenceData, and not 1.x."""
    return bool(arviz().__version__.startswith("0."))


def smooth(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised smoothed log-weights, and k̂; draws are along the last axis. Vehtari et al. 2024, arXiv:1507.02646."""
    with np.errstate(all="ignore"):
        if is_first_generation():
            smoothed, k = arviz().psislw(log_weights)
        else:  # it takes log-likelihoods: the negative of log-weights
            stats = importlib.import_module("arviz_stats.base").array_stats
            smoothed, k = stats.psislw(-log_weights)
    return np.asarray(smoothed), np.asarray(k, dtype=np.float64)


def fit_tail(log_weights: np.ndarray, tolerance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised smoothed log-weights, and k̂, with a result even if there is no tail to fit.

    Args:
        log_weights: [n, K], float64.
        tolerance: nats up to which log-weights count as equal, [n].

    Returns:
        log-weights [n, K], and k̂ [n]: −∞ if the tail's weights are all equal (bounded weights), +∞ if most of the
        tail is 0 compared with the largest weight, NaN if there are too many ties for a fit.
    """
    draws = log_weights.shape[1]
    size = int(min(draws / 5, 3 * draws**0.5))
    tail = np.sort(np.partition(log_weights, draws - size - 1, axis=1)[:, draws - size - 1 :], axis=1)
    with np.errstate(invalid="ignore"):  # −∞ − (−∞)
        below = tail[:, -1:] - tail
    nothing = np.isneginf(tail[:, -1])
    quarter = int(size / 4 + 0.5)
    flat = ~nothing & (below[:, 1] <= tolerance)
    empty = nothing | (below[:, quarter] > _UNDERFLOW)
    tied = ~flat & ~empty & (tail[:, quarter] <= tail[:, 1])
    fits = ~(flat | empty | tied)
    k = np.select([flat, empty], [-np.inf, np.inf], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = log_weights - np.where(nothing, 0.0, tail[:, -1])[:, None]
        smoothed = relative - np.log(np.exp(relative).sum(1))[:, None]
    if fits.any():
        smoothed[fits], k[fits] = smooth(log_weights[fits])
    return smoothed, k


def check_draws(name: str, draws: int, letter: str) -> None:
    """Refuse too few draws for the fit of a tail.

    Raises:
        DataError: there are too few; the message shows how many are needed.
    """
    if draws < LEAST:
        raise DataError(
            f"{name}: got {letter} = {draws}, expected at least {LEAST}: k̂ is fitted to the largest fifth of them."
        )
