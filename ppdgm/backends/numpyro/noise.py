"""Random keys outside sample sites, `numpyro.prng_key()`: dropout is off in evaluation, other uses are found.

A key matters only where it is used: flax's `apply` wants one for its dropout even if that is off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax

from ppdgm.language.native import Tree
from ppdgm.language.vocabulary import Array

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr, Var

REMEDY = (
    "The program uses numpyro.prng_key(). Evaluation switches off dropout of flax linen and of equinox (eqx_module), "
    "but nothing else. Remove other random layers, or give NNX's Dropout deterministic=True."
)


@contextmanager
def without_dropout() -> Iterator[None]:
    """Make layers of flax linen deterministic if they can be (Dropout, attention)."""
    linen = sys.modules.get("flax.linen")
    if linen is None:
        yield
        return
    with linen.intercept_methods(_deterministic):
        yield


def _deterministic(method: Callable[..., Tree], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Tree:
    layer = context.module
    if not type(layer).__module__.startswith("flax.linen") or not hasattr(layer, "deterministic"):
        return method(*args, **kwargs)
    before = layer.deterministic  # of the copy that is bound to this call; a frozen dataclass
    object.__setattr__(layer, "deterministic", True)
    try:
        return method(*args, **{n: v for n, v in kwargs.items() if n != "deterministic"})
    finally:
        object.__setattr__(layer, "deterministic", before)


def in_inference(tree: Tree) -> Tree:
    """The parameters of an equinox module with `inference=True` in its layers, whatever the module itself says."""
    eqx = sys.modules.get("equinox")
    if eqx is None or not isinstance(tree, eqx.Module):
        return tree
    has = lambda node: hasattr(node, "inference")
    where = lambda tree: tuple(n.inference for n in jax.tree.leaves(tree, is_leaf=has) if has(n))
    return eqx.tree_at(where, tree, replace_fn=lambda _: True, is_leaf=lambda v: v is None) if where(tree) else tree


def moved_by_key(run: Callable[[Array], dict[str, Array]]) -> list[str]:
    """The names in the result of `run(key)` that may depend on the key."""
    found, names = jax.make_jaxpr(run, return_shape=True)(jax.random.key(0))
    moved = depends(found.jaxpr, found.jaxpr.invars[0])
    return [n for n, moves in zip(sorted(names), moved, strict=True) if moves]


def depends(jaxpr: Jaxpr, of: Var) -> list[bool]:
    """Whether each result of a program may depend on one of its arguments."""
    return _reached(jaxpr, {id(of)})


def _reached(jaxpr: Any, reached: set[int]) -> list[bool]:
    for equation in jaxpr.eqns:
        moved = [id(v) in reached for v in equation.invars]
        if any(moved):
            loop = equation.primitive.name == "scan"
            found = _through_loop(equation, moved) if loop else [True] * len(equation.outvars)
            reached.update(id(v) for v, moves in zip(equation.outvars, found, strict=True) if moves)
    return [id(v) in reached for v in jaxpr.outvars]


def _through_loop(equation: Any, moved: list[bool]) -> list[bool]:
    """The same of a scan: what a carry depends on, it depends on at all later times."""
    body, consts, carries = (equation.params[n] for n in ("jaxpr", "num_consts", "num_carry"))
    while True:
        found = _reached(body.jaxpr, {id(v) for v, moves in zip(body.jaxpr.invars, moved, strict=True) if moves})
        after = [a or b for a, b in zip(moved[consts : consts + carries], found[:carries], strict=True)]
        if after == moved[consts : consts + carries]:
            return found
        moved = [*moved[:consts], *after, *moved[consts + carries :]]
