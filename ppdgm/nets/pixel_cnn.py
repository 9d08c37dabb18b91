"""The gated PixelCNN: causal convolutions over images, pixel by pixel in rows."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Shapes, zeros
from ppdgm.nets.causal import CausalNet, Places
from ppdgm.nets.convolutional import Image
from ppdgm.nets.pixels import (
    colour_of,
    condition_params,
    conv,
    convolved,
    down,
    gated,
    image_of,
    of_condition,
    pixel_order,
)
from ppdgm.nets.row_by_row import RowByRow
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
        colours: "ordered", or "together": those of a pixel do not see each other, for a likelihood that draws them
            together, such as OneHot.
    """

    channels: PositiveInt = 64
    layers: PositiveInt = 7
    first_kernel: PositiveInt = 7
    kernel: PositiveInt = 3
    hidden: PositiveInt = 64
    position: bool = True
    colours: Literal["ordered", "together"] = "ordered"

    def causal_params(self, event: tuple[int, ...], condition: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        image, width = image_of(self, event), self.channels
        for name in ("channels", "hidden"):
            if getattr(self, name) % self.steps(image):
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
            inputs, reach = (image.channels if i == 0 else width), self.reach(i)
            shapes |= conv(f"layers.{i}.vertical", inputs, 2 * width, (reach + 1, 2 * reach + 1), split=2)
            shapes |= conv(f"layers.{i}.between", 2 * width, 2 * width, split=2)
            shapes |= conv(f"layers.{i}.horizontal", inputs, 2 * width, (1, reach + 1), split=2)
            shapes |= conv(f"layers.{i}.residual", width, width)
            shapes |= condition_params(self, f"layers.{i}.condition", image, condition, 4 * width, split=4)
        rows = prod(outputs) // (image.height * image.width)
        shapes |= conv("outputs.0", width, self.hidden) | conv("outputs.1", self.hidden, rows)
        return shapes | ({"position": ((rows, image.height, image.width), zeros)} if self.position else {})

    @property
    def last_bias(self) -> str:
        return "position" if self.position else "outputs.1.bias"

    def order(self, event: tuple[int, ...]) -> np.ndarray:
        image = image_of(self, event)
        if self.colours == "together":
            return pixel_order(image, event)
        pixel = np.arange(image.height * image.width).reshape(1, image.height, image.width)
        return (pixel * image.channels + np.arange(image.channels)[:, None, None]).reshape(event)

    def steps(self, image: Image) -> int:
        """The number of places of a pixel in the order: its colours, or 1 if they come together."""
        return image.channels if self.colours == "ordered" else 1

    def causal(
        self, P: Vocabulary, x: Array, condition: Array | None, event: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Array:
        xp, image = P.xp, image_of(self, event)
        vertical = horizontal = xp.reshape(x, (*x.shape[: x.ndim - len(event)], *image))
        for i in range(self.layers):
            reach, own = self.reach(i), f"layers.{i}"
            above = convolved(P, f"{own}.vertical", vertical, ((reach, 0), (reach, reach)))
            extra = [convolved(P, f"{own}.between", down(P, above))]
            if condition is not None:
                seen = of_condition(P, f"{own}.condition", condition)
                above = above + seen[..., : 2 * self.channels, :, :]
                extra.append(seen[..., 2 * self.channels :, :, :])
            vertical = gated(P, above)
            horizontal = self.across(P, i, horizontal, extra, image)
        h = self.read(P, horizontal, prod(outputs) // (image.height * image.width), image)
        h = h + P.param("position") if self.position else h
        return xp.reshape(h, (*h.shape[:-3], *outputs))

    def across(self, P: Vocabulary, i: int, h: Array, above: list[Array], image: Image) -> Array:
        """A layer of the horizontal stack [..., C, H, W]; `above` is what it gets from the rows above, as a sum."""
        row = convolved(P, f"layers.{i}.horizontal", h, ((0, 0), (self.reach(i), 0)), self._centre(P, i, image))
        for extra in above:
            row = row + extra
        mask = self._mask(P, image, self.channels, self.channels)
        row = convolved(P, f"layers.{i}.residual", gated(P, row), mask=mask)
        return row if i == 0 else h + row

    def read(self, P: Vocabulary, h: Array, rows: int, image: Image) -> Array:
        """The output of the horizontal stack, [..., rows, H, W], without `position`."""
        relu = lambda h: P.activation("relu", h)
        h = convolved(P, "outputs.0", relu(h), mask=self._mask(P, image, self.channels, self.hidden))
        return convolved(P, "outputs.1", relu(h), mask=self._mask(P, image, self.hidden, rows, True))

    def ancestral(self, P: Vocabulary, places: Places, condition: Array | None) -> Array:
        """The same as for the base class, row by row."""
        return RowByRow(self, P, places, condition).x()

    def reach(self, i: int) -> int:
        """How many pixels to each side layer i looks."""
        return (self.first_kernel if i == 0 else self.kernel) // 2

    def _centre(self, P: Vocabulary, i: int, image: Image) -> Array | None:
        """1 where the horizontal kernel may look: in the first layer at earlier colours of the pixel, not at itself."""
        colours = self.steps(image)
        if i > 0 and colours == 1:
            return None
        inputs, reach = (image.channels if i == 0 else self.channels), self.reach(i)
        seen = colour_of(inputs, colours)[None, :] < colour_of(self.channels, colours)[:, None] + (i > 0)
        mask = np.ones((2, self.channels, inputs, 1, reach + 1))
        mask[..., 0, reach] = seen
        return P.constant(mask.reshape(2 * self.channels, inputs, 1, reach + 1))

    def _mask(self, P: Vocabulary, image: Image, inputs: int, outputs: int, last: bool = False) -> Array | None:
        """1 where features of a colour may see those of another, [outputs, inputs, 1, 1]; None for a single colour."""
        if (colours := self.steps(image)) == 1:
            return None
        of = np.arange(outputs) % colours if last else colour_of(outputs, colours)
        return P.constant((colour_of(inputs, colours)[None, :] <= of[:, None])[..., None, None])
