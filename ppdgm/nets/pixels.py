"""Shared by causal nets over images: shapes, convolutions, colours, conditions."""

from __future__ import annotations

from math import prod

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.native import Padding
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Shapes, apply_dense, dense, glorot, zeros
from ppdgm.nets.convolutional import Image


def image_of(net: object, event: tuple[int, ...]) -> Image:
    """The shape of rows that are images.

    Raises:
        SpecError: they are not.
    """
    if len(event) not in (2, 3):
        raise SpecError(
            f"{type(net).__name__}: got rows of shape {event}, expected images (height, width) or "
            "(colours, height, width)."
        )
    return Image(*((1, *event) if len(event) == 2 else event))


def map_channels(net: object, image: Image, condition: tuple[int, ...]) -> int:
    """The number of channels of a condition that is a map.

    Raises:
        SpecError: it is no map with a value for each pixel.
    """
    if len(condition) == 3 and condition[1:] == (image.height, image.width):
        return condition[0]
    raise SpecError(
        f"{type(net).__name__}: got a condition of shape {condition}, expected a vector (C,), or a map "
        f"(C, {image.height}, {image.width}) with a value for each pixel."
    )


def conv(name: str, inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), split: int = 1) -> Shapes:
    """A convolution's weight and bias; it may be `split` convolutions of equal width, side by side."""
    init = glorot(inputs * prod(kernel), outputs // split * prod(kernel))
    return {f"{name}.weight": ((outputs, inputs, *kernel), init), f"{name}.bias": ((outputs,), zeros)}


def condition_params(
    net: object, name: str, image: Image, condition: tuple[int, ...], outputs: int, split: int
) -> Shapes:
    """What `of_condition` reads; nothing if there is no condition.

    Raises:
        SpecError: the condition is neither a vector nor a map of the image's size.
    """
    if len(condition) == 1:
        return dense(name, condition[0], outputs, split=split)
    return conv(name, map_channels(net, image, condition), outputs, split=split) if condition else {}


def convolved(
    P: Vocabulary, name: str, x: Array, padding: Padding = 0, mask: Array | None = None, stride: int = 1
) -> Array:
    """The convolution of x [..., C, H, W]."""
    weight = P.param(f"{name}.weight")
    flat = P.xp.reshape(x, (-1, *x.shape[-3:]))
    y = P.conv2d(flat, weight if mask is None else weight * mask, P.param(f"{name}.bias"), stride, padding)
    return P.xp.reshape(y, (*x.shape[:-3], *y.shape[1:]))


def of_condition(P: Vocabulary, name: str, condition: Array) -> Array:
    """V c: the same for all pixels if c is a vector, [..., C, 1, 1], or [..., C, H, W]."""
    if P.param(f"{name}.weight").ndim == 2:
        return apply_dense(P, name, condition)[..., None, None]
    return convolved(P, name, condition)


def down(P: Vocabulary, x: Array) -> Array:
    """x [..., H, W], one row lower: a row sees what lies above it."""
    return P.xp.concat([P.xp.zeros_like(x[..., :1, :]), x[..., :-1, :]], axis=-2)


def right(P: Vocabulary, x: Array) -> Array:
    """x [..., H, W], one column to the right: a pixel sees what lies left of it."""
    return P.xp.concat([P.xp.zeros_like(x[..., :1]), x[..., :-1]], axis=-1)


def gated(P: Vocabulary, x: Array, axis: int = -3) -> Array:
    """tanh of the first half of the channels times the sigmoid of the second, [..., 2 C, H, W] to [..., C, H, W]."""
    first, second = split_channels(x, axis)
    return P.xp.tanh(first) * P.activation("sigmoid", second)


def split_channels(x: Array, axis: int = -3) -> tuple[Array, Array]:
    """The first and the second half of an axis that is counted from the end."""
    half, rest = x.shape[axis] // 2, (slice(None),) * (-1 - axis)
    return x[(..., slice(None, half), *rest)], x[(..., slice(half, None), *rest)]


def colour_of(features: int, colours: int) -> np.ndarray:
    """The colour of each feature: equal groups, one after the other."""
    return np.arange(features) * colours // features


def pixel_order(image: Image, event: tuple[int, ...]) -> np.ndarray:
    """The place of each number if pixels come in rows, and the colours of a pixel together."""
    pixel = np.arange(image.height * image.width).reshape(1, image.height, image.width)
    return np.tile(pixel, (image.channels, 1, 1)).reshape(event)
