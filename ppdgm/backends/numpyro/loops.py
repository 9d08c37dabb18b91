"""`P.scan` as one `jax.lax.scan`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.transforms import Transform

from ppdgm.language.native import Dist
from ppdgm.language.steps import Tree, check_carry

SHORT = 8  #: times up to which nothing is compiled, if the values are known: in first readings
_HOMES = ("numpyro.", "ppdgm.backends.numpyro.distributions")


def loop(step: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, at: Tree, length: int) -> tuple[Tree, Tree]:
    """The last carry, and what the steps gave, [T, …].

    The first carry is broadcast to the shape, and converted to the type, that the step returns.
    """
    first = jax.tree.map(lambda a: a[0], at)
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((carry, at)))
    if known and dist.Distribution._validate_args:
        step(carry, first)  # NumPyro checks arguments only if their values are known
    for again in (False, True):
        found, _ = jax.eval_shape(step, carry, first)
        check_carry(carry, found, not again)
        carry = jax.tree.map(lambda v, like: jnp.broadcast_to(jnp.asarray(v, like.dtype), like.shape), carry, found)
    if known and length <= SHORT:
        found = []
        for t in range(length):
            carry, given = step(carry, jax.tree.map(lambda a, t=t: a[t], at))
            found.append(given)
        return carry, jax.tree.map(lambda *each: jnp.stack(each), *found)
    return jax.lax.scan(step, carry, at, length)


def keep(d: Dist) -> Dist | None:
    """A distribution of NumPyro's, which is a tree of arrays; None for others, whose arrays JAX can't see."""
    arrays = all(isinstance(leaf, jax.Array | float | int) or hasattr(leaf, "dtype") for leaf in jax.tree.leaves(d))
    return d if _known(d) and arrays else None


def _known(part: object) -> bool:
    if not type(part).__module__.startswith(_HOMES):
        return False
    inner = (v for value in vars(part).values() for v in (value if isinstance(value, list | tuple) else [value]))
    return all(_known(v) for v in inner if isinstance(v, dist.Distribution | Transform))
