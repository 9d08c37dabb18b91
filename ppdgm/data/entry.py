"""How rows enter a run and leave it: in the user's own units and names, or as prepared rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.data.checks import refuse_where
from ppdgm.data.classes import Classes
from ppdgm.data.dataset import Dataset
from ppdgm.data.frames import columns_of, is_frame, without_column
from ppdgm.data.kinds import as_numbers, numbers
from ppdgm.data.looks import SOME, check_own
from ppdgm.data.prepared import MIXED, RESCALED, UNKNOWN, Prepared, coding_of, gathered
from ppdgm.data.stream import Stream, is_sparse
from ppdgm.data.transform import Transform, to_first
from ppdgm.errors import DataError, PpdgmError, nearest, shown
from ppdgm.language.native import Array

if TYPE_CHECKING:
    from ppdgm.data.aliases import Coding, Codings, Data

UNITS = ("own", "prepared")
OF_A_FIT = "fit.prepare(rows, units='prepared') if they are scaled, fit.prepare(rows, units='own') if not"
OF_DATA = "ppdgm.data.Prepared(rows, data.transform) if they are scaled, data.transform.prepare(rows) if not"
_TO_TRAIN = {
    MIXED: "Load the others like the first with load_data(…, like=data), and then join them. If all are already on "
    "one scale, join bare arrays: np.asarray(rows).",
    RESCALED: "Train on bare arrays, np.asarray(rows): they have no units. If the rows are still on the old scale, "
    "train on ppdgm.data.Prepared(rows, data.transform).",
}
_TO_JUDGE = {
    MIXED: "Prepare each part with fit.prepare(rows), and then join them.",
    RESCALED: "Say which they are: {ways}.",
}


def codings_of(data: Data | Dataset) -> dict[str, Coding]:
    """What was learned from data, by field: the codings of a Dataset, or of the arrays of a split.

    A transform for each dimension is not valid for data of another shape, such as a selection of the columns.

    Raises:
        DataError: the rows were prepared in different ways, and then joined.
    """
    if isinstance(data, Dataset):
        return data.codings
    named = gathered(data)
    for name, value in named.items():
        if (its := coding_of(value)) in (MIXED, RESCALED):
            raise DataError(f"Data {str(name)!r}: {UNKNOWN[its]}. {_TO_TRAIN[its]}")
    found = {str(n): coding_of(v) for n, v in named.items()}
    if is_frame(x := named.get("x")) and (columns := columns_of(x)):
        found["x"] = Transform(columns=columns)
    fits = lambda n, c: isinstance(c, Classes) or (isinstance(c, Transform) and n == "x" and _fits(c, named[n]))
    return cast("dict[str, Coding]", {n: c for n, c in found.items() if fits(n, c)})  # `fits` looks at their types


def enter(codings: Codings, data: Data, units: str | None = None, ways: str = OF_A_FIT) -> Data:
    """Rows as a program takes them: prepared rows unchanged, other rows from the user's own units and names.

    Args:
        codings: of the run, by field; fields without a coding are taken unchanged.
        data: an array, or named arrays.
        units: of rows that carry no coding: "own" or "prepared"; by default "own". Then rows that look prepared are
            refused, and there is a warning if they may be either.
        ways: how the user can say which they are, for messages.

    Raises:
        DataError: the units of rows are not clear, rows were prepared in another way, or names are not known.
    """
    check_units(units)
    if isinstance(data, Dataset):
        return data  # refused when fields are read
    named = _by_column(codings, gathered(data))
    for name, value in named.items():
        its = coding_of(value)
        if name in codings and (its == MIXED or (its == RESCALED and units is None)):
            raise DataError(f"Data {name!r}: {UNKNOWN[its]}. {_TO_JUDGE[its].format(ways=ways)}")
    return {n: _entered(codings[n], n, v, units, ways) if n in codings else v for n, v in named.items()}


def enter_beside(codings: Codings, data: Data) -> Data:
    """Validation rows as `enter` takes them, with the codings of the training data.

    Raises:
        DataError: they were prepared, and the training data carry no coding.
    """
    if not isinstance(data, Dataset):
        for name, coding in codings_of(data).items():
            if name not in codings and (coding.text if isinstance(coding, Classes) else coding.changes):
                raise DataError(
                    f"validation: got {name!r} as load_data prepared it, but training data that do not show how they "
                    "were prepared: scale and class numbers may differ. Use fit(program, data). If the training rows "
                    f"were prepared in the same way, give ppdgm.data.Prepared(rows, data.codings[{name!r}])."
                )
    return enter(codings, data, ways=OF_DATA)


def leave(
    codings: Codings, sites: Mapping[str, np.ndarray], places: Mapping[str, str], units: str = "own"
) -> dict[str, np.ndarray]:
    """The values at observed sites, [n, …], in the user's own units and names, or as prepared rows.

    Args:
        codings: of the run, by field.
        sites: arrays by the sites' names.
        places: the site that draws each field.
        units: "own" or "prepared".
    """
    found = dict(sites)
    for name, site in places.items():
        coding, value = codings.get(name), sites[site]
        if isinstance(coding, Classes) and coding.text and value.ndim == 1:
            found[site] = coding.decode(value) if units == "own" else Prepared(value, coding)
        elif isinstance(coding, Transform) and _ends(coding, value):
            own = coding.invert(value) if coding.changes else coding.outward(value)
            found[site] = own if units == "own" else Prepared(value, coding)
    return found


def prepare_rows(codings: Codings, data: Data, units: str | None) -> Data:
    """Rows in the user's own units and names, prepared (and binarised) as a run's were; they carry the coding."""
    check_units(units)
    named = _by_column(codings, gathered(data))
    found = dict(enter({n: c for n, c in codings.items() if n != "x"}, named))
    if "x" in named and "x" in codings:
        transform, x = cast(Transform, codings["x"]), named["x"]  # that of x always is one
        its = coding_of(x)
        bare = (its is None or (its == RESCALED and units == "own")) and not isinstance(x, Stream)
        if bare and units != "prepared" and transform.binary:
            found["x"] = transform.prepare(x)
        else:
            entered = enter({"x": transform}, {"x": x}, units)["x"]
            found["x"] = entered if isinstance(entered, Stream) else Prepared(entered, transform)
    return found if isinstance(data, Mapping) else found["x"]


def own_units(codings: Codings, data: Data) -> str:
    """The units that x came in: "prepared" if the rows carry a coding."""
    x = gathered(data).get("x")
    return "own" if coding_of(x) is None or "x" not in codings else "prepared"


def check_units(units: object) -> None:
    """Refuse units that are neither "own" nor "prepared".

    Raises:
        PpdgmError: they are something else.
    """
    if units is not None and units not in UNITS:
        raise PpdgmError(f"units: got {shown(units)}. {nearest(str(units), UNITS)}")


def _by_column(codings: Codings, named: dict[str, Array]) -> dict[str, Array]:
    """The fields; a table at x has the run's columns, in their order.

    Raises:
        DataError: it has others, or a column without numbers.
    """
    transform, x = codings.get("x"), named.get("x")
    if not is_frame(x) or not isinstance(transform, Transform):
        return named
    bare = without_column(x, transform.index)
    return {**named, "x": transform.apply(bare) if transform.table else numbers("x", bare, transform.columns)}


def _fits(transform: Transform, values: Array) -> bool:
    return transform.mean is None or tuple(np.shape(values)[1:]) == transform.mean.shape


def _ends(transform: Transform, values: Array) -> bool:
    """The same for drawn values, [..., *event_shape]."""
    shape = () if transform.mean is None else transform.mean.shape
    return tuple(values.shape[values.ndim - len(shape) :]) == shape


def _entered(coding: Coding, name: str, value: Array, units: str | None, ways: str) -> Array:
    if isinstance(coding, Classes):
        return coding.enter(name, value)
    its = coding_of(value)
    if coding.table and not isinstance(its, Transform):
        return value if isinstance(value, Stream) or is_sparse(value) else coding.apply(value)
    if not isinstance(its, Transform):
        return value if units == "prepared" else _from_own(coding, name, value, units is None, ways)
    if its == coding or (its.binary and coding.binary):
        return value
    return _from_other(coding, name, value, its)


def _from_own(transform: Transform, name: str, value: Array, look: bool, ways: str) -> Array:
    """Rows in the user's own units, moved to the run's scale."""
    if transform.channels == "last":
        first = _from_own(replace(transform, channels="first"), name, to_first(numbers(name, value)), look, ways)
        return Prepared(first, transform)
    if not (transform.changes or transform.binary or transform.kind == "levels") or np.ma.is_masked(value):
        return value
    value = Stream(as_numbers(name, value)) if is_sparse(value) else value
    lazy = isinstance(value, Stream | np.memmap)
    rows = value if lazy else numbers(name, value)
    if rows.dtype.kind not in "fbiu" or rows.ndim == 0 or 0 in rows.shape:
        return value  # refused when fields are read
    if transform.binary:
        expected = "0 to 1, because the run's data were binarised. Prepare rows in their own units: fit.prepare(rows)"
        refuse_where(name, rows, lambda c: (c < 0) | (c > 1), expected)
        return rows
    if look:
        check_own(name, transform, np.asarray(rows[:SOME]), ways)
    if not lazy:
        return transform.apply(rows)
    stream = value if isinstance(value, Stream) else Stream(value)
    return stream.like(transform=transform, coding=transform, dtype=None)


def _from_other(transform: Transform, name: str, value: Array, its: Transform) -> Array:
    """Rows that were prepared in another way: first back to their own units, then to the run's scale."""
    if its.binary or transform.binary:
        raise DataError(
            f"Data {name!r}: got rows with scale={its.kind!r}, binarise={its.binarise!r}, expected "
            f"{transform.kind!r}, {transform.binarise!r}, as in the run. Binarised data can't be converted. Load the "
            "rows like the run's data: load_data(…, like=fit)."
        )
    if isinstance(value, Stream):
        return value.like(transform=transform, coding=transform)
    return transform.apply(its.invert(np.asarray(value, np.float64)))
