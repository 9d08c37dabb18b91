"""Tables of other libraries (pandas, polars, Arrow): numbers in by the names of columns, and tables out.

narwhals reads and makes them, so none of these libraries is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppdgm.errors import DataError, listed
from ppdgm.language.native import Array

Frame = Any  # a table of any of these libraries
_HOMES = ("pandas", "polars", "pyarrow", "modin", "cudf")


def is_frame(value: object) -> bool:
    """Whether it is a table with named columns.

    Raises:
        DataError: it is a table that is not computed yet.
    """
    home = type(value).__module__.partition(".")[0]
    if home == "polars" and hasattr(value, "collect"):
        raise DataError("Data: got a LazyFrame, which has no rows yet. Give frame.collect().")
    return home in _HOMES and hasattr(value, "columns") and hasattr(value, "shape")


def columns_of(frame: Frame) -> tuple[str, ...]:
    """The names of the columns; none if they are not unique, because then they don't say which is which."""
    names = [str(n) for n in getattr(frame, "column_names", frame.columns)]  # Arrow's `columns` are arrays
    return tuple(names) if len(set(names)) == len(names) else ()


def by_number(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of a site [N, *event] as columns: "z[0]", "z[1]", …; "z" alone if a row has one number."""
    if value.ndim == 1:
        return {name: value}
    flat = value.reshape(len(value), -1)
    places = [",".join(map(str, at)) for at in np.ndindex(*value.shape[1:])]
    return {f"{name}[{place}]": flat[:, i] for i, place in enumerate(places)}


def sites_of(frame: Frame) -> dict[str, np.ndarray]:
    """The arrays [N, *event] of which `by_number` made the columns, whatever their order.

    Raises:
        DataError: a number is missing, such as "z[1]" beside "z[0]" and "z[2]"; or names are not unique.
    """
    names, arrays = columns_of(frame), arrays_of(frame)
    if len(names) != len(arrays):
        raise DataError("z: got a table with two columns of one name. Give each its own, as encode does.")
    parts: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for name, array in zip(names, arrays, strict=True):
        site, bracket, places = name.removesuffix("]").partition("[")
        at = tuple(map(int, places.split(","))) if bracket and re.fullmatch(r"\d+(,\d+)*", places) else ()
        parts.setdefault(site if at else name, {})[at] = array
    found = {}
    for site, columns in parts.items():
        if len({len(at) for at in columns}) > 1:
            raise DataError(f"z: got a table whose columns of {site!r} are places of different shapes.")
        shape = tuple(np.max(list(columns), axis=0) + 1)
        if lost := [at for at in np.ndindex(shape) if at not in columns]:
            raise DataError(f"z: got a table without the column {site}[{','.join(map(str, lost[0]))}].")
        found[site] = np.stack([columns[at] for at in np.ndindex(shape)], -1).reshape(-1, *shape)
    return found


def like(frame: Frame, columns: Mapping[str, Array]) -> Frame:
    """A table of the same library, with other columns, and the same index if there is one."""
    import narwhals

    table = narwhals.from_native(frame, eager_only=True)
    made = narwhals.from_dict(dict(columns), backend=table.implementation).to_native()
    if (index := narwhals.maybe_get_index(table)) is not None:
        made.index = index
    return made


def arrays_of(frame: Frame) -> list[np.ndarray]:
    """The columns as arrays; by place, because pandas allows two of one name."""
    if hasattr(frame, "iloc"):
        return [np.asarray(frame.iloc[:, i]) for i in range(frame.shape[1])]
    import narwhals

    return [np.asarray(c.to_numpy()) for c in narwhals.from_native(frame, eager_only=True).iter_columns()]


def in_order(name: str, names: Sequence[str], values: list[np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
    """The wanted columns.

    Raises:
        DataError: some are missing, or the table has others.
    """
    lost, more = [n for n in wanted if n not in names], [n for n in names if n not in wanted]
    if lost and len(lost) == len(wanted):
        raise DataError(
            f"Data {name!r}: got a table with the columns {listed(map(repr, names))}, but the run's are "
            f"{listed(map(repr, wanted))}. If they mean the same, in this order, give an array: frame.to_numpy()."
        )
    if lost:
        raise DataError(
            f"Data {name!r}: got a table without the run's column {lost[0]!r}. Its columns are "
            f"{listed(map(repr, names))}."
        )
    if more:
        raise DataError(
            f"Data {name!r}: got a table with the column {more[0]!r}, which the run does not have. Choose the run's "
            "columns: frame[list(fit.transform.columns)]."
        )
    return [values[names.index(n)] for n in wanted]
