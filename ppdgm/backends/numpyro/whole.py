"""Whole numbers beyond 32 bits, of which JAX keeps the last ones, without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.extend.core import Literal

from ppdgm.language.native import Tree

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

Bounds = tuple[int, int] | None  # the smallest and the largest value; None: not known
_SAME = ("broadcast_in_dim", "reshape", "squeeze", "slice", "transpose", "gather", "dynamic_slice", "rev", "copy")


class Products:
    """The sums and products of whole numbers in a function.

    Args:
        jaxpr: the function in JAX's form.
        start: the place of the first of its data among its arguments.
        data: arrays like its data.

    Attributes:
        counts: whether any of them could be beyond 32 bits, for some data.
    """

    def __init__(self, jaxpr: Jaxpr, start: int, data: Tree):
        self.jaxpr, self.start = jaxpr, start
        self.counts = self._beyond(data, lambda _: (-(2**31), 2**31 - 1)) is not None

    def beyond(self, data: Tree) -> int | None:
        """One that 32 bits may not hold, as computed from the smallest and the largest numbers in the data."""
        return self._beyond(data, _of_number) if self.counts else None

    def _beyond(self, data: Tree, bounds: Callable[[Any], Bounds]) -> int | None:
        variables = self.jaxpr.invars[self.start :]
        known = {v: bounds(a) for v, a in zip(variables, jax.tree.leaves(data), strict=False) if _is_whole(v)}
        return _followed(self.jaxpr, known)[0]


def _followed(jaxpr: Jaxpr, known: dict[Any, Bounds]) -> tuple[int | None, list[Bounds]]:
    """A number beyond 32 bits, as computed from the bounds of some variables; and the bounds of the results."""
    known = dict(known)
    of = lambda v: _of_number(v.val) if isinstance(v, Literal) else known.get(v)
    for equation in jaxpr.eqns:
        inputs, found = [of(v) for v in equation.invars], list[Bounds]()
        if not any(inputs):
            continue
        inner = equation.params.get("jaxpr")
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and equation.primitive.name in ("jit", "pjit", "closed_call", "core_call"):
            far, found = _followed(inner, dict(zip(inner.invars, inputs, strict=True)))
            if far is not None:
                return far, []
        elif _is_whole(equation.outvars[0]):
            found = [_result(equation.primitive.name, inputs, equation.params)]
            for end in found[0] or ():
                if not -(2**31) <= end < 2**31:
                    return end, []
        known.update(zip(equation.outvars, found, strict=False))
    return None, [of(v) for v in jaxpr.outvars]


def _result(name: str, inputs: Sequence[Bounds], how: Mapping[str, Any]) -> Bounds:
    a = inputs[0]
    if name in (*_SAME, "convert_element_type"):
        return a
    if name in ("mul", "add", "sub", "max", "min", "select_n") and None in inputs[name == "select_n" :]:
        return None
    if name == "select_n":
        return min(b[0] for b in inputs[1:] if b), max(b[1] for b in inputs[1:] if b)
    if a is None:
        return None
    if name == "neg":
        return -a[1], -a[0]
    if name == "integer_pow" and how["y"] > 0:
        ends = [end ** how["y"] for end in a] + [0] * (a[0] < 0 < a[1])
        return min(ends), max(ends)
    b = inputs[1] if len(inputs) == 2 else None
    if b is None:
        return None
    if name == "add":
        return a[0] + b[0], a[1] + b[1]
    if name == "sub":
        return a[0] - b[1], a[1] - b[0]
    if name == "mul":
        ends = [x * y for x in a for y in b]
        return min(ends), max(ends)
    return (
        (max(a[0], b[0]), max(a[1], b[1]))
        if name == "max"
        else (min(a[0], b[0]), min(a[1], b[1]))
        if name == "min"
        else None
    )


def _is_whole(variable: Any) -> bool:
    return str(getattr(variable.aval, "dtype", "")) == "int32"


def _of_number(value: Any) -> Bounds:
    array = np.asarray(value)
    return (int(array.min()), int(array.max())) if array.dtype.kind in "iub" and array.size else None
