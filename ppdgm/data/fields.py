"""Data as named fields, in memory or streamed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np

from ppdgm.data.checks import check_resolution, check_rows_of_numbers, refuse_where
from ppdgm.data.classes import UNLABELLED, as_labels
from ppdgm.data.dataset import Dataset
from ppdgm.data.kinds import as_numbers, numbers
from ppdgm.data.stream import Stream, is_sparse
from ppdgm.errors import DataError, one_of
from ppdgm.language.native import Array

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data

Fields = dict[str, Array]  # values are arrays [N, …] and Streams
Use = Literal["train", "judge", "look"]
_NO_LABEL = "A missing label is −1, for a program that accepts missing labels: np.where(np.isnan(label), -1, label)."
_MISSING = (
    "If numbers are missing, train a program with likelihood=Table(), which takes tables of all kinds with missing "
    "entries; or fill them in, or leave out these rows or columns. For your own model, you can also give a mask of the "
    "observed numbers as another field: {'x': filled, 'mask': there} and dist.mask(mask)."
)


class BadRows(Protocol):
    """The error for some rows."""

    index: tuple[int, ...]
    bad: int

    def moved(self, row: int, bad: int, size: int) -> DataError: ...


def as_fields(data: Data | Dataset, dtype: str = "float32", use: Use = "look", typed: bool = False) -> Fields:
    """Data as named arrays; a single one is `x`. Booleans and `x` become floating; other whole numbers become signed.

    Streams stay Streams, and memory-mapped arrays become Streams: nothing of them is kept in memory. Sparse matrices
    become Streams too: only the rows of a minibatch are dense.

    Args:
        data: arrays.
        dtype: "float32" or "float64".
        use: the purpose. Columns whose spread `dtype` can't hold are refused to "train", and warned about to "judge".
        typed: whether all booleans and integers keep their type, as in a plain pair's data: masks, and indices.

    Raises:
        DataError: no numbers, no rows, fields of different lengths, or numbers that `dtype` can't hold.
    """
    one_of("dtype", dtype, ("float32", "float64"))
    if isinstance(data, Dataset):
        raise DataError(f"Data: got {data!r}, expected one of its splits, such as data.train.")
    named = data if isinstance(data, Mapping) else {"x": data}
    fields = {name: _field(name, value, dtype, use, typed) for name, value in named.items()}
    sizes = {n: len(a) for n, a in fields.items()}
    if not sizes or len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise DataError(f"Data: got fields of {sizes or 'no'} rows, expected the same number in each, at least one.")
    return fields


def _field(name: str, value: Array, dtype: str, use: Use, typed: bool) -> Array:
    value = Stream(as_numbers(name, value)) if is_sparse(value) else value
    lazy = isinstance(value, Stream | np.memmap)
    array: Array = as_numbers(name, value) if lazy else numbers(name, value)
    check_rows_of_numbers(name, array)
    if name == "label" and np.ma.isMaskedArray(value):
        array = np.where(np.ma.getmaskarray(value), UNLABELLED, array)
    elif np.ma.is_masked(value):
        missing = int(np.ma.getmaskarray(value).sum())
        raise DataError(
            f"Data {name!r}: got a masked array with {missing} missing numbers. Fill them in with "
            "x.filled(…), or leave out their rows."
        )
    array = array if lazy else as_labels(name, array)
    floating = array.dtype.kind == "f" or (not typed and (array.dtype.kind == "b" or name == "x"))
    kind = np.dtype(dtype) if floating else _whole(array.dtype)
    if kind.kind == "i" and array.dtype == np.uint64:
        refuse_where(name, array, lambda c: c > np.uint64(2**63 - 1), "whole numbers below 2⁶³")
    if lazy:
        array = array if isinstance(array, Stream) else Stream(array, dtype=None if kind.kind == "f" else kind)
        _check_held(name, array, dtype, use)
        return array.astype(kind)
    with np.errstate(over="ignore"):  # too large for `dtype`: refused below
        cast = np.ascontiguousarray(array.astype(kind))
    if array.dtype.itemsize > kind.itemsize and array.dtype.kind == "f":
        refuse_where(
            name, array, lambda c: np.isfinite(c) & (np.abs(c) > np.finfo(kind).max), f"numbers that fit {kind}"
        )
    _check_held(name, array, dtype, use)
    return cast


def _whole(dtype: np.dtype) -> np.dtype:
    """The type of whole numbers on both backends: signed, as torch has little arithmetic on others, and 0 − 1 is −1.

    They have at least four bytes: a program computes with them, and 100 · 2 is not −56. Booleans stay.
    """
    if dtype.kind in "iu" and dtype.itemsize < 4:
        return np.dtype(np.int32)
    return np.dtype(np.int64) if dtype.kind == "u" else dtype.newbyteorder("=")


def _check_held(name: str, array: Array, dtype: str, use: Use) -> None:
    """Refuse numbers that `dtype` can't hold; whole numbers too, whatever a program does with them."""
    kind, size = np.dtype(dtype), array.dtype.itemsize
    if use != "look" and len(array) > 1 and (size > kind.itemsize or (array.dtype.kind in "iu" and size >= 4)):
        check_resolution(name, array, kind, use == "train")


def take(fields: Mapping[str, Array], index: slice | np.ndarray) -> dict[str, np.ndarray]:
    """The rows at an index (a slice, or whole numbers) of every field; of Streams, nothing else is read."""
    return {n: np.asarray(a[index] if isinstance(a, Stream) else np.asarray(a)[index]) for n, a in fields.items()}


def check_finite(fields: Mapping[str, Array], gaps: bool = False, may_miss: Collection[str] = ()) -> None:
    """Refuse fields with numbers that are not finite.

    Args:
        fields: arrays by name.
        gaps: whether NaN is a missing number, and not refused, except as a label.
        may_miss: fields in which NaN is allowed in any case: entries that are missing.

    Raises:
        DataError: with the index of the first such number, and the number of rows that have one.
    """
    for name, array in fields.items():
        if array.dtype.kind == "f":
            missing = _NO_LABEL if name.startswith("label") else _MISSING
            allowed = name in may_miss or (gaps and not name.startswith("label"))
            bad = np.isinf if allowed else lambda c: ~np.isfinite(c)
            refuse_where(name, array, bad, "finite numbers", missing)


def check_rows(check: Callable[[dict[str, np.ndarray]], None], fields: Mapping[str, Array], rows: int = 8192) -> None:
    """Call `check` with data in memory: with all of them, or chunk by chunk if some are streamed.

    Args:
        check: raises a DataError for data that it refuses (`Program.check`).
        fields: arrays and Streams.
        rows: the most rows in a chunk.

    Raises:
        DataError: the one that `check` raised; its index and count are those in the whole set.
    """
    streams = [a for a in fields.values() if isinstance(a, Stream)]
    if not streams:
        return check(dict(fields))
    widest = max(streams, key=lambda s: int(np.prod(s.shape[1:])))
    first: BadRows | None = None
    count, at = 0, len(widest)
    for index in widest.chunks(rows):
        try:
            check(take(fields, index))
        except DataError as error:
            refused = cast(BadRows, error)  # which has `moved`, if it is one
            if not hasattr(refused, "moved"):  # not some of the rows, but their shape, for example
                raise
            count += refused.bad
            row = int(index[refused.index[0]])
            if row < at:
                first, at = refused, row
    if first is not None:
        raise first.moved(at, count, len(widest))
