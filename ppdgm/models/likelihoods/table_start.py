"""First values of a table's likelihood, from the entries that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import logit

from ppdgm.errors import DataError
from ppdgm.models.likelihoods.table_columns import ColumnBlock, ColumnKind


def location_and_scale(
    kinds: Sequence[ColumnKind], data: Mapping[str, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """m and s of each column, [D]: mean and standard deviation of its numbers, or of their logarithms.

    Those of a categorical column are 0 and 1, those of a binary one ½. A constant column has s = 1.

    Raises:
        DataError: nothing of a column is there.
    """
    loc, scale = np.zeros(len(kinds)), np.ones(len(kinds))
    x = None if data is None else np.asarray(data["x"], np.float64)
    for column, kind in enumerate(kinds):
        if kind.kind == "binary":
            loc[column] = scale[column] = 0.5
        if x is None or kind.kind in ("binary", "categorical"):
            continue
        values = entries_there(x, column, kind)
        if kind.kind == "positive":
            values = np.log(values)
        elif kind.kind in ("count", "poisson"):
            values = np.log1p(values)
        loc[column], scale[column] = values.mean(), values.std() if np.ptp(values) > 0 else 1.0
    return loc, scale


def entries_there(x: np.ndarray, column: int, kind: ColumnKind) -> np.ndarray:
    """The entries of a column that are there.

    Raises:
        DataError: there are none.
    """
    values = x[:, column]
    if not len(there := values[~np.isnan(values)]):
        told = repr(kind.name) if kind.name else str(column)
        raise DataError(f"Data 'x': column {told} has no entries, so its scale is not known. Leave it out.")
    return there


def cut_points(block: ColumnBlock, data: Mapping[str, np.ndarray] | None) -> np.ndarray:
    """Raw cut points [n, K − 1] that give the levels' shares at h = 0: the first, and softplus⁻¹ of the steps."""
    shares = np.full((len(block.columns), block.levels), 1.0)
    if data is not None:
        x = np.asarray(data["x"], np.float64)
        for i, column in enumerate(block.columns):
            shares[i] += [(x[:, column] == level).sum() for level in range(block.levels)]
    below = np.cumsum(shares / shares.sum(1, keepdims=True), axis=1)[:, :-1]
    cuts = logit(below)
    steps = np.maximum(np.diff(cuts, axis=1) - 1e-4, 1e-3)
    return np.concatenate([cuts[:, :1], np.log(np.expm1(steps))], axis=1)
