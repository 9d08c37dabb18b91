"""Arrays by group and variable, with names for their axes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import as_array
from ppdgm.errors import DataError, nearest, shown
from ppdgm.language.native import Array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_DATA = ("chain", "draw", "datum")
GROUPS: dict[str, tuple[str, ...]] = {  # the first axes of the arrays of a group
    "posterior": _DATA,
    "posterior_predictive": _DATA,
    "log_likelihood": _DATA,
    "sample_stats": _DATA,
    "prior": _DATA[:2],
    "prior_predictive": _DATA[:2],
    "prior_sbc": _DATA[:2],
    "observed_data": _DATA[2:],
    "constant_data": _DATA[2:],
}
_OF_DATA = (
    "posterior_predictive",
    "prior_predictive",
    "observed_data",
    "constant_data",
)  # groups whose variables may be images, or names of classes
_CHAINED = ("posterior", "log_likelihood", "sample_stats")
_IMAGE = ("channel", "row", "column")

Dims = Mapping[str, Iterable[str]]
Group = Mapping[str, np.ndarray | Iterator[Array]]
Table = tuple[dict[str, tuple[tuple[str, ...], np.ndarray]], dict[str, np.ndarray]]


def tables(groups: object, dims: Dims, coords: Mapping[str, np.ndarray], chains: int = 1) -> dict[str, Table]:
    """For each group: (axes, array) by variable, and labels by axis.

    Raises:
        DataError: a group is unknown, an array has no numbers, or sizes don't agree.
    """
    if not isinstance(groups, Mapping) or not groups:
        raise DataError(f"groups: got {shown(groups)}, expected {{'posterior': {{'z': draws [S, N, D]}}, …}}.")
    for group, variables in groups.items():
        if group not in GROUPS:
            raise DataError(f"groups: got {group!r}, which ppdgm doesn't know. {nearest(str(group), GROUPS)}")
        if not isinstance(variables, Mapping) or not variables:
            raise DataError(f"groups[{group!r}]: got {shown(variables)}, expected arrays by variable.")
    arrays = {group: {n: _read(group, n, v) for n, v in variables.items()} for group, variables in groups.items()}
    size = _data_size(arrays, dims, coords)
    several = lambda group: chains if group in _CHAINED else 1
    found = {group: _table(group, own, dims, coords, size, several(group)) for group, own in arrays.items()}
    used = {axis for _, labels in found.values() for axis in labels}
    if unknown := [axis for axis in coords if axis not in used]:
        raise DataError(
            f"coords: got {unknown[0]!r}, which is not an axis of these arrays. {nearest(unknown[0], used)}"
        )
    return found


def _table(
    group: str, variables: Group, dims: Dims, coords: Mapping[str, np.ndarray], size: int | None, chains: int
) -> Table:
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    lengths = {} if size is None else {"datum": size}
    for name, value in variables.items():
        where = f"groups[{group!r}][{name!r}]"
        array = _array(where, value, group, size, chains)
        axes = _axes(where, group, name, array.ndim, dims)
        for axis, length in zip(axes, array.shape, strict=True):
            expected = len(coords[axis]) if axis in coords else lengths.setdefault(axis, length)
            if length != expected and axis in coords:
                raise DataError(
                    f"coords[{axis!r}]: got {expected} labels, expected {length}, the length of {where} along {axis!r}."
                )
            if length != expected:
                hint = f" If it has no axis of data, give dims={{{name!r}: […]}}." if axis == "datum" else ""
                raise DataError(f"{where}: got {length} along {axis!r}, expected {expected}.{hint}")
        if name in axes or name in _DATA:
            raise DataError(f"{where}: a variable can't have the name of an axis. Give it another.")
        if len(set(axes)) < len(axes):
            raise DataError(f"{where}: got axes {axes}, expected each name once.")
        found[name] = axes, array
    used = {axis: n for axes, array in found.values() for axis, n in zip(axes, array.shape, strict=True)}
    return found, {axis: coords.get(axis, np.arange(n)) for axis, n in used.items()}


def _data_size(groups: Mapping[str, Group], dims: Dims, coords: Mapping[str, np.ndarray]) -> int | None:
    """N, from the labels of rows or from the first array that has an axis of rows; None if only chunks have one."""
    if "datum" in coords:
        return len(coords["datum"])
    for group in sorted(groups, key=lambda g: g != "observed_data"):
        for name, value in groups[group].items():
            if not isinstance(value, Iterator):
                one = "chain" in GROUPS[group]  # the array doesn't have this axis yet
                axes = _axes(f"groups[{group!r}][{name!r}]", group, name, value.ndim + one, dims)
                if "datum" in axes:
                    return int(value.shape[axes.index("datum") - one])
    return None


def _axes(where: str, group: str, name: str, rank: int, dims: Dims) -> tuple[str, ...]:
    """Names for the axes of an array with `rank` axes, including the chain."""
    lead = tuple(a for a in GROUPS[group] if a != "datum")
    if name in dims:
        if isinstance(dims[name], str) or not isinstance(dims[name], Iterable):
            raise DataError(f"dims[{name!r}]: got {shown(dims[name])}, expected names of axes: ['datum', …].")
        given = tuple(map(str, dims[name]))
        own = rank - len(lead)
        if group == "log_likelihood":  # one number for each row, summed over its axes
            given = given[:own]
        if len(given) != own:
            given = tuple(a for a in given if a != "datum")  # as for a draw from a prior
        if len(given) != own:
            raise DataError(
                f"dims[{name!r}]: got {dims[name]!r}, expected {own} axes after {lead}, the number that {where} has."
            )
        return (*lead, *given)
    lead = GROUPS[group][:rank]
    rest = rank - len(lead)
    if rest == 1:
        return (*lead, f"{name}_dim")
    if group in _OF_DATA and rest in (2, 3):
        return (*lead, *(f"{name}_{a}" for a in _IMAGE[3 - rest :]))
    return (*lead, *(f"{name}_dim_{i}" for i in range(rest)))


def _read(group: str, name: object, value: object) -> np.ndarray | Iterator[ArrayLike]:
    """The value as an array; an iterator stays as it is."""
    where = f"groups[{group!r}][{name!r}]"
    if not isinstance(name, str):
        raise DataError(f"{where}: got the name {shown(name)}, expected text.")
    if isinstance(value, Iterator):
        if "datum" not in GROUPS[group]:
            raise DataError(f"{where}: got an iterator, expected an array: {group} has no axis of data to chunk.")
        return value
    array = _numbers(where, value, group in _OF_DATA)
    if array.ndim == 0:
        raise DataError(f"{where}: got a single number, expected an array of {GROUPS[group][-1]}s.")
    return array


def _array(
    where: str, value: np.ndarray | Iterator[ArrayLike], group: str, size: int | None, chains: int
) -> np.ndarray:
    """The array with an axis for the chains."""
    lead = GROUPS[group]
    if isinstance(value, Iterator):
        value = _filled(where, value, lead.index("datum") - ("chain" in lead), size)
    if "chain" not in lead:
        return value
    if len(value) % chains:
        raise DataError(f"{where}: got {len(value)} draws, expected a multiple of the {chains} chains.")
    return value.reshape(chains, -1, *value.shape[1:])


def _filled(where: str, chunks: Iterator[ArrayLike], axis: int, size: int | None) -> np.ndarray:
    """One array from chunks along an axis. If the size is known, only one more chunk is in memory."""
    held: list[np.ndarray] = []
    out, stop, first = None, 0, ()
    for i, chunk in enumerate(chunks):
        part = _numbers(f"{where}, chunk {i}", chunk)
        first = part.shape if i == 0 else first
        if part.ndim <= axis or part.shape[:axis] + part.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            raise DataError(f"{where}, chunk {i}: got shape {part.shape}, which doesn't match {first}.")
        start, stop = stop, stop + part.shape[axis]
        if size is None:
            held.append(part)
            continue
        if out is None:
            out = np.empty((*part.shape[:axis], size, *part.shape[axis + 1 :]), part.dtype)
        if stop <= size:
            out[(slice(None),) * axis + (slice(start, stop),)] = part
    if stop == 0 or stop != (size or stop):
        raise DataError(f"{where}: got chunks of {stop} rows in all, expected {size or 'at least one'}.")
    return np.concatenate(held, axis) if out is None else out


def _numbers(where: str, value: object, names: bool = False) -> np.ndarray:
    """An array of numbers, or of `names` of classes. NaN and ±inf are kept: they show what is missing."""
    array = as_array(where, value)
    if array.dtype.kind not in ("fbiuU" if names else "fbiu"):
        raise DataError(f"{where}: got {shown(value) if array.ndim == 0 else array.dtype}, expected real numbers.")
    return array
