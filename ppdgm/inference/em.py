"""Expectation maximisation: exact, or with the guide for its E-step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.inference import bounds
from ppdgm.inference.engine import Composite, Engine, Phase
from ppdgm.inference.turns import InTurns
from ppdgm.language import Array
from ppdgm.reading import Gradients
from ppdgm.spec import PositiveInt
from ppdgm.tracing import Tracing


class EM(Composite):
    """Closed-form E- and M-steps over all data: log p(x) never falls. Dempster, Laird & Rubin 1977.

    For programs with the two methods `e_step(params, x)`, sufficient statistics summed over data, and
    `m_step(params, statistics)`, the parameters that maximise their expected log-likelihood: `PPCA`,
    `FactorAnalysis`, `GaussianMixture`, or one of your own. In float64 NumPy, on either backend; an epoch is a step.
    """

    exact: ClassVar[bool] = True

    def phases(self) -> tuple[Phase, ...]:
        return ()


class VariationalEM(InTurns):
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

    def phases(self) -> tuple[Phase, ...]:
        return Phase(self.engine, ("guide",)), Phase(self.engine, ("model",))

    def turns(self, steps: np.ndarray) -> np.ndarray:
        return (steps % (self.e_steps + self.m_steps) >= self.e_steps).astype(np.int32)


class Resampled(Engine):
    """The M-step of `MonteCarloEM`: log p(x, z) at latents resampled from the guide's draws by their weights.

    Args:
        k: K, draws of the guide per datum.
        draws: R, how many are resampled from them.
    """

    k: PositiveInt = 50
    draws: PositiveInt = 5

    @property
    def particles(self) -> int:
        return self.k

    def gradients(self) -> Gradients:
        return Gradients(relaxed=False, scored=[])

    def objective(
        self, tracing: Tracing, weights: Array, knobs: Mapping[str, Array], data_size: int | None
    ) -> dict[str, Any]:
        xp, trace = tracing.xp, tracing.read()
        if not trace.log_q or trace.marginal is not None:
            raise ProgramError(
                "MonteCarloEM weighs draws of the guide, which draws none, or enumerates. Use SVI or EM."
            )
        fixed = tracing.stop_gradient(bounds.log_weights(trace, xp))
        noisy = fixed[None] + tracing.gumbel((self.draws, *fixed.shape))  # its largest is a draw by the weights
        taken = xp.where(noisy >= xp.max(noisy, axis=1, keepdims=True), 1.0, 0.0)
        density: Array = sum(trace.log_p.values())
        joint = xp.sum(taken * density[None], axis=1)  # [R, B]
        mean = lambda terms: bounds.mean(terms, weights, xp)
        rest = mean(bounds.penalties(trace, xp) + 0.0 * fixed) if trace.penalties else 0.0
        elbo = mean(fixed)
        seen = mean(tracing.stop_gradient(bounds.reconstruction(trace, xp)))
        value = mean(bounds.renyi(fixed, 0.0, tracing.logsumexp)[None])
        climbed = mean(joint) - rest
        return {"objective": value + climbed - tracing.stop_gradient(climbed), "elbo": elbo, "kl": seen - elbo}


class MonteCarloEM(VariationalEM):
    """EM of which the E-step draws from the posterior: K draws of the guide, resampled by their weights.

    Wei & Tanner 1990. The guide is trained between, so that its draws are good ones; θ moves by ∇ log p(x, z) at the
    resampled z, which for K → ∞ is the gradient of log p(x).

    Args:
        e_steps: steps of the guide before each turn of the model.
        m_steps: steps of the model.
        engine: the guide's objective: SVI, IWAE or Renyi.
        k: K.
        draws: R, how many are resampled.
    """

    k: PositiveInt = 50
    draws: PositiveInt = 5

    def phases(self) -> tuple[Phase, ...]:
        return Phase(self.engine, ("guide",)), Phase(Resampled(k=self.k, draws=self.draws), ("model",))
