"""One column of a mixed table: what its values mean, and the numbers that programs see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ppdgm.data.headers import MISSING
from ppdgm.errors import DataError, closest, shown
from ppdgm.models.likelihoods.table_columns import read_kind

DAY = np.timedelta64(86_400_000, "ms")


@dataclass(frozen=True)
class Column:
    """The meaning of a column's numbers.

    Attributes:
        name: of the column.
        kind: its distribution, as in `Table.columns`: "real", "count", "categorical(3)", …
        classes: what the numbers 0, 1, … stand for, as text; none if numbers stand for themselves.
        text: whether the classes are text in the user's data, and not numbers.
        origin: for dates: the day that is 0, such as "2024-01-31".
        whole: whether the values were whole numbers (for dates: whole days).
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()
    text: bool = True
    origin: str = ""
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}"

    @property
    def changes(self) -> bool:
        """Whether its values are not the numbers that programs see."""
        return bool(self.classes or self.origin)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Values as numbers, [N] in float64; NaN is missing.

        Raises:
            DataError: an unknown class, or a value of another type; with its row.
        """
        cells = cells_of(values)
        if not self.changes and cells.dtype.kind == "f":
            return cells
        code = {name: float(i) for i, name in enumerate(self.classes)}
        there = [None if says_missing(v) else v for v in cells.tolist()]
        return np.array([math.nan if v is None else self._number(v, row, code) for row, v in enumerate(there)])

    def _number(self, value: object, row: int, code: Mapping[str, float]) -> float:
        if self.classes:
            number = None if self.text else as_number(value)
            if (found := code.get(class_name(value if number is None else number))) is not None:
                return found
            known = ", ".join(n[:40] for n in self.classes[:10]) + (", …" if len(self.classes) > 10 else "")
            hint = f" Did you mean {close!r}?" if (close := closest(class_name(value), self.classes)) else ""
            raise self._refusal(value, row, f"one of the classes of the training data: {known}.{hint}")
        if self.origin:
            if (date := as_date(value)) is None:
                raise self._refusal(value, row, "a date, such as 2024-01-31")
            return float((date - np.datetime64(self.origin, "ms")) / DAY)
        if (number := as_number(value)) is None:
            raise self._refusal(value, row, "a number")
        return number

    def _refusal(self, value: object, row: int, expected: str) -> DataError:
        return DataError(f"Data 'x': column {self.name!r}: got {shown(value)} in row {row}, expected {expected}")

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        """The values of numbers [N]: names, dates or numbers. A number between two classes is the nearer class."""
        there = ~np.isnan(numbers)
        if self.classes:
            at = np.clip(np.rint(np.where(there, numbers, 0)), 0, len(self.classes) - 1).astype(int)
            if not self.text:
                return np.where(there, np.array(self.classes, np.float64)[at], np.nan)
            found = np.array(self.classes, object)[at]
            found[~there] = None
            return found
        if self.origin:
            unit = 86_400_000 if self.whole else 1
            steps = np.rint(np.where(there, numbers, 0) * 86_400_000 / unit).astype(np.int64) * unit
            dates = np.datetime64(self.origin, "ms") + steps.astype("m8[ms]")
            return np.where(there, dates, np.datetime64("NaT", "ms"))
        return numbers

    def to_table(self) -> dict[str, object]:
        """Its plain values."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in vars(self).items()}

    @classmethod
    def from_table(cls, table: object) -> Column:
        """The column of `to_table()`.

        Raises:
            DataError: it is not such a table.
        """
        if isinstance(table, Mapping) and set(table) == set(cls.__dataclass_fields__):
            words = [table[n] for n in ("name", "kind", "origin")]
            classes, flags = table["classes"], [table[n] for n in ("text", "whole")]
            right = isinstance(classes, list) and all(isinstance(w, str) for w in (*words, *classes))
            if right and all(isinstance(f, bool) for f in flags):
                read_kind(str(table["kind"]))
                return cls(**{**table, "classes": tuple(classes)})
        raise DataError(f"Column of a table: got {shown(table)}, expected its name, kind and classes.")


def cells_of(values: np.ndarray) -> np.ndarray:
    """Values as float64 with NaN, or as Python objects with None for what is missing, such as NaN, NaT and ""."""
    if values.dtype.kind in "fiu":
        return values.astype(np.float64)
    if values.dtype.kind == "M":
        found = values.astype("M8[ms]").astype(object)
        found[np.isnat(values)] = None
        return found
    found = np.empty(len(values), object)
    found[:] = [None if says_missing(v) else v for v in values.tolist()]
    return found


def says_missing(value: object) -> bool:
    """Whether a value says that there is none."""
    if isinstance(value, str):
        return value.strip().lower() in (*MISSING, "nat")
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    unequal = isinstance(value, float) and value != value
    return value is None or unequal or type(value).__name__ in ("NAType", "NaTType")


def class_name(value: object) -> str:
    """A value as the name of a class: whole numbers without a point, truth values as 0 and 1."""
    if isinstance(value, str):
        return value.strip()
    number = as_number(value)
    return str(value) if number is None else str(int(number)) if number == int(number) else repr(number)


def as_number(value: object) -> float | None:
    """A finite number; None for anything else. Python reads 1_0 as a number, here it is none."""
    if isinstance(value, str) and "_" in value:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever it is
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def as_date(value: object) -> np.datetime64 | None:
    """A date, from a date or from text such as 2024-01-31 or 2024-01-31T12:30; None for anything else."""
    if isinstance(value, np.datetime64):
        return value.astype("M8[ms]")
    text = value.strip() if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else ""
    if not (len(text) >= 10 and text[:4].isdigit() and text[4] == text[7] == "-"):
        return None
    try:
        return np.datetime64(text.replace(" ", "T"), "ms")
    except ValueError:
        return None


def plain_column(values: np.ndarray) -> np.ndarray:
    """Names and dates as text, with "" for what is missing; dates have no time if all are whole days.

    Other values stay as they are. So files hold no objects.
    """
    if values.dtype.kind == "O":
        return np.array(["" if says_missing(v) else str(v) for v in values.tolist()])
    if values.dtype.kind != "M":
        return values
    there = ~np.isnat(values)
    days = bool((values[there] == values[there].astype("M8[D]")).all())
    return np.where(there, np.datetime_as_string(values, unit="D" if days else "s"), "")
