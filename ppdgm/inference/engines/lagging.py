"""Lagging inference: at first, the guide is trained almost to convergence before each step of the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from pydantic import model_validator

from ppdgm.inference.engines.alternating import Alternating, for_label
from ppdgm.inference.engines.engine import Phase
from ppdgm.specs import PositiveInt, Table

GUIDE, MODEL, BOTH = 0, 1, 2  #: phases


class LaggingInference(Alternating):
    """Many steps of the guide's φ before each step of the model's θ, then ordinary training. He et al. 2019.

    arXiv:1901.05534: a guide that lags behind the model's posterior is a cause of its collapse onto the prior. Steps of
    φ go on until the mean objective of a window of them is no better than that of the window before. When the mutual
    information of x and z under the guide no longer grows, both are moved together.

    Args:
        window: steps of φ over which the objective is averaged.
        most: steps of φ before a step of θ, at most.
        every: steps of θ between two measurements of the mutual information; None: the number of steps of an epoch.
        engine: the engine whose objective is maximised: SVI, IWAE or Renyi.
    """

    window: PositiveInt = 10
    most: PositiveInt = 100
    every: PositiveInt | None = None

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if self.most < self.window:
            raise ValueError(
                f"most: got {self.most}, so a window of {self.window} steps would never be full. Give "
                f"most={self.window} or more, or a smaller window."
            )
        return self

    def phases(self) -> tuple[Phase, ...]:
        both = self.engine.phases()[0]
        return for_label(self.engine, "guide"), for_label(self.engine, "model"), both

    def controller(self, per_epoch: int) -> LaggingController:
        return LaggingController(self, self.every or per_epoch)


@dataclass
class LaggingController:
    """Chooses the phase that comes next, from the training so far."""

    engine: LaggingInference
    every: int
    aggressive: bool = True
    turn: int = GUIDE
    taken: int = 0  # steps of φ since the last step of θ
    window: list[float] = field(default_factory=list)
    before: float | None = None  # mean of the window before
    theta: int = 0  # steps of θ
    information: list[float] = field(default_factory=list)

    def next(self, count: int) -> np.ndarray:
        """The phases of the next steps, at most `count`."""
        if not self.aggressive:
            return np.full(count, BOTH, np.int32)
        if self.turn == MODEL:
            return np.full(1, MODEL, np.int32)
        left = min(self.engine.window - len(self.window), self.engine.most - self.taken)
        return np.full(min(count, left), GUIDE, np.int32)

    def seen(self, turns: np.ndarray, objective: np.ndarray) -> bool:
        """Record steps that were taken; returns whether the mutual information is to be measured now."""
        if not self.aggressive:
            return False
        if turns[0] == MODEL:
            self.turn, self.taken, self.window, self.before = GUIDE, 0, [], None
            self.theta += 1
            return self.theta % self.every == 0
        self.window += [float(v) for v in objective]
        self.taken += len(objective)
        if len(self.window) >= self.engine.window:
            now = float(np.nanmean(self.window))
            self.turn = MODEL if self.before is not None and now <= self.before else GUIDE
            self.window, self.before = [], now
        if self.taken >= self.engine.most:  # also in the middle of a window
            self.turn = MODEL
        return False

    def look(self, information: float) -> None:
        """Record the mutual information: if it no longer grows, ordinary training begins."""
        self.aggressive = not self.information or information > self.information[-1]
        self.information.append(information)

    def page(self) -> dict[str, object]:
        """Its state as plain values."""
        return {
            "aggressive": self.aggressive, "turn": self.turn, "taken": self.taken, "window": self.window,
            "before": self.before, "theta": self.theta, "information": self.information,
        }  # fmt: skip

    def restore(self, page: Table) -> None:
        """Continue from what `page` gave."""
        for name, value in page.items():
            setattr(self, name, list(value) if isinstance(value, list) else value)
