"""The μ-law: sound as few levels, finer near 0."""

from __future__ import annotations

import numpy as np

from ppdgm.errors import DataError, require


def mu_law_encode(x: np.ndarray, levels: int = 256) -> np.ndarray:
    """Whole numbers 0 … levels − 1: round(μ (f + 1) / 2), f = sign(x) ln(1 + μ|x|) / ln(1 + μ), μ = levels − 1.

    ITU-T G.711; van den Oord et al. 2016, arXiv:1609.03499.

    Args:
        x: sound, numbers in [−1, 1].
        levels: at least 2.

    Raises:
        DataError: other numbers.
    """
    require("levels", levels, int, 2, "a whole number, at least 2")
    x = np.asarray(x, np.float64)
    if not (np.abs(x) <= 1).all():
        bad = x[~(np.abs(x) <= 1)][0]
        raise DataError(
            f"mu_law_encode: got {bad:g}, expected numbers in [−1, 1]. Divide the sound by its largest size."
        )
    mu = levels - 1
    f = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
    return np.floor(mu * (f + 1) / 2 + 0.5).astype(np.int64)


def mu_law_decode(level: np.ndarray, levels: int = 256) -> np.ndarray:
    """Sound in [−1, 1] at each level: sign(y) ((1 + μ)^|y| − 1) / μ, y = 2 level / μ − 1; the inverse up to rounding.

    Args:
        level: whole numbers 0 … levels − 1.
        levels: as for `mu_law_encode`.

    Raises:
        DataError: other numbers.
    """
    require("levels", levels, int, 2, "a whole number, at least 2")
    level = np.asarray(level, np.float64)
    if not ((level >= 0) & (level < levels) & (level == np.rint(level))).all():
        raise DataError(
            f"mu_law_decode: expected whole numbers from 0 to {levels - 1}. Give levels as for the encoding."
        )
    mu = levels - 1
    y = 2 * level / mu - 1
    return np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu
