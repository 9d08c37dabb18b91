"""The base class of causal nets for sequences: the output at a time sees the rows before it."""

from __future__ import annotations

from abc import abstractmethod
from math import prod

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Shapes, zeros
from ppdgm.nets.causal import CausalNet


class SequenceNet(CausalNet):
    """A causal net of sequences x [T] or [T, C]. The C numbers of a time do not see each other.

    The condition is a vector (C,), which all times see, or a map (T, C), whose row t is not seen before time t.

    Args:
        position: whether each time has a bias of its own, `position`, which starts from the data. Without it, the net
            is the same at all times.
    """

    position: bool = False

    @abstractmethod
    def sequence_params(self, inputs: int, condition: int, outputs: int) -> Shapes:
        """The parameters of a net from C numbers, and a condition's numbers, to the outputs of each time."""

    @abstractmethod
    def sequence(self, P: Vocabulary, x: Array, condition: Array | None, outputs: int) -> Array:
        """[..., T, C] -> [..., T, outputs], from x one time later: row t has x_{t−1}, and row 0 has zeros.

        The condition is [..., 1, c] or [..., T, c].
        """

    @property
    def last_bias(self) -> str | None:
        return "position" if self.position else None

    def causal_params(self, event: tuple[int, ...], condition: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        times, each = self._steps(event)
        if len(condition) > 1 and not self.is_local(event, condition):
            raise SpecError(
                f"{type(self).__name__}: got a condition of shape {condition}, expected a vector (C,), or a map "
                f"({times}, C) with a row for each time."
            )
        rows = prod(outputs) // times
        shapes = self.sequence_params(each, condition[-1] if condition else 0, rows)
        return shapes | ({"position": ((rows // each, times, each), zeros)} if self.position else {})

    def causal(
        self, P: Vocabulary, x: Array, condition: Array | None, event: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Array:
        xp, (times, each) = P.xp, self._steps(event)
        rows = prod(outputs) // times
        late = shifted(P, xp.reshape(x, (*x.shape[: x.ndim - len(event)], times, each)), 1)
        if condition is not None and not self.is_local(event, P.scope("condition").shape):
            condition = condition[..., None, :]
        out = self.sequence(P, late, condition, rows)
        out = xp.moveaxis(xp.reshape(out, (*out.shape[:-1], rows // each, each)), -3, -2)
        out = out + P.param("position") if self.position else out
        return xp.reshape(out, (*out.shape[:-3], *outputs))

    def order(self, event: tuple[int, ...]) -> np.ndarray:
        times, each = self._steps(event)
        return np.repeat(np.arange(times), each).reshape(event)

    def is_local(self, event: tuple[int, ...], condition: tuple[int, ...]) -> bool:
        return len(condition) == 2 and condition[0] == event[0]

    def _steps(self, event: tuple[int, ...]) -> tuple[int, int]:
        if len(event) not in (1, 2):
            raise SpecError(
                f"{type(self).__name__}: got rows of shape {event}, expected sequences (times,) or (times, numbers)."
            )
        return event[0], event[1] if len(event) == 2 else 1


def shifted(P: Vocabulary, x: Array, by: int) -> Array:
    """x [..., T, C], some times later; the first rows are 0."""
    times = x.shape[-2]
    if by == 0:
        return x
    if by >= times:
        return P.xp.zeros_like(x)
    return P.xp.concat([P.xp.zeros_like(x[..., :by, :]), x[..., : times - by, :]], axis=-2)
