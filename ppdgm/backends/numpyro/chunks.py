"""Particles in chunks with JAX: `jax.lax.map` over chunks, which the backward pass computes again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from ppdgm.language.chunks import At, Read, as_arrays, unflat
from ppdgm.language.questions import Given
from ppdgm.language.vocabulary import Array, Trace


def in_chunks(read: Read, params: Mapping[str, Array], key: Array, given: Given, k: int, chunk: int) -> Trace:
    """The trace of K particles, read `chunk` at a time; each chunk has a key of its own.

    Args:
        read: a trace of some particles.
        params: by name; gradients pass to them, and to given values.
        key: of all draws.
        given: values of latents, [K, B, *event].
        k: K.
        chunk: the number of particles of a chunk; the last may be smaller.
    """
    led: dict[int, frozenset[At]] = {}  # by the number of particles

    def reading(n: int, params: Mapping[str, Array], key: Array, given: Given) -> dict[At, Array]:
        arrays, led[n] = as_arrays(read(params, key, n, given), n)
        return arrays

    full, rest = divmod(k, chunk)
    end, values = full * chunk, dict(given or {})
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(full + bool(rest)))
    each = jax.checkpoint(partial(reading, chunk), prevent_cse=False)  # in a loop, XLA can't merge the two readings
    cut = {n: jnp.reshape(v[:end], (full, chunk, *v.shape[1:])) for n, v in values.items()}
    found = jax.lax.map(lambda at: each(params, *at), (keys[:full], cut))
    joined = {at: jnp.reshape(v, (end, *v.shape[2:])) if at in led[chunk] else v[0] for at, v in found.items()}
    if rest:
        last = jax.checkpoint(partial(reading, rest))(params, keys[full], {n: v[end:] for n, v in values.items()})
        joined |= {at: jnp.concatenate([joined[at], last[at]]) for at in led[chunk]}
    return unflat(joined)


def by_chunks(function: Callable[..., Array], arrays: tuple[Array, ...], chunk: int) -> Array:
    """function(*arrays), [K, …], of arrays [K, …], a chunk at a time."""
    found: Array = jax.lax.map(lambda at: function(*(a[None] for a in at))[0], arrays, batch_size=chunk)
    return found
