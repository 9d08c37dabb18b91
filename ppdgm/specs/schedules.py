"""Schedules: numbers that change with the training step, as functions of an array of steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, get_args

import numpy as np
from pydantic import Field

from ppdgm.errors import TrainingError
from ppdgm.specs.spec import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Spec


class Schedule(Spec):
    """A number for each training step."""

    @abstractmethod
    def __call__(self, steps: np.ndarray) -> np.ndarray:
        """The values at `steps`, counted from 0."""

    @abstractmethod
    def reached(self) -> int:
        """The step from which on the value no longer changes."""


class Constant(Schedule):
    """The same value at every step.

    Args:
        value: the number.
    """

    value: float

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        return np.full(len(steps), self.value)

    def reached(self) -> int:
        return 0


class Linear(Schedule):
    """From `start` to `end` in equal parts over `steps` training steps, then `end`.

    Args:
        start, end: the first value, and the last.
        steps: the number of steps until the last value.
    """

    start: NonNegativeFloat = 0.0
    end: NonNegativeFloat = 1.0
    steps: PositiveInt

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        return self.start + (self.end - self.start) * np.minimum(steps / self.steps, 1.0)

    def reached(self) -> int:
        return self.steps


class Sigmoid(Schedule):
    """From near `start` to `end` in an S-shaped curve, start + (end − start) σ((step − middle) / width), then `end`.

    Bowman et al. 2016, arXiv:1511.06349.

    Args:
        start, end: the value far before the middle, and the value from `steps` on.
        steps: the number of steps until the last value. The middle is at half of it, and the width is a twelfth of it.
    """

    start: NonNegativeFloat = 0.0
    end: NonNegativeFloat = 1.0
    steps: PositiveInt

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        value = self.start + (self.end - self.start) / (1.0 + np.exp(6.0 - 12.0 * np.minimum(steps / self.steps, 1.0)))
        return np.where(steps < self.steps, value, self.end)

    def reached(self) -> int:
        return self.steps


class Cyclical(Schedule):
    """From `start` to `end` again and again: a rise in equal parts, then `end` for the rest of the cycle.

    Fu et al. 2019, arXiv:1903.10145. After the last cycle it stays at `end`.

    Args:
        start, end: the first value of a cycle, and the last.
        steps: the number of steps of all cycles together.
        cycles: the number of cycles.
        rise: the share of a cycle in which the value rises.
    """

    start: NonNegativeFloat = 0.0
    end: NonNegativeFloat = 1.0
    steps: PositiveInt
    cycles: PositiveInt = 4
    rise: Annotated[float, Field(gt=0, le=1)] = 0.5

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        place = np.asarray(steps) / self.steps * self.cycles
        risen = np.minimum((place - np.floor(place)) / self.rise, 1.0)
        return np.where(place < self.cycles, self.start + (self.end - self.start) * risen, self.end)

    def reached(self) -> int:
        return self.steps


class Cosine(Schedule):
    """Linear warm-up from 0 to `peak`, then half a cosine down to `end` at `steps`.

    Args:
        peak, end: the largest value, and the last.
        steps: the number of steps until the last value, including the warm-up.
        warmup: the number of steps up to the peak.
    """

    peak: PositiveFloat
    end: NonNegativeFloat = 0.0
    steps: PositiveInt
    warmup: NonNegativeInt = 0

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        done = np.clip((steps - self.warmup) / max(self.steps - self.warmup, 1), 0.0, 1.0)
        value = self.end + (self.peak - self.end) * 0.5 * (1.0 + np.cos(np.pi * done))
        return np.where(steps < self.warmup, self.peak * (steps + 1) / max(self.warmup, 1), value)

    def reached(self) -> int:
        return self.steps


class Exponential(Schedule):
    """start · rate^(step / every).

    Args:
        start: the first value.
        rate: the factor by which it changes.
        every: the number of steps in which it changes by that factor.
    """

    start: PositiveFloat
    rate: PositiveFloat
    every: PositiveInt = 1

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        return self.start * self.rate ** (steps / self.every)

    def reached(self) -> int:
        return 0


class Switch(Schedule):
    """One schedule up to step `at`, then another one, which counts its own steps from there.

    `resume(learning_rate=…)` writes it to a run's recipe, so that the recipe repeats the whole run.

    Args:
        first: a number, or a schedule: the values before `at`.
        at: the first step of the other one.
        then: a number, or a schedule counted from `at`.
    """

    first: NonNegativeFloat | Schedule
    at: PositiveInt
    then: NonNegativeFloat | Schedule

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        later = as_schedule(self.then)(np.maximum(np.asarray(steps) - self.at, 0))
        return np.where(np.asarray(steps) < self.at, as_schedule(self.first)(steps), later)

    def reached(self) -> int:
        return self.at + as_schedule(self.then).reached()


def as_schedule(value: float | Schedule) -> Schedule:
    """A number as a constant schedule."""
    return value if isinstance(value, Schedule) else Constant(value=value)


def schedules_of(spec: Spec) -> dict[str, Schedule]:
    """The fields of a spec that take a schedule, with a number as a constant one; fields that are None are left out."""
    scheduled = lambda t: isinstance(t, type) and issubclass(t, Schedule)
    found = {}
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        if any(map(scheduled, (field.annotation, *get_args(field.annotation)))) and value is not None:
            found[name] = as_schedule(value)
    return found


def unreached(schedules: Mapping[str, Schedule], steps: int, who: str = "the run") -> list[str]:
    """A message for each schedule whose warm-up needs more than `steps` steps."""
    return [
        f"{name}: the schedule needs {schedule.reached()} steps, but {who} has {steps}. Train longer, or make the "
        f"schedule shorter: steps={steps} or less."
        for name, schedule in schedules.items()
        if schedule.reached() > steps
    ]


def check_reached(told: Iterable[str]) -> None:
    """Refuse a run that ends before its warm-ups do, with all messages at once.

    Raises:
        TrainingError: `told`, the messages of `unreached`, is not empty.
    """
    if told := list(told):
        raise TrainingError(" ".join(told))
