"""Is the guide right? What importance weights tell of it, datum by datum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppdgm.diagnostics.arrays import checked, over_data, rounding
from ppdgm.diagnostics.psis import check_draws, fit_tail
from ppdgm.errors import DataError, require, shown


@dataclass(frozen=True)
class WeightQuality:
    """How far the weights of each datum's draws are from constant, as those of an exact guide are.

    Attributes:
        pareto_k: k̂, [N]. Below 0.5 the weights have a variance, above 0.7 no average over draws can be relied on.
        effective_sample_size: [N], from 1 to K.
        exact: [N], whether the weights are constant to rounding, and to 0.01 nats at most.
        k: K, draws per datum.
    """

    pareto_k: np.ndarray
    effective_sample_size: np.ndarray
    exact: np.ndarray
    k: int

    @property
    def threshold(self) -> float:
        """The largest k̂ for which K draws are enough: min(1 − 1 / log₁₀ K, 0.7)."""
        return float(min(1.0 - 1.0 / np.log10(self.k), 0.7))

    def worst(self, n: int = 10) -> np.ndarray:
        """Indices of the n data with the largest k̂, the worst first; of equal k̂, the smallest sample size.

        Raises:
            PpdgmError: n is no positive whole number.
        """
        require("n", n, int, 1, "a positive whole number of data")
        k = np.where(np.isnan(self.pareto_k), self.threshold, self.pareto_k)
        return np.lexsort((self.effective_sample_size, -k))[:n]

    def __str__(self) -> str:
        n, k = len(self.pareto_k), self.pareto_k
        if self.exact.all():
            return f"The guide is exact: the weights of all {n} data are constant to rounding (K = {self.k})."
        worst, parts = int(self.worst(1)[0]), [f"{int((k < 0.5).sum())} below 0.5", f"{int((k > 0.7).sum())} above 0.7"]
        parts += [f"{int(np.isnan(k).sum())} unknown"] if np.isnan(k).any() else []
        parts += [f"{int(self.exact.sum())} exact"] if self.exact.any() else []
        return (
            f"Pareto k̂ of {n} data: {', '.join(parts)}; median {np.median(np.nan_to_num(k, nan=np.inf)):.2f}, worst "
            f"{k[worst]:.2f} (datum {worst}). Effective sample size: median "
            f"{np.median(self.effective_sample_size):.0f} of {self.k}."
        )


def effective_sample_size(log_weights: Any) -> np.ndarray:
    """(Σ_k w_k)² / Σ_k w_k² for each datum: how many draws of the posterior K weighted ones are worth. Kong 1992.

    Args:
        log_weights: log p(x, z) − log q(z|x), [K, N], nats; −inf for a weight of 0.

    Returns:
        [N], from 1 to K; 0 where all weights are 0.

    Raises:
        DataError: no numbers [K, N].
    """
    array = checked("log_weights", log_weights, "K N", zero_weight=True)
    return np.concatenate([_effective(block) for _, block in over_data(array)])


def pareto_k(log_weights: Any, tolerance: Any = None) -> np.ndarray:
    """k̂ of each datum's weights, the shape of a generalised Pareto tail: w has 1/k moments.

    Vehtari et al. 2024, arXiv:1507.02646; for judging variational guides Yao et al. 2018, arXiv:1802.02538. Computed
    by ArviZ, whose two generations take tails that differ by one draw.

    Args:
        log_weights: log p(x, z) − log q(z|x), [K, N], nats; −inf for a weight of 0.
        tolerance: nats, a number or [N], up to which a datum's log-weights count as equal. By default 256 units of
            rounding of the largest of them, or of 1, in the precision that its values are written in, but never more
            than 0.01: what is spread further than that matters, whatever it comes from.

    Returns:
        [N]: −inf where the weights, or all those in the tail, are equal; +inf where nearly all are 0 beside the
        largest; NaN where ties, as of few discrete latents, leave nothing to fit: judge these by effective sample size.

    Raises:
        DataError: no numbers [K, N], or fewer than 30 draws.
    """
    return weight_quality(log_weights, tolerance).pareto_k


def weight_quality(log_weights: Any, tolerance: Any = None) -> WeightQuality:
    """k̂, effective sample size, and whether the weights are constant, for each datum.

    Args:
        log_weights: log p(x, z) − log q(z|x), [K, N], nats; −inf for a weight of 0.
        tolerance: as for `pareto_k`.

    Raises:
        DataError: no numbers [K, N], or fewer than 30 draws.
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


def _allowed(tolerance: Any, size: int) -> np.ndarray | None:
    if tolerance is None:
        return None
    array = checked("tolerance", tolerance, "…")
    if array.shape not in ((), (size,)) or array.min() < 0:
        raise DataError(f"tolerance: got {shown(tolerance)}, expected nats, a number or [N], N = {size}, at least 0.")
    return np.broadcast_to(np.asarray(array, np.float64), (size,))
