"""A number with its standard error, as text."""

from __future__ import annotations

from math import isnan


def plus_minus(mean: float, error: float, digits: int, signed: bool = False) -> str:
    """A mean with its standard error; a single row has no such error."""
    told = f"{mean:+.{digits}f}" if signed else f"{mean:.{digits}f}"
    return told + ("" if isnan(error) else f" ± {error:.{digits}f}")
