"""Which transform data need."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ppdgm.data.checks import pieces, refuse_where
from ppdgm.data.stream import Stream
from ppdgm.data.transform import Transform
from ppdgm.errors import DataError

_BYTE, _WORD = 2.0**8 - 1, 2.0**16 - 1  # the largest numbers of 8 and of 16 bits


def choose_scale(arrays: list[np.ndarray]) -> str:
    """For images of whole numbers that are not already black and white, "unit"; otherwise "none"."""
    bytes_only = all(a.dtype == np.uint8 for a in arrays)
    if not all(a.dtype.kind in "iu" for a in arrays) or not (bytes_only or arrays[0].ndim >= 3):
        return "none"
    low, high = extremes(arrays, 2)
    return "unit" if low >= 0 and 1 < high <= (_WORD if _of_words(arrays) else _BYTE) else "none"


def _of_words(arrays: list[np.ndarray]) -> bool:
    """Whether there are numbers of 16 bits among them, in either byte order."""
    return any(a.dtype.newbyteorder("=") == np.uint16 for a in arrays)


def fit_transform(scale: str, arrays: list[np.ndarray], train: Stream, gaps: bool = False) -> Transform:
    """The transform of a scale.

    Args:
        scale: "none", "unit", "levels" or "standardise".
        arrays: all raw x.
        train: the raw training data.
        gaps: whether NaN is a missing number, which "standardise" leaves out.

    Raises:
        DataError: numbers that can't be scaled in this way.
    """
    if scale == "none":
        return Transform()
    if scale == "standardise":
        return _standardise(train, gaps)
    for array in arrays:
        bad = lambda c: ~(np.isfinite(c) & (c >= 0))
        if array.dtype.kind not in "ub":
            refuse_where("x", array, bad, f"numbers of at least 0 for scale={scale!r}")
    return _unit(arrays) if scale == "unit" else _levels(arrays)


def _unit(arrays: list[np.ndarray]) -> Transform:
    _, top = extremes(arrays, 2)
    if all(a.dtype.kind in "iu" for a in arrays):
        if 1 < top <= _BYTE:
            return Transform("unit", _BYTE)
        if _of_words(arrays) and _BYTE < top <= _WORD:
            return Transform("unit", _WORD)
    return Transform("unit", top or 1.0)


def _levels(arrays: list[np.ndarray]) -> Transform:
    if arrays[0].dtype.kind == "f" and extremes(arrays)[1] <= 1:
        return Transform("levels", 1 / 255)
    for array in arrays:
        bad = lambda c: (c > 255) | (c != np.rint(c))
        if array.dtype != np.uint8:
            refuse_where("x", array, bad, "whole numbers 0..255, or numbers in [0, 1], for scale='levels'")
    return Transform("levels", 1.0)


def extremes(arrays: Iterable[np.ndarray], enough: float = np.inf) -> tuple[float, float]:
    """Smallest and largest number; for unsigned bytes, a number of at least `enough` ends the search in an array."""
    low, high = np.inf, -np.inf
    for array in arrays:
        for _, chunk in pieces(array):
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
            if array.dtype == np.uint8 and chunk.max() >= enough:
                low, high = min(low, 0.0), max(high, _BYTE)
                break
    return low, high


def _standardise(train: Stream, gaps: bool) -> Transform:
    """Mean and standard deviation per dimension, in one pass; a constant dimension has scale 1.

    If a dimension varies so little that its variance is not a normal float64, it is refused: it is not constant.

    Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115.
    """
    first = train[0].astype(np.float64)  # numbers are counted from it, so that constant ones stay exactly constant
    first = np.where(np.isnan(first), 0.0, first)
    count, mean, squares = np.zeros_like(first), np.zeros_like(first), np.zeros_like(first)
    low, high = np.full(first.shape, np.inf), np.full(first.shape, -np.inf)
    with np.errstate(all="ignore"):
        for index in train.chunks():
            x = train[index] - first
            low, high = np.fmin(low, np.fmin.reduce(x)), np.fmax(high, np.fmax.reduce(x))
            there = ~np.isnan(x)  # NaN is a missing number, if it was not refused
            n = there.sum(0)
            own = np.where(there, x, 0.0).sum(0) / np.maximum(n, 1)
            shift = np.where(n > 0, own - mean, 0.0)
            total = np.maximum(count + n, 1)
            squares += np.where(there, (x - own) ** 2, 0.0).sum(0) + shift**2 * (count * n / total)
            count, mean = count + n, mean + shift * (n / total)
        mean, scale = first + mean, np.sqrt(squares / np.maximum(count, 1))
        constant = ~(low < high)
        tiny = ~constant & ~(squares / np.maximum(count, 1) >= np.finfo(np.float64).tiny)
    if not gaps and (count < len(train)).any():
        refuse_where("x", train.array, lambda c: ~np.isfinite(c), "finite numbers")
    if not (np.isfinite(mean) & np.isfinite(scale)).all():
        refuse_where("x", train.array, lambda c: ~np.isfinite(c), "finite numbers")
        raise DataError("Data 'x': got numbers whose variance is too large for float64. Scale them down first.")
    if tiny.any():
        at = ", ".join(map(str, (":", *map(int, np.argwhere(tiny)[0]))))
        raise DataError(f"Data 'x': got x[{at}], whose variance is too small for float64. Scale it up first.")
    return Transform("standardise", 1.0, mean, np.where(constant, 1.0, scale))
