"""Results of each row as a table of the library that the data came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data import Transform
from ppdgm.data.column import Column
from ppdgm.data.frames import Frame, by_number, is_frame, like, made
from ppdgm.data.mixed import typed_columns

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data

Sites = np.ndarray | dict[str, np.ndarray]


def framed(
    data: Data,
    sites: Mapping[str, np.ndarray],
    columns: tuple[str, ...] = (),
    index: str = "",
    table: Sequence[Column] = (),
) -> Sites | Frame:
    """A table with the index of the data's table; arrays if the data have none, or if a site has no value of each row.

    Args:
        data: of a user.
        sites: arrays [N, *event] by name.
        columns: names for the numbers of a site with as many of them.
        index: the column of the data's table that names the rows.
        table: the meaning of these columns, for a table with names and dates.
    """
    named = data if isinstance(data, Mapping) else {"x": data}
    frame = next((v for v in named.values() if is_frame(v)), None)
    if frame is None or any(np.ndim(v) == 0 or len(v) != len(frame) for v in sites.values()):
        return next(iter(sites.values())) if len(sites) == 1 else dict(sites)
    found: dict[str, np.ndarray] = {}
    for name, value in sites.items():
        wide = columns and value.shape[1:] == (len(columns),)
        if wide and table:
            found |= typed_columns(table, value)
        else:
            found |= dict(zip(columns, value.T, strict=True)) if wide else by_number(name, value)
    return like(frame, found, index)


def as_frame(coding: Transform | None, own: Sites) -> Sites | Frame:
    """Drawn rows of a run's table, in the user's own values, as a table of the library of its data.

    Without such a library, or if the run's data were no table, they stay an array.
    """
    if coding is None or not coding.library or not isinstance(own, np.ndarray):
        return own
    found = made(typed_columns(coding.table, own), coding.library) if own.ndim == 2 else None
    return own if found is None else found
