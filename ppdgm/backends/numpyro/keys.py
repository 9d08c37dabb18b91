"""Keys of random draws, from seeds."""

from __future__ import annotations

import jax

from ppdgm.language.vocabulary import Array


def make_key(seed: int, *parts: int) -> Array:
    """The key of a seed of any size, of which JAX itself would use only the last 32 bits; `parts` give other keys."""
    key = jax.random.key(seed & 0xFFFFFFFF)
    while seed := seed >> 32:
        key = jax.random.fold_in(key, seed & 0xFFFFFFFF)
    for part in parts:
        key = jax.random.fold_in(key, part)
    return key
