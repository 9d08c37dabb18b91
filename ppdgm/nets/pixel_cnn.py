"""The gated PixelCNN: causal convolutions over images, pixel by pixel in rows."""

from __future__ import annotations

from math import prod

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.native import Padding
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Shapes, apply_dense, dense, glorot, zeros
from ppdgm.nets.causal import CausalNet
from ppdgm.nets.convolutional import Image
from ppdgm.specs import PositiveInt


class GatedPixelCNN(CausalNet):
    """Two stacks of convolutions: the vertical one sees all rows above a pixel, the horizontal one also its left.

    van den Oord et al. 2016, arXiv:1606.05328. In each layer h = tanh(W_f ∗ h + V_f c) σ(W_g ∗ h + V_g c), with c the
    condition: a vector, or a map of the image's height and width. The vertical stack feeds the horizontal one, which
    has residual connections, so that a pixel sees all pixels before it, without a blind spot. The colours of a pixel
    come one after the other: the features are divided among them. Parameters: `layers.<i>.vertical`, `.horizontal`,
    `.between`, `.residual`, `.condition` and `outputs.<0|1>`, each with `.weight` and `.bias`; `position`.

    Args:
        channels: the number of features of each stack; for colours, a multiple of their number.
        layers: the number of layers.
        first_kernel: the width of the first layer's kernel, in pixels; odd, at least 3.
        kernel: the width of the others; odd. A pixel sees R = first_kernel // 2 + (layers − 1) (kernel // 2) columns to
            each side, and R + 1 rows above it: a small window leaves what is far away to a latent.
        hidden: the number of features before the output.
        position: whether each pixel has a bias of its own, `position`, which starts from the data. Convolutions alone
            are the same everywhere, and know where they are only if they see an edge.
    """

    channels: PositiveInt = 64
    layers: PositiveInt = 7
    first_kernel: PositiveInt = 7
    kernel: PositiveInt = 3
    hidden: PositiveInt = 64
    position: bool = True

    def causal_params(self, event: tuple[int, ...], condition: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        image, width = self._image(event), self.channels
        for name in ("channels", "hidden"):
            if getattr(self, name) % image.channels:
                raise SpecError(
                    f"GatedPixelCNN.{name}: got {getattr(self, name)}, expected a multiple of {image.channels}, the "
                    "number of colours: the features are divided among them."
                )
        for name, least in (("first_kernel", 3), ("kernel", 1)):  # with a first kernel of 1, no pixel sees its row
            if getattr(self, name) % 2 == 0 or getattr(self, name) < least:
                raise SpecError(
                    f"GatedPixelCNN.{name}: got {getattr(self, name)}, expected an odd number, at least {least}."
                )
        shapes: Shapes = {}
        for i in range(self.layers):
            inputs, reach = (image.channels if i == 0 else width), self._reach(i)
            shapes |= _conv(f"layers.{i}.vertical", inputs, 2 * width, (reach + 1, 2 * reach + 1), split=2)
            shapes |= _conv(f"layers.{i}.between", 2 * width, 2 * width, split=2)
            shapes |= _conv(f"layers.{i}.horizontal", inputs, 2 * width, (1, reach + 1), split=2)
            shapes |= _conv(f"layers.{i}.residual", width, width)
            if len(condition) == 1:
                shapes |= dense(f"layers.{i}.condition", condition[0], 4 * width, split=4)
            elif condition:
                shapes |= _conv(f"layers.{i}.condition", self._map_channels(image, condition), 4 * width, split=4)
        rows = prod(outputs) // (image.height * image.width)
        shapes |= _conv("outputs.0", width, self.hidden) | _conv("outputs.1", self.hidden, rows)
        return shapes | ({"position": ((rows, image.height, image.width), zeros)} if self.position else {})

    @property
    def last_bias(self) -> str:
        return "position" if self.position else "outputs.1.bias"

    def order(self, event: tuple[int, ...]) -> np.ndarray:
        image = self._image(event)
        pixel = np.arange(image.height * image.width).reshape(1, image.height, image.width)
        return (pixel * image.channels + np.arange(image.channels)[:, None, None]).reshape(event)

    def causal(
        self, P: Vocabulary, x: Array, condition: Array | None, event: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Array:
        xp, image = P.xp, self._image(event)
        vertical = horizontal = xp.reshape(x, (*x.shape[: x.ndim - len(event)], *image))
        for i in range(self.layers):
            reach, own = self._reach(i), f"layers.{i}"
            above = _apply(P, f"{own}.vertical", vertical, ((reach, 0), (reach, reach)))
            row = _apply(P, f"{own}.horizontal", horizontal, ((0, 0), (reach, 0)), self._centre(P, i, image.channels))
            row = row + _apply(P, f"{own}.between", _down(P, above))
            if condition is not None:
                seen = _conditioned(P, f"{own}.condition", condition)
                above, row = above + seen[..., : 2 * self.channels, :, :], row + seen[..., 2 * self.channels :, :, :]
            vertical, row = _gated(P, above), _gated(P, row)
            row = _apply(P, f"{own}.residual", row, mask=self._mask(P, image.channels, self.channels, self.channels))
            horizontal = row if i == 0 else horizontal + row
        relu = lambda h: P.activation("relu", h)
        h = _apply(P, "outputs.0", relu(horizontal), mask=self._mask(P, image.channels, self.channels, self.hidden))
        count = prod(outputs) // (image.height * image.width)
        h = _apply(
            P, "outputs.1", P.activation("relu", h), mask=self._mask(P, image.channels, self.hidden, count, True)
        )
        h = h + P.param("position") if self.position else h
        return xp.reshape(h, (*h.shape[:-3], *outputs))

    def _reach(self, i: int) -> int:
        return (self.first_kernel if i == 0 else self.kernel) // 2

    def _image(self, event: tuple[int, ...]) -> Image:
        if len(event) not in (2, 3):
            raise SpecError(
                f"GatedPixelCNN: got rows of shape {event}, expected images (height, width) or "
                "(colours, height, width)."
            )
        return Image(*((1, *event) if len(event) == 2 else event))

    @staticmethod
    def _map_channels(image: Image, condition: tuple[int, ...]) -> int:
        if len(condition) == 3 and condition[1:] == (image.height, image.width):
            return condition[0]
        raise SpecError(
            f"GatedPixelCNN: got a condition of shape {condition}, expected a vector (C,), or a map "
            f"(C, {image.height}, {image.width}) with a value for each pixel."
        )

    def _centre(self, P: Vocabulary, i: int, colours: int) -> Array | None:
        """1 where the horizontal kernel may look: in the first layer at earlier colours of the pixel, not at itself."""
        if i > 0 and colours == 1:
            return None
        inputs, reach = (colours if i == 0 else self.channels), self._reach(i)
        seen = _colours(inputs, colours)[None, :] < _colours(self.channels, colours)[:, None] + (i > 0)
        mask = np.ones((2, self.channels, inputs, 1, reach + 1))
        mask[..., 0, reach] = seen
        return P.constant(mask.reshape(2 * self.channels, inputs, 1, reach + 1))

    def _mask(self, P: Vocabulary, colours: int, inputs: int, outputs: int, last: bool = False) -> Array | None:
        """1 where features of a colour may see those of another, [outputs, inputs, 1, 1]; None for a single colour."""
        if colours == 1:
            return None
        of = np.arange(outputs) % colours if last else _colours(outputs, colours)
        return P.constant((_colours(inputs, colours)[None, :] <= of[:, None])[..., None, None])


def _colours(features: int, colours: int) -> np.ndarray:
    """The colour of each feature: equal groups, one after the other."""
    return np.arange(features) * colours // features


def _conv(name: str, inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), split: int = 1) -> Shapes:
    """A convolution's weight and bias; it may be `split` convolutions of equal width, side by side."""
    init = glorot(inputs * prod(kernel), outputs // split * prod(kernel))
    return {f"{name}.weight": ((outputs, inputs, *kernel), init), f"{name}.bias": ((outputs,), zeros)}


def _apply(P: Vocabulary, name: str, x: Array, padding: Padding = 0, mask: Array | None = None) -> Array:
    """The convolution of x [..., C, H, W]."""
    weight = P.param(f"{name}.weight")
    flat = P.xp.reshape(x, (-1, *x.shape[-3:]))
    y = P.conv2d(flat, weight if mask is None else weight * mask, P.param(f"{name}.bias"), 1, padding)
    return P.xp.reshape(y, (*x.shape[:-3], *y.shape[1:]))


def _conditioned(P: Vocabulary, name: str, condition: Array) -> Array:
    """V c: the same for all pixels if c is a vector, [..., C, 1, 1], or [..., C, H, W]."""
    if P.param(f"{name}.weight").ndim == 2:
        return apply_dense(P, name, condition)[..., None, None]
    return _apply(P, name, condition)


def _down(P: Vocabulary, x: Array) -> Array:
    """x [..., H, W], one row lower: a row sees what lies above it."""
    return P.xp.concat([P.xp.zeros_like(x[..., :1, :]), x[..., :-1, :]], axis=-2)


def _gated(P: Vocabulary, x: Array) -> Array:
    """tanh of the first half of the channels times the sigmoid of the second, [..., 2 C, H, W] to [..., C, H, W]."""
    half = x.shape[-3] // 2
    return P.xp.tanh(x[..., :half, :, :]) * P.activation("sigmoid", x[..., half:, :, :])
