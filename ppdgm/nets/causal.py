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


class Order(NamedTuple):
    """An order of the numbers of x, as arrays.

    Attributes:
        places: the place of each number, from 0, [*event]; numbers of the same place do not see each other. None for
            the order that the net always has.
        masks: what else the net reads of it.
    """

    places: Array | None = None
    masks: tuple[Array, ...] = ()


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
        return quiet.repeat(self.length(places.event), passed, start, early=True)

    def length(self, event: tuple[int, ...]) -> int:
        """The number of places in the order: the most passes that a draw takes."""
        return int(self.order(event).max()) + 1

    @property
    def counts(self) -> tuple[int, int]:
        """The number of orders from which training draws one at each step, and of those that evaluations average."""
        return 1, 1

    def causal_states(self, event: tuple[int, ...], condition: tuple[int, ...]) -> Shapes:
        """What the net reads that no optimiser moves, such as several orders."""
        return {}

    def order_at(self, P: Vocabulary, number: Array, event: tuple[int, ...]) -> Order:
        """One of the net's orders; P is in the net's scope."""
        return Order()

    def ordered(
        self,
        P: Vocabulary,
        x: Array,
        condition: Array | None,
        event: tuple[int, ...],
        outputs: tuple[int, ...],
        order: Order,
    ) -> Array:
        """`causal` in one of the net's orders."""
        return self.causal(P, x, condition, event, outputs)

    def with_known_first(self, P: Vocabulary, order: Order, missing: Array) -> Order | None:
        """An order in which the numbers that are not `missing` [*event] come first; None if the order is fixed."""
        return None

    def is_local(self, event: tuple[int, ...], condition: tuple[int, ...]) -> bool:
        """Whether a condition of this shape has a row for each time of x, and is not for all of x."""
        return False

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        return self.causal_params(inputs, (), outputs)

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        return self.causal(P, x, None, inputs, outputs)


def without_overflow(xp: Namespace, x: Array) -> Array:
    """x with 0 in place of what overflows: numbers that are not final may do so, and 0 · ∞ is NaN."""
    return xp.where(xp.isfinite(x), x, 0.0)
