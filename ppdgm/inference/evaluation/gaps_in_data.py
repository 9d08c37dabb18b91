"""Missing numbers of x: where they are, and rows in which something stands for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.frames import Frame, columns_of, is_frame, without_column
from ppdgm.data.kinds import numbers
from ppdgm.data.prepared import Prepared, coding_of
from ppdgm.errors import DataError
from ppdgm.language.vocabulary import Array

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data


def without_gaps(
    data: Data, missing: Array | Frame | None, columns: tuple[str, ...], index: str = ""
) -> tuple[Data, Array]:
    """The rows, with a known number of the same column in place of each missing one; and where numbers are missing.

    Args:
        data: of a user: x, or fields.
        missing: booleans, or a table of them; None: where x is NaN.
        columns: the run's, by name.
        index: the column of a table that names the rows.

    Raises:
        DataError: nothing says which numbers are missing.
    """
    fields = dict(data) if isinstance(data, Mapping) else {"x": data}
    raw = fields.get("x")
    raw = without_column(raw, index) if is_frame(raw) else raw
    names = columns or (columns_of(raw) if is_frame(raw) else ())
    if is_frame(missing):
        missing = numbers("missing", without_column(missing, index), names).astype(bool)
    if raw is None or np.ndim(raw) == 0:
        return data, missing  # refused when fields are read
    x = numbers("x", raw, names)
    gaps = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    if missing is None:
        missing = gaps
        if not gaps.any():
            raise DataError(
                "missing: got nothing, and x has no NaN. Say which numbers are to be drawn: booleans, True for each, "
                "of the shape of a row or of x; or NaN in x."
            )
    where = np.asarray(missing)
    if where.dtype != bool or where.shape not in (x.shape, x.shape[1:]):
        return data, missing  # refused later
    where = np.broadcast_to(where, x.shape)
    flat, known = np.nan_to_num(np.asarray(x)).reshape(len(x), -1), ~(gaps | where).reshape(len(x), -1)
    first = np.take_along_axis(flat, known.argmax(0)[None], 0)[0].reshape(
        x.shape[1:]
    )  # the first row's, if none is known
    filled = np.where(where, first, np.asarray(x))
    coding = coding_of(raw)
    return {**fields, "x": filled if coding is None else Prepared(filled, coding)}, missing
