"""Which flows are fast in which direction, so that no training step takes D passes by accident."""

from __future__ import annotations

import warnings
from inspect import isabstract
from typing import Literal

from ppdgm.errors import SpecError
from ppdgm.models.flows.base import Flow
from ppdgm.specs import Spec

Direction = Literal["forward", "inverse"]
_DOES = {"forward": "draws z", "inverse": "scores a given z"}


def check_direction(
    part: Spec, flow: Flow, needed: Direction, allow_slow: bool, why: str = "data have to be scored"
) -> None:
    """Refuse a flow that is slow in the direction that each training step needs; if it is allowed, only warn.

    Args:
        part: the part or program that has the flow.
        flow: the flow.
        needed: the direction of each training step.
        allow_slow: whether to warn only.
        why: what needs the inverse, in words.

    Raises:
        SpecError: the flow is slow, or it has no inverse; the message names flows that are fast in this direction.
    """
    if needed == "inverse" and flow.one_way:
        raise SpecError(
            f"{type(part).__name__}.flow: {type(flow).__name__} has no known inverse, and {why}. Expected one of "
            f"{', '.join(fast_flows('inverse'))}."
        )
    if flow.fast in (needed, "both"):
        return
    owner = type(part).__name__
    slow = f"{type(flow).__name__} needs D passes through its nets for this"
    if allow_slow:
        warnings.warn(f"{owner}: every training step {_DOES[needed]}, and {slow}.", stacklevel=3)
        return
    raise SpecError(
        f"{owner}.flow: every training step {_DOES[needed]}, and {slow}. Use a flow that is fast here: "
        f"{', '.join(fast_flows(needed))}. Or allow it with allow_slow=True."
    )


def fast_flows(needed: Direction) -> list[str]:
    """Names of ppdgm's flows that take one pass in a direction; no one-way flows if the direction is "inverse"."""
    found, todo = set(), [Flow]
    while todo:
        for sub in todo.pop().__subclasses__():
            todo.append(sub)
            known = needed == "forward" or not sub.one_way
            if not isabstract(sub) and sub.__module__.startswith("ppdgm.") and known and sub.fast in (needed, "both"):
                found.add(sub.__name__)
    return sorted(found)
