"""Convolutional nets: an encoder of images, and a decoder to images."""

from __future__ import annotations

from itertools import pairwise
from math import prod

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Shapes, apply_dense, dense, lead, unflatten
from ppdgm.nets.convolutional import Convolutional, as_image, sizes_of, weights
from ppdgm.specs import Shape


class ConvEncoder(Convolutional):
    """Strided convolutions, then `residual` blocks of two 3×3 convolutions, then a linear layer.

    Parameters: `convs.<i>.weight` [out, in, k, k], `.bias`; `blocks.<i>.<0|1>` in the same way; `output`; and with a
    norm `.norm.scale` and `.norm.shift` of each convolution. With gates, a weight [2 out, …] holds W, then V.

    Args:
        channels: the number of channels of each strided convolution, from the image inwards.
    """

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        image = as_image(self, inputs)
        shapes: Shapes = {}
        for i, (a, b) in enumerate(pairwise((image.channels, *self.channels))):
            shapes |= self._conv(f"convs.{i}", a, b, self.kernel, gated=self.gated) | self._norm(f"convs.{i}", b)
        last = (image.channels, *self.channels)[-1]
        h, w = sizes_of(self, image)[-1]
        return shapes | self._residual(last) | dense("output", last * h * w, prod(outputs))

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        leading = lead(x, inputs)
        h = P.xp.reshape(x, (-1, *as_image(self, inputs)))
        for i in range(len(self.channels)):
            h = P.conv2d(h, *weights(P, f"convs.{i}"), self.stride, self.padding)
            h = self._finish(P, f"convs.{i}", h, leading)
        h = P.activation(self.activation, self._apply_residual(P, h, leading)) if self.residual else h
        h = apply_dense(P, "output", P.xp.reshape(h, (*leading, prod(h.shape[1:]))))
        return unflatten(P, h, outputs)


class ConvDecoder(Convolutional):
    """A linear layer, `residual` blocks of two 3×3 convolutions, then strided transposed convolutions to the image.

    The mirror of `ConvEncoder`. Parameters: `input`; `blocks.<i>.<0|1>`; `convs.<i>.weight` [in, out, k, k], `.bias`.

    Args:
        channels: the number of channels before each transposed convolution, towards the image.
    """

    channels: Shape = (64, 32)

    @property
    def last_bias(self) -> str:
        return f"convs.{len(self.channels) - 1}.bias"

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        if not self.channels:
            raise SpecError("ConvDecoder.channels: got (), expected at least one number of channels.")
        image = as_image(self, outputs)
        h, w = sizes_of(self, image)[-1]
        first, split = self.channels[0], 1 + self.gated
        shapes = dense("input", prod(inputs), split * first * h * w, split)
        shapes |= self._norm("input", first) | self._residual(first)
        widths = (*self.channels, image.channels)
        for i, (a, b) in enumerate(pairwise(widths)):
            last = i == len(self.channels) - 1
            shapes |= self._conv(f"convs.{i}", a, b, self.kernel, transposed=True, gated=self.gated and not last)
            shapes |= {} if last else self._norm(f"convs.{i}", b)
        return shapes

    def _lost(self, small: int, large: int) -> int:
        """The number of rows of the larger image that the transpose misses, because the convolution rounds down."""
        return large - ((small - 1) * self.stride - 2 * self.padding + self.kernel)

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        sizes = sizes_of(self, as_image(self, outputs))[::-1]
        flat, leading = P.xp.reshape(x, (-1, prod(inputs))), lead(x, inputs)
        h = P.xp.reshape(apply_dense(P, "input", flat), (-1, self.channels[0] * (1 + self.gated), *sizes[0]))
        h = self._finish(P, "input", h, leading)
        h = P.activation(self.activation, self._apply_residual(P, h, leading)) if self.residual else h
        for i, (before, after) in enumerate(pairwise(sizes)):
            extra = (self._lost(before[0], after[0]), self._lost(before[1], after[1]))
            h = P.conv_transpose2d(h, *weights(P, f"convs.{i}"), self.stride, self.padding, extra)
            if i < len(self.channels) - 1:
                h = self._finish(P, f"convs.{i}", h, leading)
        return P.xp.reshape(h, (*leading, *outputs))
