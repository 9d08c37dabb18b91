"""What is refused of arrays, saying where; large ones are read chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ppdgm.data.stream import CHUNK_BYTES, Stream
from ppdgm.errors import DataError


def refuse_where(name: str, array: Any, bad: Callable[[np.ndarray], np.ndarray], expected: str) -> None:
    """Refuse an array or a Stream of which some numbers are bad.

    Raises:
        DataError: with the index of the first bad number, and how many data have one.
    """
    count, value = 0, None
    first: tuple[int, ...] = (len(array),)
    for index, chunk in pieces(array):
        if (mask := bad(chunk)).any():
            count += int(mask.reshape(len(chunk), -1).any(1).sum())
            at = tuple(int(i) for i in np.argwhere(mask)[0])
            if index[at[0]] < first[0]:
                first, value = (int(index[at[0]]), *at[1:]), chunk[at]
    if count:
        raise DataError(
            f"Data {name!r}: got {value} at index {first}, expected {expected}. "
            f"{count} of {len(array)} data are affected."
        )


def pieces(array: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices, ascending, and the data there, a bounded number of bytes at a time."""
    if isinstance(array, Stream):
        return ((index, array[index]) for index in array.chunks())
    step = max(1, CHUNK_BYTES // max(array[:1].size * 8, 1))
    starts = range(0, len(array), step)
    return ((np.arange(i, min(i + step, len(array))), array[i : i + step]) for i in starts)


def check_array(name: str, array: np.ndarray) -> None:
    """Refuse what is no array of numbers with rows.

    Raises:
        DataError: text, no rows, or empty data.
    """
    if array.dtype.kind not in "fbiu":
        kind = "text" if array.dtype.kind in "US" else f"{array.dtype}"
        raise DataError(f"Data {name!r}: got {kind}, expected real numbers.")
    if array.ndim == 0:
        raise DataError(
            f"Data {name!r}: got the single number {array[()]}, expected an array with a row for each datum."
        )
    if array.size == 0:
        raise DataError(f"Data {name!r}: got an empty array of shape {array.shape}, expected at least one datum.")


def check_fits(size: int, where: str, advice: str) -> None:
    """Refuse what can't be held in this machine's memory.

    Raises:
        DataError: with both sizes, and advice.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told by this system
        return
    if size > there:
        raise DataError(f"{where} takes {size / 2**30:.1f} GiB, this machine has {there / 2**30:.1f} GiB. {advice}")
