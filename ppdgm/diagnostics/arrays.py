"""Checks of the arrays that diagnostics get, and loops over blocks of large arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ppdgm.errors import DataError, require, shown

BLOCK_BYTES = 2**24  # bytes of float64 in one block
_LARGEST = 1e100  # above it squares overflow
_ULPS = 256  # sums of a few hundred rounded terms stay below it; 0.003 nats for a log-weight of 100 in float32
NO_MATTER = 0.01  # nats; a larger spread is reported, even if rounding could be its cause


@dataclass(frozen=True)
class Measured:
    """A number that was estimated from draws.

    Attributes:
        value: the estimate.
        error: its Monte Carlo standard error; NaN if the draws don't give it.
    """

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f}" if np.isnan(self.error) else f"{self.value:.3f} ± {self.error:.3f}"


def as_array(name: str, value: object) -> np.ndarray:
    """The value as a NumPy array.

    Raises:
        DataError: NumPy can't convert it.
    """
    try:
        return np.asarray(value)
    except Exception as error:  # ragged lists, tensors with a gradient or on a device: each library has its own
        told = str(error).partition("\n")[0]
        raise DataError(f"{name}: got {shown(value)}, which NumPy can't read ({told}). Give an array.") from None


def checked(name: str, value: object, axes: str, zero_weight: bool = False, kinds: str = "fbiu") -> np.ndarray:
    """An array of numbers with the given axes, in its own type.

    Args:
        name: the name for messages.
        value: an array, or something that NumPy converts to one.
        axes: the names of the axes, such as "K N"; "N …" for any number of axes after the first.
        zero_weight: whether −∞ is allowed, the logarithm of a weight of 0.
        kinds: the kinds of NumPy types that are allowed.

    Raises:
        DataError: the array has other axes, an empty axis, no numbers, or numbers that are not finite.
    """
    array, names = as_array(name, value), axes.split()
    fixed = [n for n in names if n != "…"]
    if array.dtype.kind not in kinds:
        what = "real numbers" if "f" in kinds else "whole numbers"
        raise DataError(f"{name}: got {array.dtype}, expected {what}, [{', '.join(names)}].")
    if array.ndim < len(fixed) or (array.ndim > len(fixed) and "…" not in names) or array.size == 0:
        empty = "an empty array" if array.size == 0 else "an array"
        raise DataError(f"{name}: got {empty} of shape {array.shape}, expected [{', '.join(names)}].")
    if array.dtype.kind == "f":
        _check_finite(name, array, names, zero_weight)
    return array


def _check_finite(name: str, array: np.ndarray, names: list[str], zero_weight: bool) -> None:
    most = min(_LARGEST, float(np.finfo(array.dtype).max))
    if -most <= float(array.min()) and float(array.max()) <= most:  # no copy is made; false for NaN
        return
    fine = (array >= -most) & (array <= most)
    if zero_weight:
        fine |= array == -np.inf
    if fine.all():
        return
    at = tuple(int(i) for i in np.argwhere(~fine)[0])
    or_zero = ", or −inf for a weight of 0" if zero_weight else ""
    raise DataError(
        f"{name}: got {array[at]} at index {at} of [{', '.join(names)}], expected finite numbers up to "
        f"{_LARGEST:g}{or_zero}. {fine.size - int(fine.sum())} of {array.size} are not."
    )


def float64(name: str, value: object, axes: str, zero_weight: bool = False) -> np.ndarray:
    """As `checked`, in float64."""
    return np.asarray(checked(name, value, axes, zero_weight), dtype=np.float64)


def same_shape(**arrays: np.ndarray) -> None:
    """Refuse arrays that don't all have the same shape.

    Raises:
        DataError: shapes differ; the message names the first that does.
    """
    (first, like), *others = arrays.items()
    for name, array in others:
        if array.shape != like.shape:
            raise DataError(f"{name}: got shape {array.shape}, expected {like.shape}, the shape of {first}.")


def over_data(array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of [K, N] along N, in float64, each with its slice."""
    step = max(1, BLOCK_BYTES // (8 * array.shape[0]))
    for start in range(0, array.shape[1], step):
        where = slice(start, min(start + step, array.shape[1]))
        yield where, np.asarray(array[:, where], dtype=np.float64)


def check_share(name: str, value: float, what: str) -> None:
    """Refuse anything that isn't a number between 0 and 1; 0 and 1 themselves are refused too.

    Raises:
        PpdgmError: the value is refused; the message shows it.
    """
    require(name, value, (float, np.floating), 0.0, f"{what}, between 0 and 1")
    if not 0 < value < 1:
        raise DataError(f"{name}: got {value}; expected {what}, between 0 and 1.")


def log_sum_exp(terms: np.ndarray) -> np.ndarray:
    """log Σ exp over the first axis; −∞ if all terms are −∞."""
    top = terms.max(0)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(terms - top).sum(0)) + top


def standard_error(values: np.ndarray) -> float:
    """The standard error of the mean of independent values; NaN for a single value."""
    with np.errstate(invalid="ignore"):
        return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def rounding(terms: np.ndarray) -> np.ndarray:
    """Nats up to which terms [K, n] count as equal over their first axis, [n]: rounding, but at most 0.01.

    Values that float32 represents exactly are taken as computed in float32, whatever their type is.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = (terms.astype(np.float32) == terms).all(0)
        size = np.abs(np.where(np.isfinite(terms), terms, 0.0)).max(0)
    unit = np.where(single, np.finfo(np.float32).eps, np.finfo(np.float64).eps)
    return np.minimum(_ULPS * unit * np.maximum(size, 1.0), NO_MATTER)


def some_rows(size: int, most: int, seed: int = 0) -> np.ndarray:
    """Indices of at most `most` of `size` rows, in order. The choice is random: the first rows may be of one class."""
    if size <= most:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, most, replace=False))
