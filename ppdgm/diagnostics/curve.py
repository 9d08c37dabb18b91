"""Importance-weighted bounds from log-weights, over the number of particles; and resampling by the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import checked, log_sum_exp, over_data, standard_error
from ppdgm.diagnostics.log_mean import log_mean
from ppdgm.errors import DataError, items, require, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class BoundCurve:
    """L_k for several k: the ELBO at k = 1, and it rises to log p(x).

    Attributes:
        k: the number of particles of each bound, [J], ascending.
        values: L_k of each row, [J, N], nats.
        errors: its Monte Carlo error over particles, [J, N]; NaN for a single particle.
    """

    k: np.ndarray
    values: np.ndarray
    errors: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over data, [J]."""
        return self.values.mean(1)

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of the mean over data, [J]: how it would vary with other data."""
        return np.array([standard_error(v) for v in self.values])

    @property
    def monte_carlo_error(self) -> np.ndarray:
        """Monte Carlo error of the mean over data, [J]: how it would vary with other particles."""
        return np.sqrt((self.errors**2).sum(1)) / self.errors.shape[1]

    def __str__(self) -> str:
        rows = zip(self.k, self.mean, self.standard_error, self.monte_carlo_error, strict=True)
        return "\n".join(
            f"L_{k}: {m:.3f}{'' if s != s else f' ± {s:.3f}'} nats (Monte Carlo error {e:.4f})" for k, m, s, e in rows
        )


def log_mean_exp(log_weights: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """log 1/K Σ_k w_k for each row, and its Monte Carlo error by the jackknife.

    Burda et al. 2016, arXiv:1509.00519. The delta method's sd(w) / (√K mean(w)) would be too small if a few weights
    make up most of the sum.

    Args:
        log_weights: [K, N], nats; −inf for a weight of 0.

    Returns:
        values [N] and errors [N]; NaN errors for a single particle.

    Raises:
        DataError: the array is not numbers [K, N].
    """
    return log_mean(checked("log_weights", log_weights, "K N", zero_weight=True))[:2]


def bound_curve(log_weights: ArrayLike, ks: Iterable[int] | None = None) -> BoundCurve:
    """L_k = E[log 1/k Σ_j w_j], each k averaged over the K // k disjoint groups of k of the same K particles.

    Burda et al. 2016, arXiv:1509.00519. The Monte Carlo error comes from the spread of the groups, or from the
    jackknife if there is only one group.

    Args:
        log_weights: log p(x, z) − log q(z|x), [K, N], nats; −inf for a weight of 0.
        ks: numbers of particles, from 1 to K. By default 1, 2, 5, 10, … and K.

    Raises:
        DataError: the array is not numbers [K, N], or ks are not from 1 to K.
    """
    array = checked("log_weights", log_weights, "K N", zero_weight=True)
    draws, size = array.shape
    chosen = _chosen(ks, draws)
    values, errors = np.empty((2, len(chosen), size))
    for where, block in over_data(array):
        for j, k in enumerate(chosen):
            groups = block[: draws // k * k].reshape(draws // k, k, -1)
            values[j, where], errors[j, where] = _bound(groups)
    return BoundCurve(np.array(chosen), values, errors)


def resample(log_weights: ArrayLike, n: int, seed: int = 0, first: int = 0) -> np.ndarray:
    """Which particles to take for n draws of the importance-weighted posterior, by their normalised weights.

    q_IW(z|x) makes K draws from q and keeps one, j with probability w_j / Σ_k w_k; its ELBO is at least L_K. Cremer et
    al. 2017, arXiv:1704.02916. All n draws of a row share its K particles. So they are draws from q_IW, but independent
    only for K ≫ n.

    Args:
        log_weights: [K, N], nats; −inf for a weight of 0.
        n: the number of draws for each row.
        seed: the seed of the draws. Each row has its own random numbers, so that a chunk gets the same as in the whole.
        first: index of the first row, if log_weights are a chunk.

    Returns:
        indices of particles, [n, N].

    Raises:
        DataError: the array is not numbers [K, N], or all weights of a row are 0.
        PpdgmError: n, seed or first is not a whole number of the right size.
    """
    array = checked("log_weights", log_weights, "K N", zero_weight=True)
    require("n", n, int, 1, "a positive whole number of draws")
    require("seed", seed, int, 0, "a whole number, at least 0")
    require("first", first, int, 0, "the index of the first observation")
    found = np.empty((n, array.shape[1]), dtype=np.intp)
    for where, block in over_data(array):
        top = block.max(0)
        if np.isneginf(top).any():
            datum = where.start + int(np.argmin(top))
            raise DataError(
                f"log_weights: all weights of observation {datum} are 0, so they can't be resampled. Leave this "
                "observation out."
            )
        rising = np.cumsum(np.exp(block - top), axis=0).T
        for j, total in zip(range(where.start, where.stop), rising, strict=True):
            drawn = np.random.default_rng((seed, first + j)).random(n) * total[-1]
            found[:, j] = np.searchsorted(total, drawn, side="right")
    return found


def _bound(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From log-weights [G, k, n]: the mean over groups of log mean w, [n], and its error, [n]."""
    number, k, _ = groups.shape
    if number == 1:
        return log_mean(groups[0])[:2]
    each = log_sum_exp(np.swapaxes(groups, 0, 1)) - np.log(k)
    with np.errstate(invalid="ignore"):  # bounds may be −∞
        return each.mean(0), each.std(0, ddof=1) / np.sqrt(number)


def _chosen(ks: Iterable[int] | None, draws: int) -> list[int]:
    if ks is None:
        steps = (m * 10**e for e in count() for m in (1, 2, 5))
        chosen = []
        while (k := next(steps)) < draws:
            chosen.append(k)
        return [*chosen, draws]
    given = [ks] if isinstance(ks, int | np.integer) else items(ks)
    if not given or not all(isinstance(k, int | np.integer) and 1 <= k <= draws for k in given):
        raise DataError(f"ks: got {shown(ks)}, expected whole numbers from 1 to K = {draws}, the number of particles.")
    return sorted({int(k) for k in given})
