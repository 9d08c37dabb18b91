"""Expectation maximisation: exact, or with the guide for its E-step."""

from __future__ import annotations

import numpy as np

from ppdgm.inference.engines.alternating import Alternating, for_label
from ppdgm.inference.engines.engine import Composite, Phase
from ppdgm.inference.engines.samplers import HMC, Resampled
from ppdgm.specs import PositiveInt


class EM(Composite):
    """Closed-form E- and M-steps over all data: log p(x) never falls. Dempster, Laird & Rubin 1977.

    For programs with two methods: `e_step(params, x)` gives sufficient statistics summed over data, and
    `m_step(params, statistics)` gives the parameters that maximise their expected log-likelihood. `PPCA`,
    `FactorAnalysis` and `GaussianMixture` have them, and your own program can. Steps run in float64 NumPy on both
    backends; an epoch is one step.
    """

    def phases(self) -> tuple[Phase, ...]:
        return ()


class VariationalEM(Alternating):
    """E-steps that move only the guide's parameters φ, then M-steps that move only the model's θ, in turns.

    Coordinate ascent on one bound. Neal & Hinton 1998. If θ has a prior, draw θ outside the plate in the model, and
    from a Delta at a parameter labelled "model" in the guide: the M-step then finds the maximum a posteriori.

    Args:
        e_steps: n_E, steps of φ before each turn of θ.
        m_steps: n_M, steps of θ.
        engine: the engine whose objective is maximised: SVI, IWAE or Renyi.
    """

    e_steps: PositiveInt = 5
    m_steps: PositiveInt = 1

    def phases(self) -> tuple[Phase, ...]:
        return for_label(self.engine, "guide"), for_label(self.engine, "model")

    def phase_of(self, steps: np.ndarray) -> np.ndarray:
        return (steps % (self.e_steps + self.m_steps) >= self.e_steps).astype(np.int32)


class MonteCarloEM(VariationalEM):
    """EM whose E-step draws from the posterior: the mean of ∇ log p(x, z) over such draws is ∇ log p(x).

    Wei & Tanner 1990. Draws begin at the guide, which is trained between the model's turns. See `Resampled` and
    `HMC`.

    Args:
        e_steps: steps of the guide before each turn of the model.
        m_steps: steps of the model.
        engine: the guide's objective: SVI, IWAE or Renyi.
        sampler: how draws of the guide become draws of the posterior.
    """

    sampler: Resampled | HMC = Resampled()

    def phases(self) -> tuple[Phase, ...]:
        return for_label(self.engine, "guide"), self.sampler.phase()
