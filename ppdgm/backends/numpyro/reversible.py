"""Invertible maps one after the other, whose backward pass finds what is computed on the way from the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from ppdgm.language.pure import InvertibleBlock
from ppdgm.language.vocabulary import Array

Owned = Sequence[Mapping[str, Array]]


def reversible(blocks: Sequence[InvertibleBlock], x: Array) -> Array:
    """f_n(… f_1(x)), of which only the result and the parameters are kept for the gradient.

    An inverse that did not depend on the gradient could be computed early: all of them would be kept. See `recomputed`.
    """

    def run(owned: Owned, x: Array) -> Array:
        for block, own in zip(blocks, owned, strict=True):
            x = block.forward(own, x)
        return x

    def forward(owned: Owned, x: Array) -> tuple[Array, tuple[Owned, Array]]:
        y = run(owned, x)
        return y, (owned, y)

    def backward(kept: tuple[Owned, Array], slope: Array) -> tuple[Owned, Array]:
        (owned, y), slopes = kept, []
        for block, own in reversed(list(zip(blocks, owned, strict=True))):
            y = jnp.where(jnp.isnan(jnp.sum(slope)), jnp.nan, y)  # always y, unless the gradient is lost in any case
            y = block.inverse(own, y)
            own_slope, slope = jax.vjp(block.forward, own, y)[1](slope)
            slopes.append(own_slope)
        return slopes[::-1], slope

    again = jax.custom_vjp(run)
    again.defvjp(forward, backward)
    found: Array = again([block.own for block in blocks], x)
    return found
