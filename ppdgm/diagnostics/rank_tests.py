"""Are the ranks of simulation-based calibration uniform? Two tests for each dimension, and one result for all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr, chdtrc

from ppdgm.diagnostics.arrays import check_share
from ppdgm.diagnostics.calibration import check_ranks
from ppdgm.errors import DataError, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_LEAST = 40  # the least number of rows: two bins of twenty
_POINTS, _SIMULATIONS = 100, 20_000


@dataclass(frozen=True)
class Uniformity:
    """Whether the ranks of each dimension are uniform.

    Attributes:
        chi2_p: p of the counts in bins, [D].
        ecdf_p: p of the largest deviation of the ECDF, [D].
        p: twice the smaller of the two, at most 1, [D].
        adjusted: p after Holm's correction for D dimensions, [D].
        level: the chance that a calibrated guide is called miscalibrated.
        points: shares of the rank range, [J].
        ecdf: the share of ranks below each point, [J, D]; for uniform ranks, it equals the points.
        lower, upper: the band that contains all D curves with probability 1 − level if all are calibrated, [J].
    """

    chi2_p: np.ndarray
    ecdf_p: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    level: float
    points: np.ndarray
    ecdf: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def calibrated(self) -> bool:
        """Whether all dimensions have uniform ranks at this level."""
        return bool((self.adjusted > self.level).all())

    @property
    def failing(self) -> np.ndarray:
        """The dimensions whose ranks are not uniform, the smallest p first."""
        order = np.lexsort((self.p, self.adjusted))
        return order[self.adjusted[order] <= self.level]

    def __str__(self) -> str:
        size = len(self.p)
        if self.calibrated:
            return f"Calibrated: the ranks of all {size} dimensions are uniform (smallest p {self.adjusted.min():.2g})."
        bad = self.failing
        worst = int(bad[0])
        return (
            f"Not calibrated: the ranks of {len(bad)} of {size} dimensions are not uniform (worst: dimension {worst}, "
            f"p {self.adjusted[worst]:.2g} after Holm's correction)."
        )


def uniformity(ranks: ArrayLike, draws: int, level: float = 0.01, bins: int | None = None, seed: int = 0) -> Uniformity:
    """Test ranks for uniformity on 0 … L: χ² over bins, and the ECDF in a simultaneous band.

    Talts et al. 2018, arXiv:1804.06788; Säilynoja et al. 2021, arXiv:2103.10522. The statistic of the ECDF is its
    smallest pointwise binomial p-value over 100 points. Its null distribution comes from 20,000 simulated sets of N
    ranks, so that p is at least 5e-5.

    Args:
        ranks: the result of `ranks`, [N, D], N ≥ 40.
        draws: L.
        level: the chance that a calibrated guide is called miscalibrated, over all dimensions and both tests.
        bins: the number of bins of χ². By default N/20, from 2 to 20.
        seed: the seed of the simulated ranks.

    Raises:
        DataError: the ranks aren't whole numbers from 0 to L or are too few, or bins don't fit.
    """
    r = check_ranks(ranks, draws)
    check_share("level", level, "a probability")
    require("seed", seed, int, 0, "a whole number, at least 0")
    size, width = r.shape
    if size < _LEAST:
        raise DataError(f"ranks: got N = {size} rows, expected at least {_LEAST}. Simulate more rows.")
    if bins is None:
        bins = int(np.clip(size // 20, 2, min(20, draws + 1)))
    require("bins", bins, int, 2, f"a whole number from 2 to L + 1 = {draws + 1}")
    if bins > draws + 1:
        raise DataError(f"bins: got {bins}, expected 2 to L + 1 = {draws + 1}, the number of possible ranks.")
    chi2_p = _chi2(r, draws, bins)

    at, points, table, null = _null(size, draws, seed)
    below = np.stack([np.searchsorted(column, at) for column in np.sort(r, axis=0).T], axis=1)
    seen = table[below, np.arange(len(at))[:, None]].min(0)
    ecdf_p = (1 + np.searchsorted(null, seen, side="right")) / (1 + len(null))
    inside = table >= np.quantile(null, level / width)
    lower, upper = inside.argmax(0) / size, (size - inside[::-1].argmax(0)) / size

    p = np.minimum(1.0, 2 * np.minimum(chi2_p, ecdf_p))
    return Uniformity(chi2_p, ecdf_p, p, holm(p), level, points, below / size, lower, upper)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values, adjusted for their number by Holm's step-down rule. Holm 1979."""
    order = np.argsort(p, kind="stable")
    rising = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(rising)
    adjusted[order] = np.minimum(rising, 1.0)
    return adjusted


def _chi2(ranks: np.ndarray, draws: int, bins: int) -> np.ndarray:
    which = np.arange(draws + 1) * bins // (draws + 1)
    expected = np.bincount(which, minlength=bins) * len(ranks) / (draws + 1)  # bins may hold unequal numbers of ranks
    seen = np.stack([np.bincount(which[column], minlength=bins) for column in ranks.T], axis=1)
    return np.asarray(chdtrc(bins - 1, ((seen - expected[:, None]) ** 2 / expected[:, None]).sum(0)))


def _two_sided(size: int, points: np.ndarray) -> np.ndarray:
    """2 min(P(X ≤ j), P(X ≥ j)) for X ~ Binomial(N, point), for each j and point, [N + 1, J]."""
    counts = np.arange(size + 1)[:, None]
    low = bdtr(counts.astype(float), size, points[None])
    high = np.vstack([np.ones(len(points)), 1.0 - low[:-1]])
    return np.minimum(1.0, 2 * np.minimum(low, high))


@lru_cache(maxsize=4)
def _null(size: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points as ranks and as shares, the table at them, and the statistics of simulated uniform ranks, ascending."""
    at = np.unique(np.linspace(1, draws, min(_POINTS, draws)).round().astype(np.int64))  # counts are of smaller ranks
    points = at / (draws + 1)
    table = _two_sided(size, points)
    gaps = np.diff(points, prepend=0.0, append=1.0)
    drawn = np.random.default_rng(seed).multinomial(size, gaps, size=_SIMULATIONS)[:, :-1]
    return at, points, table, np.sort(table[np.cumsum(drawn, axis=1), np.arange(len(at))].min(1))
