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


def names_of(frame: Frame) -> list[str]:
    """The names of the columns."""
    return [str(n) for n in getattr(frame, "column_names", frame.columns)]  # Arrow's `columns` are arrays


def columns_of(frame: Frame) -> tuple[str, ...]:
    """The names of the columns; none if they are not unique, because then they don't say which is which."""
    names = names_of(frame)
    return tuple(names) if len(set(names)) == len(names) else ()


def repeated(names: Sequence[str]) -> str | None:
    """The first name that two columns have."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def index_of(frame: Frame) -> tuple[np.ndarray | None, str]:
    """The names of the rows that a table of pandas has, and the name of its index; None if rows are only counted."""
    if written := _index_names(frame):  # by pandas, into an Arrow table
        columns = [frame.column(n).to_pylist() for n in written]
        name = "" if len(written) > 1 or written[0].startswith("__index_level_") else written[0]
        return _as_names(list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0]), name
    index = getattr(frame, "index", None) if hasattr(frame, "iloc") else None
    if index is None or (type(index).__name__ == "RangeIndex" and index.name is None):
        return None, ""
    return _as_names(index.tolist()), "" if index.name is None else str(index.name)


def without_index(frame: Frame) -> Frame:
    """The table without the index that pandas wrote into an Arrow table."""
    names = _index_names(frame)
    return frame.drop_columns(names) if names else frame


def without_column(frame: Frame, name: str) -> Frame:
    """The table without a column, if it has it."""
    if not name or name not in names_of(frame):
        return frame
    if hasattr(frame, "iloc"):
        return frame.loc[:, [str(n) != name for n in frame.columns]]
    return frame.drop_columns([name]) if hasattr(frame, "column_names") else frame.drop(name)


def _as_names(values: Sequence[object]) -> np.ndarray:
    whole = all(isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**63 for v in values)
    return np.array(values, np.int64) if whole else np.array([str(v) for v in values])


def _index_names(frame: Frame) -> list[str]:
    """The columns of an Arrow table that, as pandas' own metadata say, are its index."""
    found = getattr(getattr(frame, "schema", None), "pandas_metadata", None) or {}
    return [n for n in found.get("index_columns", []) if isinstance(n, str) and n in frame.column_names]


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


def like(frame: Frame, columns: Mapping[str, Array], index: str = "") -> Frame:
    """A table of the same library, with other columns, and the same names of rows if there are any.

    Args:
        frame: the table.
        columns: of the new one.
        index: the column that names the rows; it becomes the index of a pandas table, and the first column of others.
    """
    import narwhals

    table = narwhals.from_native(frame, eager_only=True)
    its = names_of(frame).index(index) if index and index in names_of(frame) else None
    if its is not None and not hasattr(frame, "iloc"):
        columns = {index: array_at(frame, its), **columns}
    made = narwhals.from_dict(dict(columns), backend=table.implementation).to_native()
    if its is not None and hasattr(frame, "iloc"):
        made.index = frame.iloc[:, its]
    elif (own := narwhals.maybe_get_index(table)) is not None:
        made.index = own
    return made


def made(columns: Mapping[str, Array], library: str) -> Frame | None:
    """A table of this library, or, for "any" or one that is not installed, of the first that is; None without any."""
    from importlib.util import find_spec

    homes = [h for h in (library, "pandas", "polars", "pyarrow") if h in _HOMES and find_spec(h) is not None]
    if not homes:
        return None
    import narwhals

    return narwhals.from_dict(dict(columns), backend=homes[0]).to_native()


def arrays_of(frame: Frame) -> list[np.ndarray]:
    """The columns as arrays; by place, because pandas allows two of one name."""
    if hasattr(frame, "iloc"):
        return [np.asarray(frame.iloc[:, i]) for i in range(frame.shape[1])]
    import narwhals

    return [np.asarray(c.to_numpy()) for c in narwhals.from_native(frame, eager_only=True).iter_columns()]


def array_at(frame: Frame, place: int) -> np.ndarray:
    """One column, by place, as an array."""
    column = _column(frame, place)
    return np.asarray(column if hasattr(frame, "iloc") else column.to_numpy())


def list_at(frame: Frame, place: int) -> list[object]:
    """One column, by place, as Python's values."""
    column = _column(frame, place)
    found: list[object] = column.to_pylist() if hasattr(column, "to_pylist") else column.to_list()
    return found


def _column(frame: Frame, place: int) -> Any:
    if hasattr(frame, "iloc"):
        return frame.iloc[:, place]
    return frame.column(place) if hasattr(frame, "column_names") else frame.to_series(place)  # Arrow, polars


def in_order(name: str, names: Sequence[str], values: list[np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
    """The wanted columns.

    Raises:
        DataError: some are missing, or the table has others.
    """
    if (name_twice := repeated(names)) is not None:
        raise DataError(
            f"Data {name!r}: got a table with several columns {name_twice!r}, so that names do not say which is which. "
            "Give each its own name; or give an array, frame.to_numpy(), whose columns are in the order of the run's."
        )
    places, known = {n: i for i, n in enumerate(names)}, set(wanted)
    lost, more = [n for n in wanted if n not in places], [n for n in names if n not in known]
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
    return [values[places[n]] for n in wanted]
