"""Tables of mixed columns: which kind each column is, and rows as numbers and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppdgm.data.column import Column, as_date, as_number, cells_of, class_name
from ppdgm.data.frames import Frame, arrays_of, columns_of, in_order, is_frame
from ppdgm.errors import DataError, nearest
from ppdgm.language.native import Array
from ppdgm.models.likelihoods.table_columns import WITH_LEVELS, read_kind

MOST_CLASSES, MOST_LEVELS, MOST_COUNT, MANY_TIMES = 100, 10, 1000, 10.0


def learn_columns(table: Frame | Array, told: Sequence[str] = (), names: Sequence[str] = ()) -> tuple[Column, ...]:
    """The columns of a table, with the kind that each has by these rules, in their order:

    - text is "categorical(K)", with classes in alphabetical order ("binary" for two); categories that the table says
      are ordered are "ordinal(K)";
    - dates, or text such as 2024-01-31, are "date": days since the first;
    - truth values, and numbers that are only 0 and 1, are "binary";
    - whole numbers from 1 to K, each of which occurs, with 3 ≤ K ≤ 10, are "ordinal(K)";
    - whole numbers from 0 to at most 1,000 are "count";
    - positive numbers, the largest of which is more than 10 times the smallest, are "positive";
    - other numbers are "real".

    Missing entries (NaN, None, NA, NaT, and cells that are empty, "NA" or "?") are not looked at.

    Args:
        table: of pandas, polars or Arrow; or an array [N, D] of numbers or Python objects.
        told: kinds that are known: "age: count" for a column by name, or one for every column in order. Of
            "ordinal" and "categorical", the levels may be left out: "zone: categorical".
        names: of an array's columns; by default their numbers.

    Raises:
        DataError: a column has no entries, only one class, or hardly two rows of one class; a name is unknown.
    """
    values, found_names, ordered = read_columns(table, names)
    kinds = [read_kind(text) for text in told]
    unnamed = [k for k in kinds if not k.name]
    if unnamed and len(kinds) != len(values):
        raise DataError(
            f"Table.columns: got {len(kinds)} kinds for {len(values)} columns. Give one for each, or name the columns "
            "that you choose yourself: 'age: count'."
        )
    if wrong := [k.name for k in kinds if k.name and k.name not in found_names]:
        raise DataError(f"Table.columns: the data have no column {wrong[0]!r}. {nearest(wrong[0], found_names)}")
    by_name = {k.name: k for k in kinds if k.name}
    chosen = [kinds[i] if unnamed and not kinds[i].name else by_name.get(n) for i, n in enumerate(found_names)]
    return tuple(
        _learn(name, cells_of(v), o, None if k is None else (k.kind, k.levels))
        for name, v, o, k in zip(found_names, values, ordered, chosen, strict=True)
    )


def read_columns(
    table: Frame | Array, names: Sequence[str] = ()
) -> tuple[list[np.ndarray], tuple[str, ...], list[tuple[str, ...]]]:
    """The columns' values, their names, and the classes in their order, for columns that are ordered categories."""
    if is_frame(table):
        found = columns_of(table)
        if not found:
            raise DataError("Data 'x': got a table with two columns of one name. Give each its own.")
        return arrays_of(table), found, [_order(table, i) for i in range(len(found))]
    array = np.asarray(table)
    if array.ndim != 2:
        raise DataError(f"Data 'x': got an array of shape {array.shape}, expected a table of rows and columns.")
    found = tuple(names) or tuple(map(str, range(array.shape[1])))
    return list(array.T), found, [()] * len(found)


def encode_table(columns: Sequence[Column], table: Frame | Array) -> np.ndarray:
    """Rows as numbers, [N, D] in float64, or as they are if they are numbers; a frame's columns are found by name.

    Raises:
        DataError: other columns, an unknown class, or a value of another type.
    """
    names = [c.name for c in columns]
    if is_frame(table):
        found = columns_of(table)
        values = in_order("x", found, arrays_of(table), names) if found else arrays_of(table)
    else:
        array = np.asarray(table)
        if array.dtype.kind in "fiub":
            return array
        values = list(array.T) if array.ndim == 2 else []
    if len(values) != len(columns):
        raise DataError(f"Data 'x': got {len(values)} columns, expected {len(columns)}, as in the training data.")
    return np.stack([c.encode(v) for c, v in zip(columns, values, strict=True)], -1)


def decode_table(columns: Sequence[Column], x: np.ndarray) -> np.ndarray:
    """Numbers [..., D] in the user's own values: an array of objects if some are names or dates."""
    if not any(c.changes for c in columns):
        return x
    found = np.empty(x.shape, object)
    for i, column in enumerate(columns):
        flat = column.decode(np.asarray(x[..., i], np.float64).reshape(-1))
        each = np.empty(flat.shape, object)
        each[:] = list(flat)
        found[..., i] = each.reshape(x.shape[:-1])
    return found


def typed_columns(columns: Sequence[Column], own: np.ndarray) -> dict[str, np.ndarray]:
    """Rows [N, D] in the user's own values as columns by name, each of its own type.

    Numbers of a column of whole numbers are whole, if all of them are.
    """
    found = {}
    for i, column in enumerate(columns):
        values = own[:, i]
        if column.origin:
            values = values.astype("M8[ms]")
        elif not (column.classes and column.text):
            values = values.astype(np.float64)
            if column.whole and np.isfinite(values).all() and (values == np.rint(values)).all():
                values = values.astype(np.int64)
        found[column.name] = values
    return found


def _order(frame: Frame, i: int) -> tuple[str, ...]:
    """The classes of an ordered categorical column of pandas, in their order."""
    kind: Any = frame.dtypes.iloc[i] if hasattr(frame, "iloc") else None
    return tuple(map(str, kind.categories)) if getattr(kind, "ordered", False) else ()


def _learn(name: str, cells: np.ndarray, ordered: tuple[str, ...], told: tuple[str, int] | None) -> Column:
    there = (
        cells[~np.isnan(cells)] if cells.dtype.kind == "f" else np.array([v for v in cells if v is not None], object)
    )
    if not len(there):
        raise DataError(f"Data 'x': column {name!r} has no entries. Leave it out.")
    if cells.dtype.kind == "f" or all(as_number(v) is not None for v in there.tolist()):
        return _of_numbers(name, np.array([as_number(v) for v in there.tolist()], np.float64), ordered, told)
    dates = [as_date(v) for v in there.tolist()]
    if (told is None or told[0] == "date") and all(d is not None for d in dates):
        first = min(d for d in dates if d is not None).astype("M8[D]")
        whole = all(d == d.astype("M8[D]") for d in dates if d is not None)
        return Column(name, "date", origin=str(first), whole=whole)
    if told is not None and told[0] not in (*WITH_LEVELS, "binary"):
        raise DataError(f"Data 'x': column {name!r} has text, such as {there[0]!r}, which can't be {told[0]!r}.")
    texts = sorted({class_name(v) for v in there.tolist()})
    if not ordered and (len(texts) > MOST_CLASSES or 2 * len(texts) > len(there) > MOST_LEVELS):
        raise DataError(
            f"Data 'x': column {name!r} has {len(texts)} different texts in {len(there)} rows, such as "
            f"{texts[0]!r}. Is it a name of each row? Leave it out."
        )
    return _of_classes(name, ordered or tuple(texts), bool(ordered), True, told)


def _of_numbers(name: str, values: np.ndarray, ordered: tuple[str, ...], told: tuple[str, int] | None) -> Column:
    if not np.isfinite(values).all():
        raise DataError(
            f"Data 'x': column {name!r} has infinite numbers, expected finite ones, or NaN for missing ones."
        )
    whole = bool((values == np.rint(values)).all())
    distinct = np.unique(values)
    kind, levels = told or _kind(values, distinct, whole, bool(ordered))
    if kind not in WITH_LEVELS:
        return Column(name, kind, whole=whole)
    from_zero = whole and distinct[0] >= 0 and distinct[-1] < max(levels, 2)
    if levels and from_zero and not ordered:  # already codes
        return Column(name, f"{kind}({levels})", whole=True)
    return _of_classes(
        name, ordered or tuple(class_name(v) for v in distinct.tolist()), kind == "ordinal", False, (kind, levels)
    )


def _kind(values: np.ndarray, distinct: np.ndarray, whole: bool, ordered: bool) -> tuple[str, int]:
    low, high = float(distinct[0]), float(distinct[-1])
    if ordered:
        return "ordinal", 0
    if whole and low >= 0 and high <= 1:
        return "binary", 0
    if whole and low == 1 and 3 <= high <= MOST_LEVELS and len(distinct) == high:
        return "ordinal", 0
    if whole and low >= 0 and high <= MOST_COUNT:
        return "count", 0
    return ("positive" if low > 0 and high > MANY_TIMES * low else "real"), 0


def _of_classes(name: str, classes: tuple[str, ...], ordered: bool, text: bool, told: tuple[str, int] | None) -> Column:
    if len(classes) < 2:
        raise DataError(f"Data 'x': column {name!r} has only the value {classes[0]!r}. Leave it out.")
    kind, levels = told or ("ordinal" if ordered else "binary" if len(classes) == 2 else "categorical", 0)
    if (kind == "binary" and len(classes) != 2) or (levels and levels != len(classes)):
        raise DataError(
            f"Data 'x': column {name!r} has {len(classes)} classes, but is {kind}{f'({levels})' if levels else ''}."
        )
    return Column(name, "binary" if kind == "binary" else f"{kind}({len(classes)})", classes, text)
