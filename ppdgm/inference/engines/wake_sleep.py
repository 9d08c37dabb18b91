"""Wake-sleep: the guide is trained towards the model's posterior, and not by the model's bound."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds, estimators
from ppdgm.inference.engines.engine import Engine, Phase
from ppdgm.language import mistakes
from ppdgm.language.reader import Gradients
from ppdgm.language.step import Objective, Step
from ppdgm.specs import NonNegativeFloat, PositiveInt


class ReweightedWakeSleep(Engine):
    """Reweighted wake-sleep (RWS): the model maximises the IWAE bound; the guide, E[log q(z|x)] at weighted draws.

    With w̃ the normalised weights of K draws of the guide: θ by Σ w̃_k ∇ log p(x, z_k); φ by
    wake_phi Σ w̃_k ∇ log q(z_k|x) + sleep_phi ∇ log q(z'|x'), with (x', z') drawn from the model. No gradient goes
    through a draw, so discrete latents work as well as others. Bornschein & Bengio 2015, arXiv:1406.2751; Le et al.
    2019, arXiv:1805.10469.

    Args:
        k: K, draws of the guide per row.
        wake_phi, sleep_phi: weights of the guide's two updates.

    Raises:
        ProgramError: in training, if a site is enumerated, or lies outside the data plate.
    """

    reweighted: ClassVar[bool] = True

    k: PositiveInt = 10
    wake_phi: NonNegativeFloat = 1.0
    sleep_phi: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _teaches(self) -> Self:
        if not self.wake_phi and not self.sleep_phi:
            raise ValueError(
                "wake_phi and sleep_phi are both 0, so the guide would never be trained. Give one of them a "
                "positive weight."
            )
        return self

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self, players=("model", "guide"), weighs=True),)

    def objective(self, step: Step) -> Objective:
        xp, weights = step.xp, step.weights
        trace = step.trace(self.k, gradients=Gradients(relaxed=False, scored=[]))
        if not trace.log_q:
            raise ProgramError(
                f"The guide draws no latent, so {type(self).__name__} has nothing to train it with. Use SVI."
            )
        estimators.check_exact(step, type(self).__name__)
        log_w = bounds.log_weights(trace, xp)
        if trace.marginal is not None:
            raise mistakes.weighs_draws(type(self).__name__)
        fixed = step.stop_gradient(log_w)
        share = self.k * xp.exp(fixed - step.logsumexp(fixed, 0)[None]) if self.reweighted else 1.0  # of mean 1
        mean = lambda terms: bounds.mean(terms, weights, xp)
        rest = mean(bounds.penalties(trace, xp) + 0.0 * log_w) if trace.penalties else 0.0
        value = mean(bounds.renyi(fixed, 0.0, step.logsumexp)[None])
        # A guide may read the model's parameters, as a ladder's does: their gradient too is only that of log p.
        same = trace if set(trace.log_q) <= set(step.scored) else step.trace(given=estimators.held(step, trace))
        joint = mean(share * sum(same.log_p.values()))
        guide = 0.0 * joint
        if self.wake_phi:
            guide = guide + self.wake_phi * mean(share * sum(same.log_q.values()))
        if trace.penalties and step.scored:
            guide = guide + estimators.score_of_penalties(step, trace, weights)
        if self.sleep_phi:
            guide = guide + self.sleep_phi * mean(sum(step.sleep().values()))
        elbo = mean(fixed)
        seen = mean(step.stop_gradient(bounds.reconstruction(trace, xp)))
        found = {"objective": value, "elbo": elbo, "kl": seen - elbo}
        return {**found, "players": {"model": joint - rest, "guide": guide - rest}}


class WakeSleep(ReweightedWakeSleep):
    """The wake-sleep algorithm: θ by ∇ log p(x, z), z from the guide; φ by ∇ log q(z'|x'), (x', z') from the model.

    Hinton, Dayan, Frey & Neal 1995. The guide becomes right for data that the model draws, which can differ from yours.

    Args:
        k: K, draws of the guide per row.
        wake_phi, sleep_phi: as for `ReweightedWakeSleep`; 0 and 1 here.
    """

    reweighted: ClassVar[bool] = False

    k: PositiveInt = 1
    wake_phi: NonNegativeFloat = 0.0
    sleep_phi: NonNegativeFloat = 1.0
