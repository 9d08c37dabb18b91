"""Flows one after the other."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.base import Flow
from ppdgm.program import Context


class Chain(Flow):
    """f = f_n ∘ … ∘ f_1: flows one after the other, from noise to data; log|det| is the sum of theirs.

    Its parameters are in the scopes `0`, `1`, … of its flows. Each flow reads its own part of a context.

    Args:
        flows: f_1, …, f_n.
    """

    flows: tuple[Flow, ...]

    @field_validator("flows")
    @classmethod
    def _is_not_empty(cls, flows: tuple[Flow, ...]) -> tuple[Flow, ...]:
        if not flows:
            raise ValueError("at least one flow")
        return flows

    @property
    def fast(self) -> Literal["forward", "inverse", "both", "neither"]:  # type: ignore[override]  # that of its flows
        known = {flow.fast for flow in self.flows} - {"both"}
        return known.pop() if len(known) == 1 else "neither" if known else "both"

    @property
    def one_way(self) -> bool:  # type: ignore[override]  # if one of its flows is
        return any(flow.one_way for flow in self.flows)

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        total = 0
        for i, flow in enumerate(self.flows):
            seen = flow.build(scope.scope(str(i)), width, conditional)
            scope.declared.shapes[f"{scope.prefix}{i}.context"] = (total, total + seen)  # its part of the context
            total += seen
        return total

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        total = 0.0
        for i, flow in enumerate(self.flows):
            x, log_det = flow.forward(P.scope(str(i)), x, self._part(P, i, context))
            total = total + log_det
        return x, total

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        total = 0.0
        for i, flow in reversed(list(enumerate(self.flows))):
            y, log_det = flow.inverse(P.scope(str(i)), y, self._part(P, i, context))
            total = total + log_det
        return y, total

    def settle(self, P: NumpyVocabulary, y: Array, context: Array | None) -> Array:
        for i, flow in reversed(list(enumerate(self.flows))):
            y = flow.settle(P.scope(str(i)), y, self._part(P, i, context))
        return y

    @staticmethod
    def _part(P: Vocabulary, i: int, context: Array | None) -> Array | None:
        start, end = P.scope(f"{i}.context").shape
        return None if context is None or start == end else context[..., start:end]
