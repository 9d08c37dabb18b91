"""PixelCNN++: causal convolutions at several resolutions."""

from __future__ import annotations

from math import prod

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Dropout, Shapes, glorot, zeros
from ppdgm.nets.causal import CausalNet
from ppdgm.nets.gated_residual import (
    ABOVE,
    CORNER,
    block,
    block_params,
    first_corner,
    first_params,
    padding_of,
    with_ones,
)
from ppdgm.nets.pixels import conv, convolved, down, image_of, pixel_order
from ppdgm.specs import PositiveInt


class PixelCNNPlusPlus(CausalNet):
    """Gated residual blocks at several resolutions, down and up again, with shortcuts.

    Salimans et al. 2017, arXiv:1701.05517, without weight normalisation. One stack sees the rows above a pixel, the
    other one also its left, so that there is no blind spot. The colours of a pixel do not see each other: use a
    likelihood that draws them together, as CoupledDiscretisedLogistics does. Parameters: `first.<above|row|left>`,
    `<down|up>.<level>.<i>.<above|corner>`, `<smaller|larger>.<level>.<above|corner>` and `output`, each with `.weight`
    and `.bias`.

    Args:
        channels: the number of features of each stack.
        levels: the number of resolutions: the image's, its half, …
        blocks: the number of blocks of a resolution on the way down; on the way up, one more but for the lowest.
        dropout: the probability of dropout, in training only.
    """

    channels: PositiveInt = 64
    levels: PositiveInt = 3
    blocks: PositiveInt = 3
    dropout: Dropout = 0.5

    def causal_params(self, event: tuple[int, ...], condition: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        image, width = image_of(self, event), self.channels
        scale = 2 ** (self.levels - 1)
        if image.height % scale or image.width % scale:
            raise SpecError(
                f"PixelCNNPlusPlus.levels: got {self.levels} for images of {image.height}×{image.width}, expected a "
                f"height and width that {self.levels - 1} halvings divide. Give fewer levels."
            )
        shapes = first_params("first", image.channels, width) | conv("first.above", image.channels + 1, width, ABOVE)
        each = lambda name, above, corner: (
            block_params(self, f"{name}.above", width, ABOVE, above, image, condition)
            | block_params(self, f"{name}.corner", width, CORNER, corner, image, condition)
        )
        for level in range(self.levels):
            for i in range(self.blocks):
                shapes |= each(f"down.{level}.{i}", 0, width)
            for i in range(self._ups(level)):
                shapes |= each(f"up.{level}.{i}", width, 2 * width)
            for name, kernel in (("above", ABOVE), ("corner", CORNER)) if level else ():
                shapes |= conv(f"smaller.{level}.{name}", width, width, kernel)
                shapes |= _transposed(f"larger.{level}.{name}", width, kernel)
        return shapes | conv("output", width, prod(outputs) // (image.height * image.width))

    @property
    def last_bias(self) -> str:
        return "output.bias"

    def order(self, event: tuple[int, ...]) -> np.ndarray:
        return pixel_order(image_of(self, event), event)

    def causal(
        self, P: Vocabulary, x: Array, condition: Array | None, event: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Array:
        xp, image = P.xp, image_of(self, event)
        x = with_ones(P, xp.reshape(x, (*x.shape[: x.ndim - len(event)], *image)))
        conditions = [self._at(P, condition, level) for level in range(self.levels)]
        above = down(P, convolved(P, "first.above", x, padding_of(ABOVE)))
        corner = first_corner(P, "first", x)
        kept = [(above, corner)]
        run = lambda name, x, kernel, beside, c: block(P, name, x, kernel, self.dropout, beside, c)
        for level, c in enumerate(conditions):
            if level:
                above = convolved(P, f"smaller.{level}.above", above, padding_of(ABOVE), stride=2)
                corner = convolved(P, f"smaller.{level}.corner", corner, padding_of(CORNER), stride=2)
                kept.append((above, corner))
            for i in range(self.blocks):
                above = run(f"down.{level}.{i}.above", above, ABOVE, None, c)
                corner = run(f"down.{level}.{i}.corner", corner, CORNER, above, c)
                kept.append((above, corner))
        kept.pop()
        for level, c in reversed(list(enumerate(conditions))):
            for i in range(self._ups(level)):
                across, corner_across = kept.pop()
                above = run(f"up.{level}.{i}.above", above, ABOVE, across, c)
                both = xp.concat(xp.broadcast_arrays(above, corner_across), axis=-3)
                corner = run(f"up.{level}.{i}.corner", corner, CORNER, both, c)
            if level:
                above, corner = _larger(P, f"larger.{level}.above", above), _larger(P, f"larger.{level}.corner", corner)
        h = convolved(P, "output", P.activation("elu", corner))
        return xp.reshape(h, (*h.shape[:-3], *outputs))

    def _ups(self, level: int) -> int:
        return self.blocks + (level < self.levels - 1)

    def _at(self, P: Vocabulary, condition: Array | None, level: int) -> Array | None:
        """The condition at a resolution: the means of a map over squares."""
        if condition is None or P.param("down.0.0.above.condition.weight").ndim == 2 or level == 0:
            return condition
        size, (h, w) = 2**level, condition.shape[-2:]
        squares = P.xp.reshape(condition, (*condition.shape[:-2], h // size, size, w // size, size))
        return P.xp.mean(squares, axis=(-3, -1))


def _transposed(name: str, width: int, kernel: tuple[int, int]) -> Shapes:
    """Parameters of a convolution that doubles height and width."""
    init = glorot(width * prod(kernel), width * prod(kernel))
    return {f"{name}.weight": ((width, width, *kernel), init), f"{name}.bias": ((width,), zeros)}


def _larger(P: Vocabulary, name: str, x: Array) -> Array:
    """x [..., F, H, W] to [..., F, 2 H, 2 W]: the pixels of a square see the corner that its small pixel stands for."""
    weight, xp = P.param(f"{name}.weight"), P.xp
    flat = xp.reshape(x, (-1, *x.shape[-3:]))
    y = P.conv_transpose2d(flat, weight, P.param(f"{name}.bias"), 2, 0, (0, 0))
    y = y[..., weight.shape[-1] - 2 :]  # three columns: the first stands left of the square
    return xp.reshape(y, (*x.shape[:-3], *y.shape[1:]))
