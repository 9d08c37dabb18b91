"""Results of each row as a table of the library that the data came in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.frames import Frame, by_number, is_frame, like

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data

Sites = np.ndarray | dict[str, np.ndarray]


def framed(
    data: Data, sites: Mapping[str, np.ndarray], columns: tuple[str, ...] = (), index: str = ""
) -> Sites | Frame:
    """A table with the index of the data's table; arrays if the data have none, or if a site has no value of each row.

    Args:
        data: of a user.
        sites: arrays [N, *event] by name.
        columns: names for the numbers of a site with as many of them.
        index: the column of the data's table that names the rows.
    """
    named = data if isinstance(data, Mapping) else {"x": data}
    frame = next((v for v in named.values() if is_frame(v)), None)
    if frame is None or any(np.ndim(v) == 0 or len(v) != len(frame) for v in sites.values()):
        return next(iter(sites.values())) if len(sites) == 1 else dict(sites)
    found: dict[str, np.ndarray] = {}
    for name, value in sites.items():
        wide = columns and value.shape[1:] == (len(columns),)
        found |= dict(zip(columns, value.T, strict=True)) if wide else by_number(name, value)
    return like(frame, found, index)
