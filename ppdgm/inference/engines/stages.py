"""Stages: engines one after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Self, cast

import numpy as np
from pydantic import BeforeValidator, model_validator

from ppdgm.inference.engines.criteria import Criterion
from ppdgm.inference.engines.engine import Composite, Engine, Phase, State
from ppdgm.inference.engines.optimisers import Optimiser
from ppdgm.specs import NonNegativeFloat, PositiveInt, Spec
from ppdgm.specs.schedules import Schedule, as_schedule


class Stage(Spec):
    """An engine for some steps.

    Args:
        engine: which engine.
        steps: number of steps; None for the last stage: all that remain.
        freeze: patterns of names of parameters and states that stay as they are, such as "decoder.*".
        learning_rate: a number, or a schedule counted from the stage's first step; None: the run's.
        optimiser: of this stage, with its own `clip_norm`; None: the run's.
    """

    engine: Engine
    steps: PositiveInt | None = None
    freeze: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = ()
    learning_rate: NonNegativeFloat | Schedule | None = None
    optimiser: Optimiser | None = None


class Stages(Composite):
    """Engines one after another, on the same parameters: say SVI with a warm-up, then IWAE with a frozen encoder.

    Each stage begins with a new optimiser, and counts its schedules from its own first step. Validation watches the
    last stage's criterion in all stages; early stopping counts from the first stage with that criterion. An engine that
    chooses its phases from the training so far (LaggingInference) can't be a stage.

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
        if any(not s.engine.phases() or isinstance(s.engine, Stages) for s in self.stages):
            raise ValueError(
                "a stage needs one engine that uses gradients, not a list of stages and not EM(). Give one such "
                "as SVI()."
            )
        if chooses := next((s.engine for s in self.stages if s.engine.controller(1) is not None), None):
            name = type(chooses).__name__
            raise ValueError(
                f"got {name}() as a stage, but it chooses its phases from the training so far, and a stage's phases "
                f"follow from the number of the step. Train with engine={name}() in a run of its own, and give its "
                "parameters to the next run: params=fit.params."
            )
        return self

    @property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum([s.steps for s in self.stages[:-1]]).tolist()]

    def phases(self) -> tuple[Phase, ...]:
        found = []
        starts = self._starts
        for stage, start, end in zip(self.stages, starts, [*starts[1:], None], strict=True):
            own: dict[str, Any] = {"optimiser": stage.optimiser} if stage.optimiser is not None else {}
            if stage.learning_rate is not None:
                own["learning_rate"] = as_schedule(stage.learning_rate)
            for phase in stage.engine.phases():
                freeze = (*phase.freeze, *stage.freeze)
                found.append(replace(phase, freeze=freeze, first=phase.first + start, last=end, **own))
        return tuple(found)

    def phase_of(self, steps: np.ndarray) -> np.ndarray:
        found, number = np.zeros(len(steps), np.int32), 0
        for stage, start in zip(self.stages, self._starts, strict=True):
            found = np.where(steps >= start, number + stage.engine.phase_of(np.maximum(steps - start, 0)), found)
            number += len(stage.engine.phases())
        return found.astype(np.int32)

    def state(self, width: int, scored: Iterable[str]) -> dict[str, State]:
        """Those that the stages' own engines declare, beside their phases' engines."""
        return {n: s for stage in self.stages for n, s in stage.engine.state(width, scored).items()}

    def criterion(self) -> Criterion | None:
        return self.stages[-1].engine.criterion()


def as_engine(value: Engine | Sequence[Engine | Stage]) -> Engine:
    """A list of engines and stages as `Stages`."""
    if not isinstance(value, list | tuple):
        return cast(Engine, value)  # or it is refused later
    return Stages(stages=tuple(v if isinstance(v, Stage) else Stage(engine=v) for v in value))
