"""Checks that refuse arrays, with the place of the mistake; large arrays are read chunk by chunk."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from ppdgm.data.kinds import as_numbers
from ppdgm.data.stream import CHUNK_BYTES, Stream, is_sparse
from ppdgm.data.transform import STEPS
from ppdgm.errors import DataError
from ppdgm.language.vocabulary import Array


def refuse_where(
    name: str, array: np.ndarray | Stream, bad: Callable[[np.ndarray], np.ndarray], expected: str, missing: str = ""
) -> None:
    """Refuse an array or a Stream that has bad numbers.

    Args:
        name: of the field.
        array: [N, …].
        bad: for some rows, whether each number is bad.
        expected: in words.
        missing: what to do if the first bad number is NaN.

    Raises:
        DataError: with the index of the first bad number, and the number of rows that have one.
    """
    count: int = 0
    value: Array = None
    first: tuple[int, ...] = (array.shape[0],)
    for index, chunk in pieces(array):
        if (mask := bad(chunk)).any():
            count += int(mask.reshape(len(chunk), -1).any(1).sum())
            at = tuple(int(i) for i in np.argwhere(mask)[0])
            if index[at[0]] < first[0]:
                first, value = (int(index[at[0]]), *at[1:]), chunk[at]
    if count:
        raise DataError(
            f"Data {name!r}: got {value} at index {first}, expected {expected}. "
            f"{count} of {array.shape[0]} rows are affected." + (f" {missing}" if missing and np.isnan(value) else "")
        )


def pieces(array: np.ndarray | Stream) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices, ascending, and the rows there; each piece has a limited number of bytes."""
    if isinstance(array, Stream) or is_sparse(array):
        stream = array if isinstance(array, Stream) else Stream(array, dtype=array.dtype)
        return ((index, stream[index]) for index in stream.chunks())
    step = max(1, CHUNK_BYTES // max(array[:1].size * 8, 1))
    starts = range(0, len(array), step)
    return ((np.arange(i, min(i + step, len(array))), array[i : i + step]) for i in starts)


def check_array(name: str, array: np.ndarray) -> None:
    """Refuse data that are not an array of numbers with rows.

    Raises:
        DataError: text, no rows, or empty data.
    """
    check_rows_of_numbers(name, as_numbers(name, array))


def check_rows_of_numbers(name: str, array: np.ndarray | Stream) -> None:
    """Refuse numbers without rows.

    Raises:
        DataError: a single number, or no rows.
    """
    if array.ndim == 0:
        raise DataError(f"Data {name!r}: got the single number {array[()]}, expected an array of rows.")
    if 0 in array.shape:
        raise DataError(f"Data {name!r}: got an empty array of shape {array.shape}, expected at least one row.")


def check_fits(size: int, where: str, advice: str) -> None:
    """Refuse data that do not fit into this machine's memory.

    Raises:
        DataError: with both sizes, and advice.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # this system does not report it
        return
    if size > there:
        raise DataError(f"{where} needs {size / 2**30:.1f} GiB, but this machine has {there / 2**30:.1f} GiB. {advice}")


def check_resolution(name: str, array: np.ndarray | Stream, kind: np.dtype, training: bool) -> None:
    """Refuse columns whose spread is too small for the steps of a floating type near their numbers: s < 100 steps.

    Rounding then adds less than (0.003 s)² to the variance. Data that are only evaluated need not have the spread of
    the training data, so for them there is only a warning.

    Args:
        name: of the field.
        array: [N, …], or a Stream, of wider numbers.
        kind: the type that they will have.
        training: whether they will be trained on.

    Raises:
        DataError: with the first such column.
    """
    with np.errstate(all="ignore"):  # numbers that are not finite are reported elsewhere
        step, spread = _spread(array, np.dtype(kind))
    bad = (spread > 0) & (spread < STEPS * step)
    if not bad.any():
        return
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    column = f", column {', '.join(map(str, first))}" if first else ""
    told = (
        f"Data {name!r}{column}: got numbers with a standard deviation of {spread[first]:.3g}, but {kind} has steps "
        f"of {step[first]:.3g} there: rounding would change them. Use scale='standardise' in load_data, subtract "
        f"the mean yourself, or train with dtype='float64'. {int(bad.sum())} of {bad.size} columns are affected."
    )
    if training:
        raise DataError(told)
    warnings.warn(told, stacklevel=2)


def _spread(array: np.ndarray | Stream, kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """For each column, the distance between the type's numbers at the largest number, and the standard deviation.

    The standard deviation is computed where it can be small: s ≥ (max − min) / √(2N); elsewhere this bound is returned.
    """
    ends = [(np.fmin.reduce(c), np.fmax.reduce(c)) for _, c in pieces(array)]  # without NaN, which is missing
    low, high = (np.asarray(f.reduce([e[i] for e in ends]), float) for i, f in enumerate((np.fmin, np.fmax)))
    step = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(kind)).astype(float)
    spread = np.asarray((high - low) / np.sqrt(2 * len(array)))
    close = (spread > 0) & (spread < STEPS * step)
    if close.any():
        count, total, squares = 0.0, 0.0, 0.0
        for _, c in pieces(array):
            x = c.reshape(len(c), *low.shape)[:, close] - low[close]
            there = ~np.isnan(x)
            x = np.where(there, x, 0.0)
            count, total, squares = count + there.sum(0), total + x.sum(0), squares + (x**2).sum(0)
        spread[close] = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0))
    return step, spread
