"""Reversible nets: their blocks are invertible, so training keeps only the last block's output."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Literal

from pydantic import field_validator

from ppdgm.errors import SpecError
from ppdgm.language.pure import Map
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import (
    Activation,
    Depth,
    Net,
    Shapes,
    apply_dense,
    dense,
    flatten,
    glorot,
    lead,
    unflatten,
    zeros,
)
from ppdgm.nets.norms import group_norm, layer_norm, norm
from ppdgm.specs import PositiveInt

Half = Callable[[Vocabulary, str, Array], Array]  # F or G, by its name, of one half


class RevNet(Net):
    """Reversible residual perceptron: y₁ = x₁ + F(x₂), y₂ = x₂ + G(y₁) in each block, F(h) = W₂ a(W₁ a(norm(h))).

    Gomez et al. 2017, arXiv:1707.04585. x₁ and x₂ are the halves of the features. The backward pass finds them again
    from y₁ and y₂, so memory does not grow with `blocks`, for one more computation of each block. Parameters: `input`,
    `output` and `blocks.<i>.<f|g>.<0|1>`, each `.weight` and `.bias`, and with a norm `blocks.<i>.<f|g>.norm`.

    Args:
        width: the number of features; even.
        blocks: number of reversible blocks.
        activation: a, inside the blocks and before the output layer.
        norm: "layer" normalises the input of F and G; without, features of many blocks grow, and their inverse is less
            exact.
    """

    width: PositiveInt = 200
    blocks: Depth = 2
    activation: Activation = "silu"
    norm: Literal["layer"] | None = "layer"

    @field_validator("width")
    @classmethod
    def _is_even(cls, width: int) -> int:
        if width % 2:
            raise ValueError("an even number: each block moves one half of the features by the other")
        return width

    @property
    def last_bias(self) -> str:
        return "output.bias"

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        half, shapes = self.width // 2, dense("input", prod(inputs), self.width)
        for i in range(self.blocks):
            for name in (f"blocks.{i}.f", f"blocks.{i}.g"):
                shapes |= dense(f"{name}.0", half, half) | dense(f"{name}.1", half, half)
                shapes |= norm(f"{name}.norm", half) if self.norm else {}
        return shapes | dense("output", self.width, prod(outputs))

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        h = apply_dense(P, "input", flatten(P, x, inputs))
        h = P.reversible([coupled(f"blocks.{i}", self._half, -1) for i in range(self.blocks)], h)
        return unflatten(P, apply_dense(P, "output", P.activation(self.activation, h)), outputs)

    def _half(self, P: Vocabulary, name: str, h: Array) -> Array:
        h = layer_norm(P, f"{name}.norm", h) if self.norm else h
        h = apply_dense(P, f"{name}.0", P.activation(self.activation, h))
        return apply_dense(P, f"{name}.1", P.activation(self.activation, h))


class IRevNet(Net):
    """Invertible encoder of images: levels of squeeze and reversible blocks of 3×3 convolutions; then a linear layer.

    Jacobsen et al. 2018, arXiv:1802.07088. A squeeze makes four channels of each 2×2 pixels, so that all but the linear
    layer loses nothing. F and G are conv(a(norm(conv(a(norm(h)))))) of half of the channels; memory does not grow with
    the number of blocks. Parameters: `levels.<l>.<i>.<f|g>.<0|1>` and `output`, each `.weight` and `.bias`, and
    `levels.<l>.<i>.<f|g>.<0|1>.norm`.

    Args:
        levels: the number of levels; height and width are multiples of 2^levels.
        blocks: number of reversible blocks of each level.
        hidden: the number of channels between the two convolutions.
        activation: a.
    """

    levels: PositiveInt = 2
    blocks: Depth = 2
    hidden: PositiveInt = 32
    activation: Activation = "silu"

    @property
    def last_bias(self) -> str:
        return "output.bias"

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        shapes: Shapes = {}
        channels = self._image(inputs)[0]
        for level in range(self.levels):
            channels *= 4
            for i in range(self.blocks):
                for half in ("f", "g"):
                    for j, (a, b) in enumerate([(channels // 2, self.hidden), (self.hidden, channels // 2)]):
                        name = f"levels.{level}.{i}.{half}.{j}"
                        shapes[f"{name}.weight"] = ((b, a, 3, 3), glorot(9 * a, 9 * b))
                        shapes[f"{name}.bias"] = ((b,), zeros)
                        shapes |= norm(f"{name}.norm", a)
        return shapes | dense("output", prod(inputs), prod(outputs))

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        blocks: list[tuple[str, Map, Map]] = []
        for level in range(self.levels):
            blocks.append((f"levels.{level}.squeeze", squeeze, unsqueeze))
            blocks += [coupled(f"levels.{level}.{i}", self._half, -3) for i in range(self.blocks)]
        h = P.reversible(blocks, P.xp.reshape(x, (-1, *self._image(inputs))))
        h = apply_dense(P, "output", P.xp.reshape(h, (*lead(x, inputs), prod(inputs))))
        return unflatten(P, h, outputs)

    def _half(self, P: Vocabulary, name: str, h: Array) -> Array:
        for j in (0, 1):
            h = P.activation(self.activation, group_norm(P, f"{name}.{j}.norm", h, 1))
            h = P.conv2d(h, P.param(f"{name}.{j}.weight"), P.param(f"{name}.{j}.bias"), 1, 1)
        return h

    def _image(self, event: tuple[int, ...]) -> tuple[int, int, int]:
        """(C, H, W) of [H, W] or [C, H, W]."""
        step = 2**self.levels
        if len(event) not in (2, 3):
            raise SpecError(
                f"IRevNet works on images: got an event of shape {event}, expected [H, W] or [C, H, W]. Give a shape "
                "such as event_shape=(28, 28), or use a RevNet."
            )
        channels, height, width = event if len(event) == 3 else (1, *event)
        if height % step or width % step:
            raise SpecError(
                f"IRevNet.levels: got {self.levels} for images of {height}×{width}, expected multiples of {step}: each "
                "level halves both. Give fewer levels, or pad the images."
            )
        return channels, height, width


def coupled(name: str, half: Half, axis: int) -> tuple[str, Map, Map]:
    """The block (name, f, f⁻¹) of y₁ = x₁ + F(x₂), y₂ = x₂ + G(y₁), with the halves side by side on an axis."""

    def forward(P: Vocabulary, x: Array) -> Array:
        first, second = _halves(x, axis)
        first = first + half(P, "f", second)
        return P.xp.concat([first, second + half(P, "g", first)], axis=axis)

    def inverse(P: Vocabulary, y: Array) -> Array:
        first, second = _halves(y, axis)
        second = second - half(P, "g", first)
        return P.xp.concat([first - half(P, "f", second), second], axis=axis)

    return name, forward, inverse


def _halves(x: Array, axis: int) -> tuple[Array, Array]:
    middle, rest = x.shape[axis] // 2, (slice(None),) * (-axis - 1)
    return x[(..., slice(None, middle), *rest)], x[(..., slice(middle, None), *rest)]


def squeeze(P: Vocabulary, h: Array) -> Array:
    """[N, C, H, W] to [N, 4 C, H/2, W/2]."""
    n, c, height, width = h.shape
    h = P.xp.reshape(h, (n, c, height // 2, 2, width // 2, 2))
    return P.xp.reshape(P.xp.permute_dims(h, (0, 1, 3, 5, 2, 4)), (n, 4 * c, height // 2, width // 2))


def unsqueeze(P: Vocabulary, h: Array) -> Array:
    """The inverse of `squeeze`."""
    n, c, height, width = h.shape
    h = P.xp.reshape(h, (n, c // 4, 2, 2, height, width))
    return P.xp.reshape(P.xp.permute_dims(h, (0, 1, 4, 2, 5, 3)), (n, c // 4, 2 * height, 2 * width))
