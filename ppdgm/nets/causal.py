"""Causal nets: the output at a number of x depends only on the numbers before it, in an order."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Net, Shapes


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

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        return self.causal_params(inputs, (), outputs)

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        return self.causal(P, x, None, inputs, outputs)
