"""Is the guide right? The importance weights of each row show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import checked, over_data, rounding
from ppdgm.diagnostics.psis import check_draws, fit_tail
from ppdgm.errors import DataError, require, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class WeightQuality:
    """How far the weights of each row's draws are from constant. The weights of an exact guide are constant.

    Attributes:
        pareto_k: k̂, [N]. Below 0.5 the weights have a variance; above 0.7 no average over draws is reliable.
        effective_sample_size: [N], from 1 to K.
        exact: [N], whether the weights are constant up to rounding, and up to 0.01 nats at most.
        k: K, the number of draws for each row.
    """

    pareto_k: np.ndarray
    effective_sample_size: np.ndarray
    exact: np.ndarray
    k: int

    @property
    def threshold(self) -> float:
        """The largest k̂ at which K draws are enough: min(1 − 1 / log₁₀ K, 0.7)."""
        return float(min(1.0 - 1.0 / np.log10(self.k), 0.7))

    def worst(self, n: int = 10) -> np.ndarray:
        """Indices of the n rows with the largest k̂, the worst first; if k̂ is equal, the smaller sample size first.

        Raises:
            PpdgmError: n is not a positive whole number.
        """
        require("n", n, int, 1, "a positive whole number of rows")
        k = np.where(np.isnan(self.pareto_k), self.threshold, self.pareto_k)
        return np.lexsort((self.effective_sample_size, -k))[:n]

    def __str__(self) -> str:
        n, k = len(self.pareto_k), self.pareto_k
        if self.exact.all():
            return f"The guide is exact: the weights of all {n} rows are constant, up to rounding (K = {self.k})."
        worst, parts = int(self.worst(1)[0]), [f"{int((k < 0.5).sum())} below 0.5", f"{int((k > 0.7).sum())} above 0.7"]
        parts += [f"{int(np.isnan(k).sum())} unknown"] if np.isnan(k).any() else []
        parts += [f"{int(self.exact.sum())} exact"] if self.exact.any() else []
        return (
            f"Pareto k̂ of {n} rows: {', '.join(parts)}; median {np.median(np.nan_to_num(k, nan=np.inf)):.2f}, worst "
            f"{k[worst]:.2f} (row {worst}). Effective sample size: median "
            f"{np.median(self.effective_sample_size):.0f} of {self.k}."
        )


def effective_sample_size(log_weights: ArrayLike) -> np.ndarray:
    """(Σ_k w_k)² / Σ_k w_k² for each row: K weighted draws are worth this many posterior draws. Kong 1992.

    Args:
        log_weights: log p(x, z) − log q(z|x), [K, N], nats; −inf for a weight of 0.

    Returns:
        [N], from 1 to K; 0 if all weights are 0.

    Raises:
        DataError: the array is not numbers [K, N].
    """
    array = checked("log_weights", log_weights, "K N", zero_weight=True)
    return np.concatenate([_effective(block) for _, block in over_data(array)])


def pareto_k(log_weights: ArrayLike, tolerance: ArrayLike | None = None) -> np.ndarray:
    """k̂ of the weights of each row, the shape of a generalised Pareto tail: w has 1/k moments.

    Vehtari et al. 2024, arXiv:1507.02646; to judge variational guides, Yao et al. 2018, arXiv:1802.02538. ArviZ
    computes it; the tails of ArviZ 0.x and 1.x differ by one draw.

    Args:
        log_weights: log p(x, z) − log q(z|x), [K, N], nats; −inf for a weight of 0.
        tolerance: nats, a number or [N], up to which the log-weights of a row count as equal. By default 256 units of
            rounding of the largest of them, or of 1, in the precision of the values, but never more than 0.01: a larger
            spread matters, whatever its cause.

    Returns:
        [N]: −inf if the weights, or all those in the tail, are equal; +inf if nearly all are 0 compared with the
        largest; NaN if ties, such as those of few discrete latents, leave nothing to fit: then use effective sample
        size.

    Raises:
        DataError: the array is not numbers [K, N], or there are fewer than 30 draws.
    """
    return weight_quality(log_weights, tolerance).pareto_k


def weight_quality(log_weights: ArrayLike, tolerance: ArrayLike | None = None) -> WeightQuality:
    """k̂, effective sample size, and whether the weights are constant, for each row.

    Args:
        log_weights: log p(x, z) − log q(z|x), [K, N], nats; −inf for a weight of 0.
        tolerance: as for `pareto_k`.

    Raises:
        DataError: the array is not numbers [K, N], or there are fewer than 30 draws.
    """
    array = checked("log_weights", log_weights, "K N", zero_weight=True)
    draws, size = array.shape
    check_draws("log_weights", draws, "K")
    allowed = _allowed(tolerance, size)
    k, effective, exact = np.full(size, -np.inf), np.empty(size), np.empty(size, bool)
    for where, block in over_data(array):
        limit = rounding(block) if allowed is None else allowed[where]
        with np.errstate(invalid="ignore"):  # −∞ − (−∞)
            exact[where] = block.max(0) - block.min(0) <= limit
        effective[where] = _effective(block)
        rest = ~exact[where]
        if rest.any():
            k[where][rest] = fit_tail(np.ascontiguousarray(block[:, rest].T), limit[rest])[1]
    return WeightQuality(k, effective, exact, draws)


def _effective(block: np.ndarray) -> np.ndarray:
    top = block.max(0)
    w = np.exp(block - np.where(np.isfinite(top), top, 0.0))
    total = w.sum(0)
    return np.divide(total**2, (w**2).sum(0), out=np.zeros_like(total), where=total > 0)


def _allowed(tolerance: ArrayLike | None, size: int) -> np.ndarray | None:
    if tolerance is None:
        return None
    array = checked("tolerance", tolerance, "…")
    if array.shape not in ((), (size,)) or array.min() < 0:
        raise DataError(f"tolerance: got {shown(tolerance)}, expected nats, a number or [N], N = {size}, at least 0.")
    return np.broadcast_to(np.asarray(array, np.float64), (size,))
