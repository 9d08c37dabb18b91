"""The exposure of each row of counts: its total, if no column has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.checks import refuse_where
from ppdgm.data.stream import is_sparse
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from ppdgm.language.native import Array

EXPOSURE = "exposure"


def totals(where: str, x: Array, remedy: str = "") -> np.ndarray:
    """Σ_d x_d of each row, [N]: the exposure that counts of another depth of sampling have.

    Args:
        where: the data, for messages.
        x: counts [N, …]; a sparse matrix stays sparse.
        remedy: what to do if they are no counts.

    Raises:
        DataError: x has numbers that are no counts, or a row without any.
    """
    bad = lambda c: ~((c >= 0) & (c == np.rint(c)))
    if not is_sparse(x) or bad(x.data).any():  # then the first bad number is found in the rows
        refuse_where(
            "x", x, bad, f"raw counts, whole numbers of at least 0, for their totals as exposure. {remedy}".rstrip(" .")
        )
    found = np.asarray(x.sum(axis=tuple(range(1, x.ndim))), np.float64).reshape(-1)
    if not (found > 0).all():
        raise DataError(
            f"{where}: row {int(np.argmin(found > 0))} has no counts, so its total is no exposure. "
            f"{int((found <= 0).sum())} of {len(found)} rows are affected. Leave them out, or give a column of "
            "exposures: fields={'x': …, 'exposure': '…'}."
        )
    return found
