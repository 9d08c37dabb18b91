"""Convolutional nets over images [C, H, W]; an event [H, W] is one channel."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal, NamedTuple

from ppdgm.errors import SpecError
from ppdgm.language import Array, Vocabulary
from ppdgm.nets.base import (
    Activation,
    Depth,
    Net,
    Shapes,
    apply_dense,
    dense,
    glorot,
    group_norm,
    lead,
    norm,
    unflatten,
    zeros,
)
from ppdgm.spec import NonNegativeInt, PositiveInt, Shape


class _Convolutional(Net):
    """The fields that encoder and decoder share.

    Args:
        channels: of each strided convolution.
        kernel, stride, padding: of each strided convolution, in pixels.
        activation: after each convolution.
        norm: "group" normalises before each activation, over `groups` groups of channels.
        groups: of channels; a divisor of each number of them.
        residual: number of residual blocks, h ← h + conv(a(conv(a(h)))).
    """

    channels: Shape = (32, 64)
    kernel: PositiveInt = 4
    stride: PositiveInt = 2
    padding: NonNegativeInt = 1
    activation: Activation = "relu"
    norm: Literal["group"] | None = None
    groups: PositiveInt = 8
    residual: Depth = 0

    def _finish(self, P: Vocabulary, name: str, h: Array) -> Array:
        """Norm and activation after a convolution."""
        if self.norm:
            h = group_norm(P, f"{name}.norm", h, self.groups)
        return P.activation(self.activation, h)

    def _conv(self, name: str, inputs: int, outputs: int, kernel: int, transposed: bool = False) -> Shapes:
        shape = (inputs, outputs) if transposed else (outputs, inputs)
        area = kernel * kernel
        return {
            f"{name}.weight": ((*shape, kernel, kernel), glorot(inputs * area, outputs * area)),
            f"{name}.bias": ((outputs,), zeros),
        }

    def _norm(self, name: str, channels: int) -> Shapes:
        if not self.norm:
            return {}
        if channels % self.groups:
            raise SpecError(
                f"{type(self).__name__}.groups: got {self.groups}; expected a divisor of {channels} channels."
            )
        return norm(f"{name}.norm", channels)

    def _residual(self, channels: int) -> Shapes:
        shapes: Shapes = {}
        for i in range(self.residual):
            for j in (0, 1):
                shapes |= self._conv(f"blocks.{i}.{j}", channels, channels, 3)
                shapes |= self._norm(f"blocks.{i}.{j}", channels)
        return shapes

    def _apply_residual(self, P: Vocabulary, h: Array) -> Array:
        for i in range(self.residual):
            r = h
            for j in (0, 1):
                r = self._finish(P, f"blocks.{i}.{j}", r)
                r = P.conv2d(r, *_weights(P, f"blocks.{i}.{j}"), 1, 1)
            h = h + r
        return h


class ConvEncoder(_Convolutional):
    """Strided convolutions, then `residual` blocks of two 3×3 convolutions, then a linear layer.

    Parameters: `convs.<i>.weight` [out, in, k, k], `.bias`; `blocks.<i>.<0|1>` likewise; `output`; a norm's
    `.norm.scale` and `.norm.shift` stand beside the convolution.

    Args:
        channels: of each strided convolution, from the image inwards.
    """

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        image = _image(self, inputs)
        shapes: Shapes = {}
        for i, (a, b) in enumerate(pairwise((image.channels, *self.channels))):
            shapes |= self._conv(f"convs.{i}", a, b, self.kernel) | self._norm(f"convs.{i}", b)
        last = (image.channels, *self.channels)[-1]
        h, w = _sizes(self, image)[-1]
        return shapes | self._residual(last) | dense("output", last * h * w, prod(outputs))

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        leading = lead(x, inputs)
        h = P.xp.reshape(x, (-1, *_image(self, inputs)))
        for i in range(len(self.channels)):
            h = P.conv2d(h, *_weights(P, f"convs.{i}"), self.stride, self.padding)
            h = self._finish(P, f"convs.{i}", h)
        h = P.activation(self.activation, self._apply_residual(P, h)) if self.residual else h
        h = apply_dense(P, "output", P.xp.reshape(h, (*leading, prod(h.shape[1:]))))
        return unflatten(P, h, outputs)


class ConvDecoder(_Convolutional):
    """A linear layer, `residual` blocks of two 3×3 convolutions, then strided transposed convolutions to the image.

    The mirror of `ConvEncoder`. Parameters: `input`; `blocks.<i>.<0|1>`; `convs.<i>.weight` [in, out, k, k], `.bias`.

    Args:
        channels: before each transposed convolution, towards the image.
    """

    channels: Shape = (64, 32)

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        if not self.channels:
            raise SpecError("ConvDecoder.channels: got (); expected at least one.")
        image = _image(self, outputs)
        h, w = _sizes(self, image)[-1]
        first = self.channels[0]
        shapes = dense("input", prod(inputs), first * h * w) | self._norm("input", first) | self._residual(first)
        widths = (*self.channels, image.channels)
        for i, (a, b) in enumerate(pairwise(widths)):
            shapes |= self._conv(f"convs.{i}", a, b, self.kernel, transposed=True)
            if i < len(self.channels) - 1:
                shapes |= self._norm(f"convs.{i}", b)
        return shapes

    def _lost(self, small: int, large: int) -> int:
        """Rows of the larger image that a strided convolution's rounding hides from its transpose."""
        return large - ((small - 1) * self.stride - 2 * self.padding + self.kernel)

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        sizes = _sizes(self, _image(self, outputs))[::-1]
        flat = P.xp.reshape(x, (-1, prod(inputs)))
        h = P.xp.reshape(apply_dense(P, "input", flat), (-1, self.channels[0], *sizes[0]))
        h = self._finish(P, "input", h)
        h = P.activation(self.activation, self._apply_residual(P, h)) if self.residual else h
        for i, (before, after) in enumerate(pairwise(sizes)):
            extra = (self._lost(before[0], after[0]), self._lost(before[1], after[1]))
            h = P.conv_transpose2d(h, *_weights(P, f"convs.{i}"), self.stride, self.padding, extra)
            if i < len(self.channels) - 1:
                h = self._finish(P, f"convs.{i}", h)
        return P.xp.reshape(h, (*lead(x, inputs), *outputs))


class _Image(NamedTuple):
    channels: int
    height: int
    width: int


def _weights(P: Vocabulary, name: str) -> tuple[Array, Array]:
    return P.param(f"{name}.weight"), P.param(f"{name}.bias")


def _image(net: Net, event: tuple[int, ...]) -> _Image:
    """The event as [C, H, W]: leading dimensions are channels."""
    if len(event) < 2:
        raise SpecError(
            f"{type(net).__name__} works on images: got an event of shape {event}, expected [H, W] or [C, H, W]. "
            "Give event_shape=(28, 28), say, or use an MLP."
        )
    return _Image(prod(event[:-2]), event[-2], event[-1])


def _sizes(net: _Convolutional, image: _Image) -> list[tuple[int, int]]:
    """Height and width before and after each strided convolution, from the image inwards."""
    sizes = [(image.height, image.width)]
    for _ in net.channels:
        h, w = ((n + 2 * net.padding - net.kernel) // net.stride + 1 for n in sizes[-1])
        if min(h, w) < 1:
            raise SpecError(
                f"{type(net).__name__}.channels: {len(net.channels)} strided convolutions are too many for an image of "
                f"{image.height}×{image.width}; expected at most {len(sizes) - 1}."
            )
        sizes.append((h, w))
    return sizes
