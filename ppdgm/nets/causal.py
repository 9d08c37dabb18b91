"""Causal nets: the output at a number of x depends only on the numbers before it, in an order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ppdgm.language.quiet import undropped
from ppdgm.language.vocabulary import Array, Namespace, Vocabulary
from ppdgm.nets.base import Net, Shapes


class Places(NamedTuple):
    """Numbers that are computed one after the other.

    Attributes:
        value: the net's output [..., *outputs] -> all numbers [..., *event], each from the output at its own place.
        encoded: x -> x as the net sees it.
        event: the shape of x.
        outputs: the shape of the net's output.
        leading: the leading dimensions of x.
    """

    value: Callable[[Array], Array]
    encoded: Callable[[Array], Array]
    event: tuple[int, ...]
    outputs: tuple[int, ...]
    leading: tuple[int, ...]


class CausalNet(Net):
    """A net whose output at each number of x depends on the numbers before it in an order, and on a condition.

    Its outputs are rows of arrays like x, [*rows, *event]: what a distribution of each number needs.
    """

    @abstractmethod
    def causal_params(self, event: tuple[int, ...], condition: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        """The shape and first values of every parameter.

        Args:
            event: the shape of x.
            condition: the shape of what all outputs see; () if there is nothing.
            outputs: [*rows, *event].

        Raises:
            SpecError: the net is not for such an event or condition.
        """

    @abstractmethod
    def causal(
        self, P: Vocabulary, x: Array, condition: Array | None, event: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Array:
        """[..., *event] -> [..., *outputs]; the leading dimensions of x and of the condition broadcast."""

    @abstractmethod
    def order(self, event: tuple[int, ...]) -> np.ndarray:
        """The place of each number in the order, from 0, [*event]. Numbers of the same place do not see each other."""

    def ancestral(self, P: Vocabulary, places: Places, condition: Array | None) -> Array:
        """x [*leading, *event] in which each number is `places.value` at the output that the numbers before it give.

        Passes over all numbers at once, until nothing changes: after pass k, the first k places are final, and usually
        many more. Song et al. 2021, arXiv:2002.03629. It carries no gradient, and has no dropout.
        """
        quiet = P.told_to(undropped(P.interpreter))

        def passed(x: Array) -> Array:
            seen = places.encoded(without_overflow(P.xp, x))
            return places.value(self.causal(quiet, seen, condition, places.event, places.outputs))

        start = P.full((*places.leading, *places.event), 0.0)
        return quiet.repeat(int(self.order(places.event).max()) + 1, passed, start, early=True)

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        return self.causal_params(inputs, (), outputs)

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        return self.causal(P, x, None, inputs, outputs)


def without_overflow(xp: Namespace, x: Array) -> Array:
    """x with 0 in place of what overflows: numbers that are not final may do so, and 0 · ∞ is NaN."""
    return xp.where(xp.isfinite(x), x, 0.0)
