"""Stages: engines one after another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, model_validator

from ppdgm.errors import TrainingError
from ppdgm.inference.engines.engine import Composite, Engine, Phase
from ppdgm.specs import NonNegativeFloat, PositiveInt, Spec
from ppdgm.specs.schedules import Schedule, as_schedule, check_reached, unreached


class Stage(Spec):
    """An engine for some steps.

    Args:
        engine: which engine.
        steps: number of steps; None for the last stage: all that remain.
        freeze: patterns of names of parameters that stay as they are, such as "decoder.*".
        learning_rate: a number, or a schedule counted from the stage's first step; None: the run's.
    """

    engine: Engine
    steps: PositiveInt | None = None
    freeze: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = ()
    learning_rate: NonNegativeFloat | Schedule | None = None


class Stages(Composite):
    """Engines one after another, on the same parameters: say SVI with a warm-up, then IWAE with a frozen encoder.

    Each stage begins with a new optimiser, and counts its schedules from its own first step.

    Args:
        stages: the stages; all but the last have a number of steps.
    """

    stages: tuple[Stage, ...]

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not self.stages:
            raise ValueError("got no stages. Give at least one.")
        if any(s.steps is None for s in self.stages[:-1]):
            raise ValueError(
                "only the last stage can have no number of steps. Give steps to the others: Stage(engine=SVI(), "
                "steps=1000)."
            )
        if any(s.engine.exact or isinstance(s.engine, Stages) for s in self.stages):
            raise ValueError(
                "a stage needs one engine that uses gradients, not a list of stages and not EM(). Give one such "
                "as SVI()."
            )
        return self

    @property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum([s.steps for s in self.stages[:-1]]).tolist()]

    @property
    def particles(self) -> int:
        return max(s.engine.particles for s in self.stages)

    def schedules(self) -> dict[str, Schedule]:
        named: dict[str, Schedule] = {}
        for stage, start in zip(self.stages, self._starts, strict=True):
            for name, schedule in stage.engine.schedules().items():
                named[f"stage {len(named)} {name}" if name in named else name] = Delayed(of=schedule, first=start)
        return named

    def own(self, width: int, scored: Iterable[str]) -> dict[str, np.ndarray]:
        scored = list(scored)
        return {n: v for s in self.stages for n, v in s.engine.own(width, scored).items()}

    def labels(self, own: Iterable[str]) -> dict[str, str]:
        own = list(own)
        return {n: v for s in self.stages for n, v in s.engine.labels(own).items()}

    def phases(self) -> tuple[Phase, ...]:
        found = []
        for stage, start in zip(self.stages, self._starts, strict=True):
            rate = None if stage.learning_rate is None else as_schedule(stage.learning_rate)
            for phase in stage.engine.phases():
                phase = replace(phase, freeze=(*phase.freeze, *stage.freeze), learning_rate=rate or phase.learning_rate)
                found.append(phase.later(start))
        return tuple(found)

    def turns(self, steps: np.ndarray) -> np.ndarray:
        found, number = np.zeros(len(steps), np.int32), 0
        for stage, start in zip(self.stages, self._starts, strict=True):
            found = np.where(steps >= start, number + stage.engine.turns(np.maximum(steps - start, 0)), found)
            number += len(stage.engine.phases())
        return found.astype(np.int32)

    def check(self, steps: int) -> None:
        starts = self._starts
        if starts[-1] >= steps:
            raise TrainingError(
                f"The stages before the last take {starts[-1]} steps, but the run has {steps} steps, so no step is "
                "left for the last stage. Train longer, or give these stages fewer steps."
            )
        told: list[str] = []
        for stage, start, end in zip(self.stages, starts, [*starts[1:], steps], strict=True):
            rate = {} if stage.learning_rate is None else {"learning_rate": as_schedule(stage.learning_rate)}
            told += unreached({**stage.engine.schedules(), **rate}, end - start, "its stage")
            stage.engine.check(end - start)
        check_reached(told)


class Delayed(Schedule):
    """A schedule that begins at a later step.

    Args:
        of: the schedule.
        first: the step at which it begins.
    """

    of: Schedule
    first: int = 0

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        return self.of(np.maximum(steps - self.first, 0))

    def reached(self) -> int:
        return self.of.reached() and self.first + self.of.reached()


def as_engine(value: Any) -> Any:
    """A list of engines and stages as `Stages`."""
    if not isinstance(value, list | tuple):
        return value
    return Stages(stages=tuple(v if isinstance(v, Stage) else Stage(engine=v) for v in value))
