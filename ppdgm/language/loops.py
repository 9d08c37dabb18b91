"""What loops need: whether anything changes, and states one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ppdgm.language.native import Array, Namespace

Carry = TypeVar("Carry")  # of a loop: an array, or a tuple of arrays


def unchanged(before: Array, after: Array, xp: Namespace) -> Array:
    """Whether all numbers of an array, or of a tuple of arrays, are the same; NaN is the same as NaN."""
    if isinstance(before, tuple):
        return xp.all(xp.stack([unchanged(a, b, xp) for a, b in zip(before, after, strict=True)]))
    return xp.all((before == after) | ((before != before) & (after != after)))


def unrolled_states(
    body: Callable[[Carry, Array], Carry], first: Carry, xs: Array, stack: Callable[[list[Any]], Array]
) -> Any:
    """The states of `P.recur`, one after the other."""
    states: list[Any] = []
    state: Any = first
    for t in range(xs.shape[0]):
        state = body(state, xs[t])
        states.append(state)
    if isinstance(first, tuple):
        return tuple(stack([state[i] for state in states]) for i in range(len(first)))
    return stack(states)
