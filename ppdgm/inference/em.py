"""Expectation maximisation: exact, or with the guide for its E-step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from ppdgm.inference.engine import Composite, Phase
from ppdgm.inference.importance import Weighted
from ppdgm.inference.svi import SVI
from ppdgm.schedules import Schedule
from ppdgm.spec import PositiveInt


class EM(Composite):
    """Closed-form E- and M-steps over all data: log p(x) never falls. Dempster, Laird & Rubin 1977.

    For programs with the two methods `e_step(params, x)`, sufficient statistics summed over data, and
    `m_step(params, statistics)`, the parameters that maximise their expected log-likelihood: `PPCA`,
    `FactorAnalysis`, `GaussianMixture`, or one of your own. In float64 NumPy, on either backend; an epoch is a step.
    """

    exact: ClassVar[bool] = True

    def phases(self) -> tuple[Phase, ...]:
        return ()


class VariationalEM(Composite):
    """E-steps that move the guide's parameters φ alone, then M-steps that move the model's θ alone, in turns.

    Coordinate ascent on one bound. Neal & Hinton 1998. For θ at a point with a prior of its own (MAP), give the program
    a `penalty`.

    Args:
        e_steps: n_E, steps of φ before each turn of θ.
        m_steps: n_M, steps of θ.
        engine: whose objective is climbed: SVI, IWAE or Renyi.
    """

    e_steps: PositiveInt = 5
    m_steps: PositiveInt = 1
    engine: SVI | Weighted = SVI()

    @property
    def particles(self) -> int:
        return self.engine.particles

    @property
    def wants_kl(self) -> bool:
        return self.engine.wants_kl

    def schedules(self) -> dict[str, Schedule]:
        return self.engine.schedules()

    def own(self, width: int, scored: Iterable[str]) -> dict[str, np.ndarray]:
        return self.engine.own(width, scored)

    def labels(self, own: Iterable[str]) -> dict[str, str]:
        return self.engine.labels(own)

    def phases(self) -> tuple[Phase, ...]:
        return Phase(self.engine, ("guide",)), Phase(self.engine, ("model",))

    def turns(self, steps: np.ndarray) -> np.ndarray:
        return (steps % (self.e_steps + self.m_steps) >= self.e_steps).astype(np.int32)
