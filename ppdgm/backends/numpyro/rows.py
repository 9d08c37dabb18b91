"""Particles of a plain pair's runs, and what answers its statements."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ppdgm.language.native import Message, Tree
from ppdgm.language.vocabulary import Array

Places = Callable[[int, int | None], Array | None]  # answers for the data plate
Values = Callable[[Message], Tree]  # answers for parameters


def over_particles(*arrays: Array) -> Callable[..., Callable[..., Tree]]:
    """`jax.vmap`; or one particle after the other if none of the arrays is traced: NumPyro's checks need numbers."""
    return jax.vmap if any(isinstance(a, jax.core.Tracer) for a in arrays) else _in_turn


def _in_turn(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """Like `jax.vmap`, with concrete values."""

    def mapped(*args: Tree) -> Tree:
        n = len(args[0])
        parts = [function(*jax.tree.map(lambda a, i=i: a[i], args)) for i in range(n)]
        return jax.tree.map(lambda *same: jnp.stack(same), *parts)

    return mapped
