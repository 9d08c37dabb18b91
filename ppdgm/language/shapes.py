"""Shapes whose sizes may be symbols: an exported program takes any number of rows."""

from __future__ import annotations

from typing import Any

Size = Any  # a whole number, or a symbol of torch or JAX that stands for one


def broadcast_shapes(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The shape that arrays of these shapes broadcast to.

    NumPy's own turns a symbol into the number that it stands for in the example, or refuses it.

    Raises:
        ValueError: two sizes differ, and neither is 1.
    """
    rank = max((len(s) for s in shapes), default=0)
    return tuple(_common([s[len(s) - rank + i] for s in shapes if len(s) - rank + i >= 0], shapes) for i in range(rank))


def _common(sizes: list[Size], shapes: tuple[tuple[Size, ...], ...]) -> Size:
    wide = [n for n in sizes if not (isinstance(n, int) and n == 1)] or [1]
    if any(isinstance(n, int) and isinstance(wide[0], int) and n != wide[0] for n in wide):
        raise ValueError(f"Arrays of shapes {', '.join(map(str, shapes))} do not fit each other.")
    return next((n for n in wide if not isinstance(n, int)), wide[0])
