"""Invertible maps one after the other, whose backward pass finds what is computed on the way from the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ppdgm.language.pure import InvertibleBlock
from ppdgm.language.vocabulary import Array


def reversible(blocks: Sequence[InvertibleBlock], x: Array) -> Array:
    """f_n(… f_1(x)), of which only the result and the parameters are kept for the gradient."""
    if not blocks:
        return x
    found: Array = _Reversible.apply(_Maps(blocks), x, *(v for block in blocks for v in block.own.values()))
    return found


class _Maps:
    """The maps of blocks, and the names of their parameters: one object, which torch.func does not look into."""

    def __init__(self, blocks: Sequence[InvertibleBlock]):
        self.maps = [(block.forward, block.inverse) for block in blocks]
        self.names = [list(block.own) for block in blocks]

    def owned(self, values: Sequence[Array]) -> list[dict[str, Array]]:
        """Each block's parameters, among the values of all."""
        rest = iter(values)
        return [{n: next(rest) for n in names} for names in self.names]


class _Reversible(torch.autograd.Function):
    """The blocks as one function of the array and all parameters."""

    @staticmethod
    def forward(maps: _Maps, x: Array, *values: Array) -> Array:
        for (forward, _), own in zip(maps.maps, maps.owned(values), strict=True):
            x = forward(own, x)
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Array) -> None:
        ctx.maps, _, *values = inputs
        ctx.save_for_backward(output, *values)

    @staticmethod
    def backward(ctx: Any, slope: Array) -> tuple[Array | None, ...]:
        y, *values = ctx.saved_tensors
        slopes: list[Array] = []
        for (forward, inverse), own in reversed(list(zip(ctx.maps.maps, ctx.maps.owned(values), strict=True))):
            y = inverse(own, y)
            own_slope, slope = torch.func.vjp(forward, own, y)[1](slope)
            slopes = [*own_slope.values(), *slopes]
        return None, slope, *slopes
