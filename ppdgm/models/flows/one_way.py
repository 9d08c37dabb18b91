"""Flows without a known inverse; their steps take their numbers directly from the encoder."""

from __future__ import annotations

from abc import abstractmethod

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.base import Flow
from ppdgm.nets.base import unflatten
from ppdgm.program import Context, normal
from ppdgm.specs import PositiveInt


class OneWay(Flow):
    """Steps whose numbers are the context itself, or parameters if there is no context.

    Args:
        depth: number of steps.
    """

    depth: PositiveInt = 4

    @abstractmethod
    def size(self, width: int) -> int:
        """How many numbers a step reads, for vectors of `width`."""

    @abstractmethod
    def steps(self, P: Vocabulary, x: Array, numbers: Array) -> tuple[Array, Array]:
        """f(x) and log |det ∂f/∂x|, for numbers [..., depth, size]."""

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        if not conditional:
            scope.param("numbers", (self.depth * self.size(width),), normal(0.1))
        return self.depth * self.size(width) if conditional else 0

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        numbers = P.param("numbers") if context is None else context
        return self.steps(P, x, unflatten(P, numbers, (self.depth, self.size(x.shape[-1]))))
