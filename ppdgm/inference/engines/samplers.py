"""M-steps at draws from the posterior: the guide's draws, resampled by their weights, or moved by Markov chains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds, estimators
from ppdgm.inference.engines.engine import Engine, Phase, State
from ppdgm.language.reader import Gradients
from ppdgm.language.step import OWN, Objective, Step
from ppdgm.language.vocabulary import Array, Trace
from ppdgm.specs import PositiveFloat, PositiveInt

_STEP_SIZE = f"{OWN}step_size"


class Sampler(Engine):
    """The model maximises log p(x, z) at fixed draws z from p(z|x): the gradient is that of log p(x)."""

    def phase(self) -> Phase:
        """The phase in which the model moves."""
        return Phase(self, ("model",), players=("model",))

    def metrics_of(self, step: Step, trace: Trace, joint: Array, penalties: Array) -> Objective:
        """The metrics that an objective returns.

        Args:
            step, trace: of the guide's draws.
            joint: log p(x, z) [·, B], which is maximised.
            penalties: [·, B].
        """
        xp, mean = step.xp, lambda terms: bounds.mean(terms, step.weights, step.xp)
        log_weights = step.stop_gradient(bounds.log_weights(trace, xp))
        elbo, seen = mean(log_weights), mean(step.stop_gradient(bounds.reconstruction(trace, xp)))
        value = mean(bounds.renyi(log_weights, 0.0, step.logsumexp)[None])
        climbed = mean(joint) - mean(penalties)
        value = value + climbed - step.stop_gradient(climbed)
        return {"objective": value, "elbo": elbo, "kl": seen - elbo, "players": {"model": value}}

    def read(self, step: Step, k: int, hmc: bool = False) -> Trace:
        """K draws of the guide; refused if there are none."""
        trace = step.trace(k, gradients=Gradients(relaxed=False, scored=[], walked=hmc))
        estimators.check_exact(step, type(self).__name__)
        if not trace.log_q or trace.marginal is not None:
            raise ProgramError(
                f"{type(self).__name__} starts from draws of the guide, but this guide draws no latent, or "
                "enumerates it. Use SVI or EM."
            )
        return trace


class Resampled(Sampler):
    """Draws of the guide, resampled by their weights p(x, z) / q(z|x): draws of the posterior for K → ∞.

    Args:
        k: K, draws of the guide per row.
        draws: R, the number of draws that are resampled from them.
    """

    k: PositiveInt = 50
    draws: PositiveInt = 5

    def phase(self) -> Phase:
        return replace(super().phase(), weighs=True)

    def objective(self, step: Step) -> Objective:
        xp, trace = step.xp, self.read(step, self.k)
        fixed = step.stop_gradient(bounds.log_weights(trace, xp))
        noisy = fixed[None] + step.gumbel((self.draws, *fixed.shape))  # the largest is a draw by the weights
        taken = xp.where(noisy >= xp.max(noisy, axis=1, keepdims=True), 1.0, 0.0)
        density: Array = sum(trace.log_p.values())
        joint = xp.sum(taken * density[None], axis=1)  # [R, B]
        penalties = bounds.penalties(trace, xp) + 0.0 * fixed if trace.penalties else 0.0 * fixed
        return self.metrics_of(step, trace, joint, penalties)


class HMC(Sampler):
    """Chains that begin at draws of the guide, moved by Hamiltonian Monte Carlo: NumPyro's or Pyro's own kernel.

    Hoffman 2017, "Learning deep latent Gaussian models with Markov chain Monte Carlo". The minibatch's latents move
    together, and the step size is adapted to an acceptance of 0.8. For latents that can be any real number.

    Args:
        chains: per row.
        moves: moves of a chain, each accepted or not.
        num_leapfrog: leapfrog steps of a move.
        step_size: ε at first.
    """

    chains: PositiveInt = 1
    moves: PositiveInt = 5
    num_leapfrog: PositiveInt = 5
    step_size: PositiveFloat = 0.1

    def phase(self) -> Phase:
        why = "HMC moves the minibatch's latents together, and accepts or rejects them together"
        return replace(super().phase(), together=why)

    def state(self, width: int, scored: Iterable[str]) -> dict[str, State]:
        return {_STEP_SIZE: State(np.array(self.step_size, np.float32))}

    def objective(self, step: Step) -> Objective:
        xp, trace = step.xp, self.read(step, self.chains, hmc=True)
        start = {n: step.stop_gradient(trace.values[n]) for n in trace.log_q}
        step_size = step.params[_STEP_SIZE]
        latents, adapted = step.hmc(start, step_size, self.num_leapfrog, self.moves)
        joint: Array = sum(step.model({n: step.stop_gradient(z) for n, z in latents.items()}).values())
        penalties = bounds.penalties(trace, xp) + 0.0 * joint if trace.penalties else 0.0 * joint
        found = self.metrics_of(step, trace, joint, penalties)
        return {**found, "state": {_STEP_SIZE: adapted}}
