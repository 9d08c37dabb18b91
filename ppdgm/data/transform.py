"""How raw numbers become x: kept with a run, so that new data are prepared the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.data.column import Column
from ppdgm.data.kinds import numbers
from ppdgm.data.mixed import decode_table, encode_table
from ppdgm.data.prepared import Prepared
from ppdgm.errors import DataError, nearest
from ppdgm.language.native import Array

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from ppdgm.specs import Table

STEPS = 100  #: steps of a floating type in a column's standard deviation, so that rounding doesn't matter
KINDS = ("none", "unit", "levels", "standardise", "table")
_FACTS: dict[str, Callable[[Any], bool]] = {  # their valid values in a table
    "binarise": lambda v: v in ("none", "threshold", "static", "dynamic"),
    "seed": lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
    "whole": lambda v: isinstance(v, bool),
    "level": lambda v: isinstance(v, int | float) and 0 <= v < np.inf,
    "index": lambda v: isinstance(v, str),
    "channels": lambda v: v in ("first", "last"),
}


def floating(dtype: DTypeLike) -> np.dtype:
    """The floating type that holds numbers of `dtype`: float32 or float64."""
    return min(np.result_type(dtype, np.float32), np.dtype(np.float64), key=lambda d: d.itemsize)


@dataclass(frozen=True, eq=False)
class Transform:
    """A map of raw numbers, and its inverse.

    Attributes:
        kind: "none"; "unit", x/divisor; "levels", x/divisor rounded; "standardise", (x − mean)/scale; "table", names
            and dates as numbers, and NaN for missing entries.
        divisor: of "unit" and "levels".
        mean, scale: of "standardise", one for each dimension.
        columns: the table's columns that x came from, by name.
        binarise, seed: how x is made 0 or 1 after that: "none", "threshold", "static", "dynamic"; seed of the draws.
        whole: whether the raw numbers were whole.
        level: mean |x| of the training data, if known.
        index: the table's column that names the rows, if one does.
        table: of "table", the meaning of each column.
        library: of the training data's table: "pandas", "polars", "pyarrow"; "any" for a file; "" for an
            array.
        channels: "last" if the raw numbers are images [..., H, W, C]; x is [..., C, H, W] in any case.
    """

    kind: str = "none"
    divisor: float = 1.0
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    columns: tuple[str, ...] = ()
    binarise: str = "none"
    seed: int = 0
    whole: bool = False
    level: float = 0.0
    index: str = ""
    table: tuple[Column, ...] = ()
    library: str = ""
    channels: str = "first"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transform):
            return NotImplemented
        mine, its = self.arrays(), other.arrays()
        same = mine.keys() == its.keys() and all(np.array_equal(v, its[n]) for n, v in mine.items())
        facts = lambda t: (t.kind, t.divisor, t.table, t.channels)
        return same and facts(self) == facts(other)

    __hash__ = None  # type: ignore[assignment]  # it holds arrays

    @property
    def binary(self) -> bool:
        """Whether x is made 0 or 1."""
        return self.binarise != "none"

    @property
    def changes(self) -> bool:
        """Whether x has other units than the raw numbers; 0 or 1 counts as the same units."""
        if self.kind == "table":
            return any(c.changes for c in self.table)
        return not self.binary and not (self.divisor == 1.0 and self.kind in ("none", "unit", "levels"))

    def apply(self, raw: Array) -> Prepared:
        """Raw numbers [..., *event_shape] as x, floating; the result carries this transform.

        Raises:
            DataError: another shape than the one that "standardise" was fitted on.
        """
        return Prepared(self.scaled(raw), self)

    def prepare(self, raw: Array) -> Prepared:
        """Raw numbers [N, *event_shape] as x, binarised if the training data were.

        Raises:
            DataError: another shape, or numbers that are not probabilities for drawing 0 or 1.
        """
        x = self.scaled(raw)
        if self.binary:
            if not ((x >= 0) & (x <= 1)).all():
                raise DataError(
                    f"Data 'x': got numbers between {np.min(raw)} and {np.max(raw)}, expected 0 to {self.divisor:g}, "
                    "because they are binarised like the run's data."
                )
            drawn = np.random.default_rng(self.seed).random(x.shape) < x
            x = (x >= 0.5 if self.binarise == "threshold" else drawn).astype(x.dtype)
        return Prepared(x, self)

    def scaled(self, raw: Array) -> np.ndarray:
        """The same as `apply`, as a bare array."""
        raw = self.inward(numbers("x", encode_table(self.table, raw) if self.table else raw))
        dtype = floating(raw.dtype)
        if self.mean is not None and self.scale is not None:
            self._check_shape(raw)
            with np.errstate(over="ignore"):  # infinite: refused wherever data are checked
                return ((raw - self.mean) / self.scale).astype(dtype)
        if self.divisor == 1.0 and self.kind in ("none", "unit", "table"):
            return raw.astype(dtype)
        scaled = np.divide(raw, self.divisor, dtype=dtype)
        return np.rint(scaled) if self.kind == "levels" else scaled

    def invert(self, x: Array) -> np.ndarray:
        """The raw numbers of x [..., *event_shape], floating; of "levels", up to rounding; of "table", names and dates.

        They are float64 if float32 would blur them, such as Julian days.
        """
        x = numbers("x", x)
        if self.table:
            return decode_table(self.table, x)
        dtype = floating(x.dtype)
        if self.mean is not None and self.scale is not None:
            self._check_shape(x)
            raw = (x * self.scale + self.mean).astype(np.float64 if _blurs(dtype, self.mean, self.scale) else dtype)
        else:
            raw = x.astype(dtype) if self.divisor == 1.0 else np.multiply(x, self.divisor, dtype=dtype)
        return self.outward(raw)

    def inward(self, raw: np.ndarray) -> np.ndarray:
        """Raw numbers with their channels first.

        Raises:
            DataError: they are no images with their channels last.
        """
        return raw if self.channels == "first" else to_first(raw)

    def outward(self, x: np.ndarray) -> np.ndarray:
        """Numbers [..., C, H, W] in the raw numbers' order."""
        return x if self.channels == "first" else np.moveaxis(x, -3, -1)

    def log_det(self, event_shape: tuple[int, ...]) -> float:
        """log |dx/draw| of a row: add it to log p(x) to get the log-density of the raw numbers.

        Raises:
            DataError: x was binarised, so that there is no such density; or it has another shape.
        """
        if self.binary:
            raise DataError(
                f"log_det: got x binarised (binarise={self.binarise!r}), so its log p(x) is a probability of zeros and "
                "ones, not a density of the raw numbers. Use data with binarise='none'."
            )
        if self.scale is not None:
            if tuple(event_shape) != self.scale.shape:
                raise DataError(f"log_det: got event_shape {tuple(event_shape)}, expected {self.scale.shape}.")
            return -float(np.log(self.scale).sum())
        return -float(np.prod(event_shape)) * float(np.log(self.divisor))

    def in_words(self) -> str:
        """What x is, if it has other units than the raw numbers."""
        if not self.changes or self.kind == "table":  # dates are days, names are classes: densities have these units
            return ""
        words = {"standardise": "standardised x", "unit": f"x / {self.divisor:g}", "levels": "levels of x"}
        return words.get(self.kind, "scaled x")

    def to_table(self) -> dict[str, object]:
        """Its plain values."""
        facts = {"binarise": self.binarise, "seed": self.seed, "whole": self.whole, "level": float(self.level)}
        facts |= {"index": self.index} if self.index else {}
        facts |= {} if self.channels == "first" else {"channels": self.channels}
        mixed = {"table": [c.to_table() for c in self.table], "library": self.library} if self.table else {}
        return {"kind": self.kind, "divisor": float(self.divisor), "columns": list(self.columns), **facts, **mixed}

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name."""
        return {n: v for n, v in (("mean", self.mean), ("scale", self.scale)) if v is not None}

    @classmethod
    def from_parts(cls, table: Table, arrays: Mapping[str, np.ndarray]) -> Transform:
        """The transform of `to_table()` and `arrays()`.

        Raises:
            DataError: they are not those of a transform.
        """
        kind, divisor = table.get("kind", "none"), table.get("divisor", 1.0)
        if kind not in KINDS:
            raise DataError(f"Transform: got kind {kind!r}. {nearest(str(kind), KINDS)}")
        if not (isinstance(divisor, int | float) and 0 < divisor < np.inf):
            raise DataError(f"Transform: got divisor {divisor!r}, expected a positive number.")
        columns = table.get("columns", [])
        if not (isinstance(columns, list) and all(isinstance(c, str) for c in columns)):
            raise DataError(f"Transform: got columns {str(columns)[:80]}, expected a list of names.")
        facts = {n: table[n] for n, right in _FACTS.items() if n in table and right(table[n])}
        if wrong := [n for n in _FACTS if n in table and n not in facts]:
            raise DataError(f"Transform: got {wrong[0]} {str(table[wrong[0]])[:80]}, which is not allowed.")
        if kind == "table":
            mixed = table.get("table")
            if not isinstance(mixed, list) or len(mixed) != len(columns):
                raise DataError(f"Transform: got table {str(mixed)[:80]}, expected a column for each name.")
            facts |= {"table": tuple(map(Column.from_table, mixed)), "library": str(table.get("library", ""))}
        if kind != "standardise":
            return cls(kind, float(divisor), columns=tuple(columns), **facts)
        mean, scale = (np.asarray(arrays[n], np.float64) if n in arrays else None for n in ("mean", "scale"))
        if mean is None or scale is None or mean.shape != scale.shape or not (np.isfinite(mean) & (scale > 0)).all():
            raise DataError(f"Transform: got arrays {sorted(arrays)}, expected a finite mean and a positive scale.")
        return cls(kind, 1.0, mean, scale, tuple(columns), **facts)

    def _check_shape(self, values: np.ndarray) -> None:
        shape = () if self.mean is None else self.mean.shape
        if values.shape[values.ndim - len(shape) :] != shape:
            raise DataError(
                f"Data 'x': got data of shape {values.shape[1:]}, expected {shape}, like the data of its scaling."
            )


def to_first(raw: np.ndarray) -> np.ndarray:
    """[..., H, W, C] as [..., C, H, W].

    Raises:
        DataError: there are too few axes, or the channels seem to be first already.
    """
    if raw.ndim < 3 or (raw.shape[-3] in (1, 3) and raw.shape[-1] not in (1, 2, 3, 4)):
        raise DataError(
            f"Data 'x': got an array of shape {raw.shape}, expected images with their channels last, [N, H, W, C], "
            "because of channels='last'. Move them: np.moveaxis(x, 1, -1)."
        )
    return np.moveaxis(raw, -1, -3)


def _blurs(dtype: np.dtype, mean: np.ndarray, scale: np.ndarray) -> bool:
    """Whether numbers are so far from 0 that a floating type has few of them within a standard deviation."""
    with np.errstate(all="ignore"):  # too far: infinite steps
        step = np.spacing((np.abs(mean) + scale).astype(dtype))
    return bool((~(STEPS * step <= scale)).any())
