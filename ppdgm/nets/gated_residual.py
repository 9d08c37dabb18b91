"""Gated residual blocks of causal convolutions, of which PixelCNN++ and PixelSNAIL are made.

Salimans et al. 2017, arXiv:1701.05517, without their weight normalisation. Each stack of features [..., F, H, W] sees,
at a pixel, only pixels before it; so its convolutions may look at the pixel itself.
"""

from __future__ import annotations

from ppdgm.language.native import Padding
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Shapes
from ppdgm.nets.convolutional import Image
from ppdgm.nets.pixels import condition_params, conv, convolved, down, of_condition, right, split_channels

Kernel = tuple[int, int]

ABOVE, CORNER, POINT = (2, 3), (2, 2), (1, 1)  # the row above and this one; a pixel, its left and above; the pixel


def elu_twice(P: Vocabulary, x: Array) -> Array:
    """elu(x) and elu(−x) side by side, [..., 2 F, H, W]."""
    return P.activation("elu", P.xp.concat([x, -x], axis=-3))


def padding_of(kernel: Kernel) -> Padding:
    """Zeros above, and to the left; also to the right for a kernel of three columns, which sees only rows above."""
    h, w = kernel
    return (h - 1, 0), (1, 1) if w == 3 else (w - 1, 0)


def block_params(
    net: object, name: str, width: int, kernel: Kernel, beside: int, image: Image, condition: tuple[int, ...]
) -> Shapes:
    """Parameters of `block`: `.0`, `.1`, `.beside` and `.condition`, each with `.weight` and `.bias`.

    Args:
        net: whose block it is.
        name: of the block.
        width: F, the number of features.
        kernel: of its convolutions.
        beside: the number of features of what else it sees; 0 for none.
        image: the shape of the image.
        condition: the shape of the condition; () for none.
    """
    shapes = conv(f"{name}.0", 2 * width, width, kernel) | conv(f"{name}.1", 2 * width, 2 * width, kernel, split=2)
    shapes |= conv(f"{name}.beside", 2 * beside, width) if beside else {}
    return shapes | condition_params(net, f"{name}.condition", image, condition, 2 * width, split=2)


def block(
    P: Vocabulary, name: str, x: Array, kernel: Kernel, dropout: float, beside: Array | None, condition: Array | None
) -> Array:
    """x + a σ(b), with (a, b) = W₁ ∗ drop(e(W₀ ∗ e(x) + V e(beside))) + U c, and e(x) = elu(x, −x)."""
    h = convolved(P, f"{name}.0", elu_twice(P, x), padding_of(kernel))
    if beside is not None:
        h = h + convolved(P, f"{name}.beside", elu_twice(P, beside))
    h = convolved(P, f"{name}.1", P.dropout(elu_twice(P, h), dropout), padding_of(kernel))
    if condition is not None:
        h = h + of_condition(P, f"{name}.condition", condition)
    value, gate = split_channels(h)
    return x + value * P.activation("sigmoid", gate)


def first_params(name: str, colours: int, width: int) -> Shapes:
    """Parameters of `first_row` and `first_corner`; the input has a further channel of ones."""
    return conv(f"{name}.row", colours + 1, width, (1, 3)) | conv(f"{name}.left", colours + 1, width, (2, 1))


def with_ones(P: Vocabulary, x: Array) -> Array:
    """x with a channel of ones, which shows where the image ends."""
    return P.xp.concat([x, P.xp.ones_like(x[..., :1, :, :])], axis=-3)


def first_corner(P: Vocabulary, name: str, x: Array) -> Array:
    """Features of the three pixels above and of the two to the left, none of which is the pixel itself."""
    above = down(P, convolved(P, f"{name}.row", x, ((0, 0), (1, 1))))
    return above + right(P, convolved(P, f"{name}.left", x, ((1, 0), (0, 0))))
