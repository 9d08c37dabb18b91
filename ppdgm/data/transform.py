"""How raw numbers become x: kept with a run, so that new data are prepared the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppdgm.errors import DataError, nearest

KINDS = ("none", "unit", "levels", "standardise")


def floating(dtype: Any) -> np.dtype:
    """The floating type that holds numbers of `dtype`: float32 or float64."""
    return min(np.result_type(dtype, np.float32), np.dtype(np.float64), key=lambda d: d.itemsize)


@dataclass(frozen=True, eq=False)
class Transform:
    """A map of raw numbers, and its inverse.

    Attributes:
        kind: "none"; "unit", x/divisor; "levels", x/divisor rounded; "standardise", (x − mean)/scale.
        divisor: of "unit" and "levels".
        mean, scale: of "standardise", one for each dimension.
        columns: the table's columns that x came from, by name.
    """

    kind: str = "none"
    divisor: float = 1.0
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    columns: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transform):
            return NotImplemented
        mine, its = self.arrays(), other.arrays()
        same = mine.keys() == its.keys() and all(np.array_equal(v, its[n]) for n, v in mine.items())
        return same and (self.kind, self.divisor) == (other.kind, other.divisor)

    __hash__ = None  # type: ignore[assignment]  # it holds arrays

    def apply(self, raw: Any) -> np.ndarray:
        """Raw numbers [..., *event_shape] as x, floating.

        Raises:
            DataError: of another shape than what "standardise" was fitted on.
        """
        raw = np.asarray(raw)
        dtype = floating(raw.dtype)
        if self.mean is not None and self.scale is not None:
            self._check_shape(raw)
            with np.errstate(over="ignore"):  # infinite: refused wherever data are checked
                return ((raw - self.mean) / self.scale).astype(dtype)
        if self.divisor == 1.0 and self.kind in ("none", "unit"):
            return raw.astype(dtype)
        scaled = np.divide(raw, self.divisor, dtype=dtype)
        return np.rint(scaled) if self.kind == "levels" else scaled

    def invert(self, x: Any) -> np.ndarray:
        """The raw numbers of x [..., *event_shape], floating; of "levels", up to rounding."""
        x = np.asarray(x)
        dtype = floating(x.dtype)
        if self.mean is not None and self.scale is not None:
            self._check_shape(x)
            return (x * self.scale + self.mean).astype(dtype)
        return x.astype(dtype) if self.divisor == 1.0 else np.multiply(x, self.divisor, dtype=dtype)

    def to_table(self) -> dict[str, Any]:
        """Its plain values."""
        return {"kind": self.kind, "divisor": float(self.divisor), "columns": list(self.columns)}

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name."""
        return {n: v for n, v in (("mean", self.mean), ("scale", self.scale)) if v is not None}

    @classmethod
    def from_parts(cls, table: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Transform:
        """The transform of `to_table()` and `arrays()`.

        Raises:
            DataError: they are no transform's.
        """
        kind, divisor = table.get("kind", "none"), table.get("divisor", 1.0)
        if kind not in KINDS:
            raise DataError(f"Transform: got kind {kind!r}. {nearest(str(kind), KINDS)}")
        if not (isinstance(divisor, int | float) and 0 < divisor < np.inf):
            raise DataError(f"Transform: got divisor {divisor!r}, expected a positive number.")
        columns = table.get("columns", [])
        if not (isinstance(columns, list) and all(isinstance(c, str) for c in columns)):
            raise DataError(f"Transform: got columns {str(columns)[:80]}, expected a list of names.")
        if kind != "standardise":
            return cls(kind, float(divisor), columns=tuple(columns))
        mean, scale = (np.asarray(arrays[n], np.float64) if n in arrays else None for n in ("mean", "scale"))
        if mean is None or scale is None or mean.shape != scale.shape or not (np.isfinite(mean) & (scale > 0)).all():
            raise DataError(f"Transform: got arrays {sorted(arrays)}, expected a finite mean and a positive scale.")
        return cls(kind, 1.0, mean, scale, tuple(columns))

    def _check_shape(self, values: np.ndarray) -> None:
        shape = () if self.mean is None else self.mean.shape
        if values.shape[values.ndim - len(shape) :] != shape:
            raise DataError(
                f"Data 'x': got data of shape {values.shape[1:]}, expected {shape}, which the transform was fitted on."
            )
