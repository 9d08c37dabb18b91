"""A gated PixelCNN one row of pixels at a time: the vertical stack keeps the rows that its kernels still reach.

So it is computed once, as in one pass over the image. Of a row, the horizontal stack makes passes over all pixels at
once until nothing changes. Passes over the whole image would compute all rows as often as the slowest pixel needs.
"""

from __future__ import annotations

from math import prod
from typing import Protocol

import numpy as np

from ppdgm.language.quiet import undropped
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.causal import Places, without_overflow
from ppdgm.nets.convolutional import Image
from ppdgm.nets.pixels import convolved, gated, image_of, of_condition

State = tuple[Array, ...]


class Gated(Protocol):
    """What is needed of the net."""

    @property
    def channels(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def position(self) -> bool: ...
    def reach(self, i: int) -> int: ...
    def across(self, P: Vocabulary, i: int, h: Array, above: list[Array], image: Image) -> Array: ...
    def read(self, P: Vocabulary, h: Array, rows: int, image: Image) -> Array: ...
    def steps(self, image: Image) -> int: ...


class RowByRow:
    """x in the order of its rows. Inside, n are the leading dimensions, and images are [n, C, H, W].

    Args:
        net: the gated PixelCNN.
        P: in the scope of its parameters.
        places: the numbers of x.
        condition: [..., *condition], or None.
    """

    def __init__(self, net: Gated, P: Vocabulary, places: Places, condition: Array | None):
        self.net, self.P, self.places = net, P.told_to(undropped(P.interpreter)), places
        self.image, self.n = image_of(net, places.event), prod(places.leading)
        self.rows = prod(places.outputs) // (self.image.height * self.image.width)
        self.numbers = P.constant(np.arange(self.image.height)[:, None])
        self.conditions = [] if condition is None else [self._condition(i, condition) for i in range(net.layers)]

    def x(self) -> Array:
        """x, [*leading, *event]."""
        P, image, net = self.P, self.image, self.net
        zeros = lambda *shape: P.full((self.n, *shape, image.width), 0.0)
        aboves = [zeros(2 * net.channels, 1) for _ in range(net.layers)]  # the vertical stack in the row above
        windows = [zeros(net.channels if i else image.channels, net.reach(i)) for i in range(net.layers)]
        first = (zeros(image.channels, image.height), P.full((), 0.0), *aboves, *windows)
        found: State = P.repeat(image.height, self._row, first, early=True)  # without a gradient
        return P.xp.reshape(found[0], (*self.places.leading, *self.places.event))

    def _row(self, state: State) -> State:
        """One row of pixels, and then the vertical stack in it."""
        P, xp, net, image = self.P, self.P.xp, self.net, self.image
        x, y, *kept = state
        aboves, windows = kept[: net.layers], kept[net.layers :]
        seen = [self._at(c, y) if c.shape[-2] > 1 else c for c in self.conditions]
        seen_above, seen_across = ([c[:, half] for c in seen] for half in self._halves())
        between = [[convolved(P, f"layers.{i}.between", above)] for i, above in enumerate(aboves)]
        extra = [[*b, c] for b, c in zip(between, seen_across, strict=True)] if seen else between
        here = self.numbers == y
        position = self._at(P.param("position"), y) if net.position else None

        def passed(x: Array) -> Array:
            h = self._at(self._encoded(x), y)
            for i in range(net.layers):
                h = net.across(P, i, h, extra[i], image)
            h = net.read(P, h, self.rows, image)
            return xp.where(here, self._values(h if position is None else h + position), x)

        x = P.repeat(image.width * net.steps(image), passed, x, early=True)
        h, after = self._at(self._encoded(x), y), []
        for i, window in enumerate(windows):
            reach, wide = net.reach(i), xp.concat([window, h], axis=-2)
            above = convolved(P, f"layers.{i}.vertical", wide, ((0, 0), (reach, reach)))
            after.append((above, wide[..., 1:, :]))
            h = gated(P, above + seen_above[i] if seen else above)
        return (x, y + 1.0, *(above for above, _ in after), *(window for _, window in after))

    def _values(self, h: Array) -> Array:
        """All numbers [n, C, H, W] as if every row had this one's output [n, rows, 1, W]: a part draws whole images."""
        xp, image, places = self.P.xp, self.image, self.places
        wide = xp.broadcast_to(h, (self.n, self.rows, image.height, image.width))
        values = places.value(xp.reshape(wide, (*places.leading, *places.outputs)))
        return xp.reshape(values, (self.n, *image))

    def _encoded(self, x: Array) -> Array:
        """x as the net sees it, [n, C, H, W]."""
        xp, places = self.P.xp, self.places
        encoded = places.encoded(without_overflow(xp, xp.reshape(x, (*places.leading, *places.event))))
        return xp.reshape(encoded, (self.n, *self.image))

    def _at(self, x: Array, y: Array) -> Array:
        """A row of x [..., H, W], as [..., 1, W]."""
        xp = self.P.xp
        return xp.take(x, xp.astype(y[None], xp.int32), axis=-2)

    def _halves(self) -> tuple[slice, slice]:
        """The channels of a condition that the vertical and the horizontal stack see."""
        width = 2 * self.net.channels
        return slice(None, width), slice(width, None)

    def _condition(self, i: int, condition: Array) -> Array:
        """V c of a layer, [n, 4 C, 1 or H, 1 or W]."""
        xp, seen = self.P.xp, of_condition(self.P, f"layers.{i}.condition", condition)
        wide = xp.broadcast_to(seen, (*self.places.leading, *seen.shape[-3:]))
        return xp.reshape(wide, (self.n, *seen.shape[-3:]))
