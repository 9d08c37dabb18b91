"""Gradients inside a program, `P.vjp`: what they are asked of, and what they are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.language.native import Array, Namespace

Map = Callable[[Array], Array]


def pullback(vjp: Callable[[Map, Array], tuple[Array, Map]], f: Map, x: Array, xp: Namespace) -> tuple[Array, Map]:
    """f(x), and v ↦ vᵀ ∂f/∂x.

    Args:
        vjp: of the backend, for arrays of the right shapes and types.
        f: from an array to an array.
        x: floating numbers.
        xp: array-API namespace.

    Raises:
        ProgramError: f is no function of one array to one array, x is no array of floating numbers, or v has another
            shape than f(x).
    """
    if not callable(f):
        raise ProgramError(f"P.vjp: got {type(f).__name__} for f, expected a function of one array: P.vjp(f, x).")
    if not hasattr(x, "shape") or not xp.isdtype(x.dtype, "real floating"):
        got = f"numbers of type {x.dtype}" if hasattr(x, "dtype") else type(x).__name__
        raise ProgramError(
            f"P.vjp: got {got} for x, expected an array of floating numbers. The gradient is that of one array: let f "
            "take the others from outside."
        )

    def checked(y: Array) -> Array:
        found = f(y)
        if not hasattr(found, "shape"):
            raise ProgramError(
                f"P.vjp: the function returned {type(found).__name__}, expected an array. For several outputs, write "
                "one array: P.concat([…])."
            )
        return found

    value, pull = vjp(checked, x)

    def pulled(v: Array) -> Array:
        shape, got = tuple(value.shape), tuple(np.shape(v))
        try:
            fits = np.broadcast_shapes(got, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ProgramError(
                f"P.vjp: got v of shape {got}, expected that of f(x), {shape}. For the gradient of each row's number, "
                "give P.full(…, 1.0)."
            )
        if not got:
            v = xp.zeros_like(value) + (v.item() if isinstance(v, np.generic) else v)
        if isinstance(v, np.ndarray):
            raise ProgramError("P.vjp: got a NumPy array for v. Give P.constant(v).")
        return pull(xp.broadcast_to(xp.astype(v, value.dtype, copy=False), shape))

    return value, pulled
