"""Shared by convolutional nets, over images [C, H, W]; an event [H, W] is one channel."""

from __future__ import annotations

from math import prod
from typing import Literal, NamedTuple

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Activation, Depth, Dropout, Net, Shapes, glorot, zeros
from ppdgm.nets.norms import image_norm, norm, running
from ppdgm.specs import NonNegativeInt, PositiveInt, Shape

_COLOURS, _WIDE = 4, 8  # an image is taken for [H, W, C] if C is at most the first, and H and W at least the second


class Convolutional(Net):
    """The fields that encoder and decoder share.

    Args:
        channels: the number of channels of each strided convolution.
        kernel, stride, padding: of each strided convolution, in pixels.
        activation: the function after each convolution.
        norm: "group" normalises before each activation, over `groups` groups of channels. "batch" normalises each
            channel over the rows of the minibatch in training, and with running means elsewhere.
        groups: the number of groups; it divides every number of channels.
        dropout: the probability with which a number after an activation is set to 0, in training only.
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
    norm: Literal["group", "batch"] | None = None
    groups: PositiveInt = 8
    dropout: Dropout = 0.0
    residual: Depth = 0
    gated: bool = False
    narrow: bool = False

    def states(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        return running(self.params(inputs, outputs)) if self.norm == "batch" else {}

    def _finish(self, P: Vocabulary, name: str, h: Array, rows: tuple[int, ...]) -> Array:
        """Norm and activation after a convolution, and its gate. `rows` are the dimensions before the image."""
        if not self.gated:
            return self._activate(P, name, h, rows)
        h, gate = channel_halves(h)
        return self._activate(P, name, h, rows) * P.activation("sigmoid", gate)

    def _activate(self, P: Vocabulary, name: str, h: Array, rows: tuple[int, ...]) -> Array:
        h = P.activation(self.activation, image_norm(P, self.norm, f"{name}.norm", h, self.groups, rows))
        return P.dropout(h, self.dropout)

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
        if self.norm == "group" and channels % self.groups:
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

    def _apply_residual(self, P: Vocabulary, h: Array, rows: tuple[int, ...]) -> Array:
        for i in range(self.residual):
            r = h
            for j in (0, 1):
                r = self._activate(P, f"blocks.{i}.{j}", r, rows)
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
            f"Move them: x = np.moveaxis(x, -1, 1), with event_shape={(c, h, w)}; load_data does this with "
            f"channels='last' (--set data.channels=last). If these are {h} channels of {w}×{c} pixels, set narrow=True."
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
