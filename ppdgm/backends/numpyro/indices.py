"""Indices outside an axis: torch refuses them, but JAX takes some other number, without a word."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify
from jax.extend.core import Literal
from numpyro.primitives import Messenger

from ppdgm.language.native import Message, Tree
from ppdgm.language.vocabulary import Array, Dist

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

_NATIVE = ("numpyro.", "ppdgm.backends.numpyro.distributions")
_CHECKS = checkify.index_checks | checkify.user_checks
_classes: ContextVar[list[int] | None] = ContextVar("classes", default=None)  # of each P.one_hot of a function
_checking: ContextVar[bool] = ContextVar("checking", default=False)


def check_classes(index: Array, size: int) -> None:
    """Note, where indices are checked, whether each index of P.one_hot is a class."""
    if (found := _classes.get()) is not None:
        found.append(size)
    if _checking.get() and index.size:
        there = (index >= 0) & (index < size)
        far = index.ravel()[jnp.argmin(there)]
        checkify.check(there.all(), f"P.one_hot: got class {{far}}, expected 0 to {size - 1}", far=far)


def with_indices_checked(function: Callable[..., Tree]) -> Callable[..., Any]:
    """A function to be compiled: an error, whose `get()` says what is outside, or is None. Nothing else is computed."""

    def told(*args: Tree) -> Tree:
        token = _checking.set(True)
        try:
            return function(*args)
        finally:
            _checking.reset(token)

    checked = checkify.checkify(told, errors=_CHECKS)
    return lambda *args: checked(*args)[0]


def drawn(d: Dist, **how: Any) -> tuple[Array, list[Any]]:
    """A draw, and its intermediates. Where indices are checked, those of NumPyro's own draws are passed over.

    Some of these are beyond an axis on purpose (Wishart, LKJ), and JAX's checks do not know others (Poisson's loop
    under vmap, Multinomial).
    """

    def draw(d: Dist, key: Array) -> tuple[Array, list[Any]]:
        found: tuple[Array, list[Any]] = d(rng_key=key, sample_intermediates=True, **how)
        return found

    key = how.pop("rng_key")
    return jax.custom_batching.sequential_vmap(draw)(d, key) if _checking.get() and _is_native(d) else draw(d, key)


def _is_native(d: Dist) -> bool:
    """Whether a distribution, with what is inside it, is NumPyro's own, or mended."""
    inside = getattr(d, "base_dist", None)
    return type(d).__module__.startswith(_NATIVE) and (inside is None or _is_native(inside))


class NativeDraws(Messenger):
    """Draws of a pair's sites where indices are checked: `drawn`."""

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "sample" and msg["value"] is None and _checking.get():
            msg["value"], msg["intermediates"] = drawn(msg["fn"], **msg["kwargs"])


def indexes(function: Callable[..., Tree], rows: Tree, moving: Tree, params: Tree) -> tuple[bool, bool, Jaxpr]:
    """Whether a function takes numbers by an index; by one that may depend on its `moving` arguments; and its jaxpr.

    Args:
        function: of these. Its own choice of the rows does not count.
        rows: places of rows.
        moving: noise and data.
        params: by name.
    """
    token = _classes.set([])
    try:
        jaxpr = jax.make_jaxpr(function)(rows, moving, params).jaxpr
        if _classes.get():
            return True, True, jaxpr
    finally:
        _classes.reset(token)
    first, second = len(jax.tree.leaves(rows)), len(jax.tree.leaves((rows, moving)))
    by_moving = _goes_by(jaxpr, set(jaxpr.invars[first:second]), True)
    return by_moving or _goes_by(jaxpr, set(jaxpr.invars[:first]), False), by_moving, jaxpr


def _goes_by(jaxpr: Jaxpr, known: set[Any], among: bool) -> bool:
    """Whether numbers are taken by an index that is computed from `known` variables, or, if not `among`, from none."""
    known = set(known)
    has = lambda v: not isinstance(v, Literal) and v in known
    for equation in jaxpr.eqns:
        name, inputs, moved = equation.primitive.name, equation.invars, any(map(has, equation.invars))
        if name == "gather" and has(inputs[1]) == among:
            return True
        if name == "dynamic_slice" and among and any(map(has, inputs[1:])):
            return True
        for part in equation.params.values():
            inner = getattr(part, "jaxpr", part)
            if not hasattr(inner, "eqns") or (among and not moved):
                continue
            alike = len(inner.invars) == len(inputs) and name not in ("scan", "while")  # whose carry may change
            of = {i for i, v in zip(inner.invars, inputs, strict=True) if has(v)} if alike else {*inner.invars}
            if _goes_by(inner, of if moved else set(), among):
                return True
        if moved:
            known.update(equation.outvars)
    return False
