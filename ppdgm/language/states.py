"""States, which training moves and no optimiser does; and means over the rows of a minibatch."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from ppdgm.errors import ProgramError, shown
from ppdgm.language.vocabulary import Array, Namespace


@dataclass
class Minibatch:
    """What a training step gives to all its runs of the program, and collects from them.

    Attributes:
        weights: [B], 0 for padding, and otherwise the row's weight, 1 if none are given.
        updates: state -> its new value: the first one that a run of the step gives.
        whole: what needs all rows of the minibatch at once, in words.
        estimated: what the terms of a run have unbiased estimates of, in words.
        joined: the mean over these rows -> that over the rows of all processes.
        dropped: what depends on dropout, in words.
    """

    weights: Array
    updates: dict[str, Array] = field(default_factory=dict)
    whole: list[str] = field(default_factory=list)
    estimated: list[str] = field(default_factory=list)
    joined: Callable[[Array], Array] = lambda mean: mean
    dropped: list[str] = field(default_factory=list)

    def update(self, name: str, value: Array) -> None:
        """Keep the first new value of a state."""
        self.updates.setdefault(name, value)
        self.whole.append(f"the program updates the state {name!r}")


def check_update(name: str, value: Array, state: Array, given: Container[str], arrays: tuple[type[Array], ...]) -> None:
    """Refuse a new value that does not fit its state, or is given for the second time.

    Args:
        name: of the state.
        value: the new value.
        state: the present value.
        given: the states that this run has updated.
        arrays: the types of arrays.

    Raises:
        ProgramError: what was got, and what was expected.
    """
    if name in given:
        raise ProgramError(
            f"P.update({name!r}): the state is updated twice in one run. P.param returns the old value during the "
            "whole run, so the first update would be lost. Update it once."
        )
    shape, kind = tuple(state.shape), _dtype(state)
    if not isinstance(value, arrays):
        raise ProgramError(
            f"P.update({name!r}): got {shown(value)}, expected an array of shape {shape}. Give P.constant(…) for a "
            "number."
        )
    if tuple(value.shape) != shape:
        raise ProgramError(
            f"P.update({name!r}): got an array of shape {tuple(value.shape)}, expected {shape} as declared in build(). "
            f"All rows and particles share a state: take their mean, such as P.batch_mean(value, {len(shape)})."
        )
    if _dtype(value) != kind:
        raise ProgramError(
            f"P.update({name!r}): got numbers of type {_dtype(value)}, expected {kind}. Convert them: "
            f"P.xp.astype(value, P.param({name!r}).dtype)."
        )


def axes_before(
    value: Array,
    event_ndim: int,
    otherwise: Array | None,
    shape: tuple[int, int] | None,
    arrays: tuple[type[Array], ...],
    xp: Namespace,
) -> int:
    """Refuse a value whose axes are not [B, *event] or [K, B, *event]; returns the number of axes before the event.

    Args:
        value: what `P.batch_mean` takes the mean of.
        event_ndim: the number of axes of an event.
        otherwise: the event in evaluations, or None.
        shape: (K, B); None if they are not known.
        arrays: the types of arrays.
        xp: array namespace.

    Raises:
        ProgramError: what was got, and what was expected.
    """
    if not isinstance(event_ndim, int) or isinstance(event_ndim, bool) or event_ndim < 0:
        raise ProgramError(
            f"P.batch_mean: got event_ndim={shown(event_ndim)}, expected the number of axes of an event: 0 for "
            "numbers, 1 for vectors."
        )
    if not isinstance(value, arrays):
        raise ProgramError(f"P.batch_mean: got {shown(value)}, expected an array [B, *event] or [K, B, *event].")
    if not xp.isdtype(value.dtype, "real floating"):
        raise ProgramError(
            f"P.batch_mean: got numbers of type {_dtype(value)}, expected floating ones. Convert them: P.one_hot, or "
            "P.xp.astype."
        )
    lead, event = tuple(value.shape[: value.ndim - event_ndim]), tuple(value.shape[value.ndim - event_ndim :])
    if value.ndim <= event_ndim or (shape is not None and lead not in (shape, shape[1:])):
        sizes = "" if shape is None else f" with K = {shape[0]} and B = {shape[1]}"
        raise ProgramError(
            f"P.batch_mean: got an array of shape {tuple(value.shape)} with event_ndim={event_ndim}, expected "
            f"[B, *event] or [K, B, *event]{sizes}, where the event has {event_ndim} axes. Give its number of axes; "
            "average over all other axes before."
        )
    if otherwise is not None and tuple(getattr(otherwise, "shape", (None,))) != event:
        got = getattr(otherwise, "shape", None)
        told = shown(otherwise) if got is None else f"an array of shape {tuple(got)}"
        raise ProgramError(f"P.batch_mean: got {told} for otherwise, expected the shape of one event, {event}.")
    return len(lead)


def mean_of_rows(value: Array, lead: int, weights: Array | None, xp: Namespace) -> Array:
    """Σ_b w_b 1/K Σ_k v_kb / Σ_b w_b, [*event].

    Args:
        value: [B, *event] or [K, B, *event].
        lead: number of axes before the event.
        weights: [B]; None if all rows count.
        xp: array namespace.
    """
    if weights is None:
        return xp.mean(value, axis=tuple(range(lead)))
    rows = value if lead == 1 else xp.mean(value, axis=0)
    weights = xp.astype(weights, value.dtype)
    return xp.sum(rows * xp.reshape(weights, (-1, *(1,) * (value.ndim - lead))), axis=0) / xp.sum(weights)


def next_value(old: Array, new: Array, xp: Namespace) -> Array:
    """A copy of the new value of a state; numbers that are not finite stay, so that the step that made them is found.

    A copy, because a new value may be a parameter itself, which torch's optimisers change in place.
    """
    return xp.where(xp.isfinite(old), new, old)


def _dtype(array: Array) -> str:
    return str(array.dtype).removeprefix("torch.")
