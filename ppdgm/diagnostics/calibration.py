"""Simulation-based calibration: latents (the truth) and data are drawn from the model, and the guide draws for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import BLOCK_BYTES, check_share, checked
from ppdgm.errors import DataError, items, require, shown
from ppdgm.language.native import Array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Coverage:
    """How often central intervals contain the truth.

    Attributes:
        levels: nominal levels, [J].
        shares: the share of rows whose interval contains the truth, for each dimension, [J, D].
        standard_errors: binomial standard errors of a share of N rows, if the nominal level is right, [J].
        overall: mean of the shares over dimensions, [J].
        overall_errors: its standard error over data, [J]; the dimensions of a row are not independent.
    """

    levels: np.ndarray
    shares: np.ndarray
    standard_errors: np.ndarray
    overall: np.ndarray
    overall_errors: np.ndarray

    def __str__(self) -> str:
        rows = zip(self.levels, self.overall, self.overall_errors, strict=True)
        return "\n".join(f"{level:.0%} intervals contain {share:.1%} ± {error:.1%}" for level, share, error in rows)


def ranks(draws: ArrayLike, truth: ArrayLike, seed: int = 0) -> np.ndarray:
    """r = Σ_l 1[z_l < z], uniform on 0 … L if draws are from the posterior. Talts et al. 2018, arXiv:1804.06788.

    Args:
        draws: z_l ~ q(z|x_n), [L, N, D].
        truth: z, from which the row x_n was simulated, [N, D].
        seed: the seed for ties, such as those of discrete latents, which are broken at random.

    Returns:
        integers from 0 to L, [N, D].

    Raises:
        DataError: the arrays are not numbers of these shapes.
    """
    drawn, true = checked("draws", draws, "L N D"), checked("truth", truth, "N D")
    if drawn.shape[1:] != true.shape:
        raise DataError(
            f"draws: got shape {drawn.shape}, expected (L, *{true.shape}), because truth has shape {true.shape}."
        )
    require("seed", seed, int, 0, "a whole number, at least 0")
    less, ties = np.zeros((2, *true.shape), dtype=np.int64)
    step = max(1, BLOCK_BYTES // (8 * true.size))
    for start in range(0, len(drawn), step):
        block = drawn[start : start + step]
        less += (block < true).sum(0)
        ties += (block == true).sum(0)
    return less + np.random.default_rng(seed).integers(0, ties + 1)


def pit(ranks: ArrayLike, draws: int, seed: int = 0) -> np.ndarray:
    """u = (r + U) / (L + 1), U uniform: ranks as numbers in [0, 1], exactly uniform if the guide is calibrated.

    Args:
        ranks: the result of `ranks`, [N, D].
        draws: L.
        seed: the seed of U.

    Returns:
        [N, D].

    Raises:
        DataError: the ranks aren't whole numbers from 0 to L.
    """
    r = check_ranks(ranks, draws)
    require("seed", seed, int, 0, "a whole number, at least 0")
    return (r + np.random.default_rng(seed).random(r.shape)) / (draws + 1)


def coverage(
    draws: Array, truth: ArrayLike, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95), seed: int = 0
) -> Coverage:
    """How often the central interval of the guide's draws contains the truth, for each level and dimension.

    The interval is that of the randomised rank, |u − 1/2| ≤ level/2, so that the nominal share is exact for any number
    of draws; with L draws, the ends have a resolution of 1/(L + 1).

    Args:
        draws: z_l ~ q(z|x_n), [L, N, D].
        truth: z, from which the row x_n was simulated, [N, D].
        levels: nominal shares.
        seed: the seed of the random part of the ranks.

    Raises:
        DataError: the arrays are not numbers of these shapes, or levels are not between 0 and 1.
    """
    if not isinstance(levels, Sequence | np.ndarray) or isinstance(levels, str) or not items(levels):
        raise DataError(f"levels: got {shown(levels)}, expected a list of shares, such as (0.5, 0.9).")
    for level in levels:
        check_share("levels", level, "shares")
    u = pit(ranks(draws, truth, seed), len(draws), seed + 1)
    size, nominal = len(u), np.array(levels, dtype=np.float64)
    shares, overall, errors = [], [], []
    for level in nominal:
        inside = np.abs(u - 0.5) <= level / 2
        each = inside.mean(1)
        shares.append(inside.mean(0))
        overall.append(each.mean())
        errors.append(each.std(ddof=1) / np.sqrt(size) if size > 1 else np.nan)
    binomial = np.sqrt(nominal * (1 - nominal) / size)
    return Coverage(nominal, np.array(shares), binomial, np.array(overall), np.array(errors))


def check_ranks(ranks: ArrayLike, draws: int) -> np.ndarray:
    """The ranks as integers [N, D].

    Raises:
        DataError: they aren't whole numbers from 0 to L.
        PpdgmError: draws is not a positive whole number.
    """
    require("draws", draws, int, 1, "a positive whole number L, the number of draws that truth was compared with")
    array = checked("ranks", ranks, "N D", kinds="iu")
    if array.min() < 0 or array.max() > draws:
        raise DataError(f"ranks: got {array.min()} to {array.max()}, expected 0 to L = {draws} draws.")
    return array.astype(np.int64)
