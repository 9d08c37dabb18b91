"""Shared by convolutional nets, over images [C, H, W]; an event [H, W] is one channel."""

from __future__ import annotations

from math import prod
from typing import Literal, NamedTuple

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Activation, Depth, Net, Shapes, glorot, group_norm, norm, zeros
from ppdgm.specs import NonNegativeInt, PositiveInt, Shape

_COLOURS, _WIDE = 4, 8  # an image is taken for [H, W, C] if C is at most the first, and H and W at least the second


class Convolutional(Net):
    """The fields that encoder and decoder share.

    Args:
        channels: the number of channels of each strided convolution.
        kernel, stride, padding: of each strided convolution, in pixels.
        activation: the function after each convolution.
        norm: "group" normalises before each activation, over `groups` groups of channels.
        groups: the number of groups; it divides every number of channels.
        residual: number of residual blocks, h ← h + conv(a(conv(a(h)))).
        gated: whether each convolution has a second one, V, that gates it, a(W ∗ h) · σ(V ∗ h): van den Oord et al.
            2016, arXiv:1606.05328. In a block only the second convolution is gated; the decoder's linear layer is too.
        narrow: whether images [C, H, W] of at most 4 columns are accepted. By default, if C and H are 8 or more, they
            are taken for images [H, W, C], with their channels last, and refused.
    """

    channels: Shape = (32, 64)
    kernel: PositiveInt = 4
    stride: PositiveInt = 2
    padding: NonNegativeInt = 1
    activation: Activation = "relu"
    norm: Literal["group"] | None = None
    groups: PositiveInt = 8
    residual: Depth = 0
    gated: bool = False
    narrow: bool = False

    def _finish(self, P: Vocabulary, name: str, h: Array) -> Array:
        """Norm and activation after a convolution, and its gate."""
        if not self.gated:
            return self._activate(P, name, h)
        h, gate = channel_halves(h)
        return self._activate(P, name, h) * P.activation("sigmoid", gate)

    def _activate(self, P: Vocabulary, name: str, h: Array) -> Array:
        if self.norm:
            h = group_norm(P, f"{name}.norm", h, self.groups)
        return P.activation(self.activation, h)

    def _conv(
        self, name: str, inputs: int, outputs: int, kernel: int, transposed: bool = False, gated: bool = False
    ) -> Shapes:
        width, area = outputs * (1 + gated), kernel * kernel
        shape = (inputs, width) if transposed else (width, inputs)
        return {
            f"{name}.weight": ((*shape, kernel, kernel), glorot(inputs * area, outputs * area)),
            f"{name}.bias": ((width,), zeros),
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
                shapes |= self._conv(f"blocks.{i}.{j}", channels, channels, 3, gated=self.gated and j == 1)
                shapes |= self._norm(f"blocks.{i}.{j}", channels)
        return shapes

    def _apply_residual(self, P: Vocabulary, h: Array) -> Array:
        for i in range(self.residual):
            r = h
            for j in (0, 1):
                r = self._activate(P, f"blocks.{i}.{j}", r)
                r = P.conv2d(r, *weights(P, f"blocks.{i}.{j}"), 1, 1)
            if self.gated:
                r, gate = channel_halves(r)
                r = r * P.activation("sigmoid", gate)
            h = h + r
        return h


class Image(NamedTuple):
    """The shape of an image."""

    channels: int
    height: int
    width: int


def weights(P: Vocabulary, name: str) -> tuple[Array, Array]:
    """A convolution's weight and bias."""
    return P.param(f"{name}.weight"), P.param(f"{name}.bias")


def channel_halves(h: Array) -> tuple[Array, Array]:
    """Channels [n, 2 C, H, W] as two halves: the values, and the gate on them."""
    channels = h.shape[1] // 2
    return h[:, :channels], h[:, channels:]


def as_image(net: Convolutional, event: tuple[int, ...]) -> Image:
    """The event as [C, H, W]: leading dimensions are channels.

    Raises:
        SpecError: the event is not an image, or its channels are last.
    """
    if len(event) < 2:
        raise SpecError(
            f"{type(net).__name__} works on images: got an event of shape {event}, expected [H, W] or [C, H, W]. Give "
            "a shape such as event_shape=(28, 28), or use an MLP."
        )
    if len(event) > 2 and min(event[-3:-1]) >= _WIDE and event[-1] <= _COLOURS and not net.narrow:
        h, w, c = event[-3:]
        raise SpecError(
            f"{type(net).__name__}: got images of shape {event}, whose channels seem to be last; expected [C, H, W]. "
            f"Move them: x = np.moveaxis(x, -1, 1), with event_shape={(c, h, w)}; load_data does this for a folder of "
            f"images. If these are {h} channels of {w}×{c} pixels, set narrow=True."
        )
    return Image(prod(event[:-2]), event[-2], event[-1])


def sizes_of(net: Convolutional, image: Image) -> list[tuple[int, int]]:
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
