"""Compiled programs for checks, which run once or twice; and a reading with NumPyro's checks, as one of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpyro
from jax.extend.core import Literal

from ppdgm.language.native import Device, Tree

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

#: A reading of a VAE compiles in an eighth of the time, and runs a little longer.
_UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def compile_quickly(function: Callable[..., Tree], device: Device, **options: Any) -> Callable[..., Tree]:
    """`jax.jit`, without optimisations that take longer than the few runs of a check; for numbers that only it sees."""
    return jax.jit(function, compiler_options=_known_options() if device.platform == "cpu" else None, **options)


@cache
def _known_options() -> dict[str, Any] | None:
    """None if this XLA does not know them."""
    try:
        jax.jit(lambda: 0, compiler_options=_UNOPTIMISED)()
    except jax.errors.JaxRuntimeError:
        return None
    return _UNOPTIMISED


class Unchecked(Exception):
    """It is not known what NumPyro checks in a function."""


def with_checks(function: Callable[..., Tree]) -> Callable[..., tuple[Tree, jax.Array]]:
    """A function to be compiled that also returns whether all is well: what NumPyro would check without compilation.

    NumPyro checks arguments and values of distributions if they are numbers. In a compiled function it still writes
    down, for each, whether it is valid, but nothing uses these truths; so they are found in the function's program. A
    log-density outside the support is −∞, so numbers that are not finite are not well either. The function's own unused
    truths are among those found. So the result can be False for a function that NumPyro accepts, but not the reverse.

    Raises:
        Unchecked: JAX leaves out of the program what nothing uses.
    """

    def marked(flat: list[jax.Array], shape: Any) -> Tree:
        jnp.equal(flat[-1], flat[-1])  # unused too
        return function(*jax.tree.unflatten(shape, flat))

    def run(*args: Tree) -> tuple[Tree, jax.Array]:
        flat, shape = jax.tree.flatten(args)
        with numpyro.validation_enabled(), warnings.catch_warnings():
            warnings.filterwarnings("error", "Out-of-support")
            program, like = jax.make_jaxpr(lambda flat: marked(flat, shape), return_shape=True)(flat)
        found, unused = _evaluated(program, flat)
        truths = [jnp.all(a) for a in unused if a.dtype == bool]
        if not truths:
            raise Unchecked
        truths += [jnp.isfinite(a).all() for a in found if jnp.issubdtype(a.dtype, jnp.floating)]
        return jax.tree.unflatten(jax.tree.structure(like), found), jnp.stack(truths).all()

    return run


def _evaluated(program: ClosedJaxpr, args: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    """The program's results, and the values in it that nothing uses."""
    jaxpr, values = program.jaxpr, dict[Any, jax.Array]()
    used = {v for e in jaxpr.eqns for v in e.invars if not isinstance(v, Literal)}
    used |= {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    values.update(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, *args), strict=True))
    read = lambda v: v.val if isinstance(v, Literal) else values[v]
    unused = []
    for equation in jaxpr.eqns:
        how = equation.primitive.get_bind_params(equation.params)
        found = equation.primitive.bind(*map(read, equation.invars), **how)
        for v, value in zip(equation.outvars, found if equation.primitive.multiple_results else [found], strict=True):
            values[v] = value
            if v not in used:
                unused.append(value)
    return [jnp.asarray(read(v)) for v in jaxpr.outvars], unused
