"""Importance-weighted and Rényi bounds: one objective; IWAE, MIWAE, CIWAE, PIWAE and VR-IWAE are settings of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds, estimators
from ppdgm.inference.engines.engine import Engine, Phase, State
from ppdgm.inference.engines.estimators import Baseline
from ppdgm.inference.engines.no_effect import check_baseline, has_kl
from ppdgm.language import mistakes
from ppdgm.language.step import Objective, Step
from ppdgm.language.vocabulary import Array, Trace
from ppdgm.specs import PositiveInt

Share = Annotated[float, Field(ge=0, le=1)]


class Weighted(Engine):
    """β ELBO + (1 − β) mean over M groups of 1/(1 − α) log 1/K Σ_k w_k^(1−α), with w = p(x, z) / q(z|x)."""

    k: PositiveInt = 50
    groups: PositiveInt = 1
    estimator: Literal["auto", "reparam", "stl", "dreg", "score", "vimco", "relaxed"] = "auto"
    baseline: Baseline = "auto"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.estimator == "vimco" and self.k < 2:
            raise ValueError("estimator='vimco' leaves one particle out, so it needs at least two. Give k=2 or more.")
        if self.estimator == "vimco" and self.baseline != "auto":
            raise ValueError("estimator='vimco' has its own baseline. Leave baseline out, or give estimator='score'.")
        if self.baseline == "leave_one_out" and self.k < 2:
            raise ValueError("baseline='leave_one_out' needs at least two particles. Give k=2 or more.")
        return self

    @property
    def _alpha(self) -> float:
        return 0.0

    @property
    def _beta(self) -> float:
        return 0.0

    @property
    def particles(self) -> int:
        """K·M, draws from the guide per row."""
        return self.k * self.groups

    @property
    def _players(self) -> tuple[str, ...]:
        """Labels with objectives of their own."""
        return ()

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self, players=self._players, weighs=True),)

    def state(self, width: int, scored: Iterable[str]) -> dict[str, State]:
        return estimators.first_state(self._baseline(list(scored)), width)

    def _baseline(self, scored: list[str]) -> str:
        if self.baseline != "auto":
            return self.baseline
        return "none" if not scored else "vimco" if self.k > 1 else "running"

    def objective(self, step: Step) -> Objective:
        xp, weights = step.xp, step.weights
        trace = step.trace(self.particles, gradients=estimators.gradients_of(self.estimator))
        if not has_kl(trace):
            raise ProgramError(
                f"The guide draws no latent, so {type(self).__name__} has no draws to weight: its bound is log p for "
                "every k. Use SVI."
            )
        estimators.check_exact(step, type(self).__name__)
        estimators.check_estimator(step, trace, self.estimator)
        check_baseline(step, self.baseline)
        scored = step.scored
        if trace.marginal is not None:
            raise mistakes.weighs_draws(type(self).__name__)
        drawn = bounds.log_weights(trace, xp)
        log_w = self._again(step, trace, drawn, self._player_groups("model"))
        mean = lambda values: xp.sum(values * weights) / xp.sum(weights)
        value = self._bound(step, log_w, self.groups)
        elbo = bounds.mean(log_w, weights, xp)
        seen = bounds.mean(bounds.reconstruction(trace, xp), weights, xp)
        found: dict[str, Array] = {"objective": mean(value), "elbo": elbo, "kl": seen - elbo}
        rest = self._rest(step, trace, log_w, weights, scored, self._player_groups("model"))
        found["objective"] = found["objective"] + rest[0]
        if self._players:
            groups = self._player_groups("guide")  # a parameter of the model that the guide reads moves as the model's
            log_w = self._again(step, trace, drawn, groups)
            guide = mean(self._bound(step, log_w, groups))
            guide = guide + self._rest(step, trace, log_w, weights, scored, groups)[0]
            found["players"] = {"model": found["objective"], "guide": guide}
        return found | ({"state": rest[1]} if rest[1] else {})

    def _player_groups(self, label: str) -> int:
        return self.groups

    def _split(self, step: Step, log_w: Array, groups: int) -> Array:
        """[K·M, B] as [K, M, B]."""
        return step.xp.reshape(log_w, (log_w.shape[0] // groups, groups, *log_w.shape[1:]))

    def _of_group(self, step: Step, log_w: Array) -> Array:
        """The bound over the particles, which are the first axis."""
        bound = bounds.renyi(log_w, self._alpha, step.logsumexp)
        return bound if not self._beta else self._beta * log_w.mean(0) + (1.0 - self._beta) * bound

    def _bound(self, step: Step, log_w: Array, groups: int) -> Array:
        """The bound of each row, [B]."""
        return step.xp.mean(self._of_group(step, self._split(step, log_w, groups)), axis=0)

    def _rest(
        self, step: Step, trace: Trace, log_w: Array, weights: Array, scored: list[str], groups: int
    ) -> tuple[Array, dict[str, Array]]:
        """Penalties, and what the score function adds."""
        xp = step.xp
        rest = 0.0 - bounds.mean(bounds.penalties(trace, xp) + 0.0 * log_w, weights, xp) if trace.penalties else 0.0
        if not scored:
            return rest, {}
        if trace.penalties:
            rest = rest + estimators.score_of_penalties(step, trace, weights)
        split = step.stop_gradient(self._split(step, log_w, groups))
        value = self._of_group(step, split)  # [M, B]
        kind = self._baseline(scored)
        if kind in ("vimco", "leave_one_out"):
            b = estimators.without(step, split, lambda t: self._of_group(step, t), kind == "vimco")
        else:
            b = estimators.baseline(step, kind, log_w)
        signal = (value - step.stop_gradient(b) + 0.0 * split) / groups
        gain = estimators.score(step, trace, xp.reshape(signal, log_w.shape))
        rest = rest + log_w.shape[0] * bounds.mean(gain, weights, xp)
        if kind == "learned":
            miss = -0.5 * bounds.mean((xp.mean(value, axis=0) - b)[None] ** 2, weights, xp)
            rest = rest + miss - step.stop_gradient(miss)
        return rest, estimators.moved(step, bounds.mean(value, weights, xp))

    def _again(self, step: Step, trace: Trace, log_w: Array, groups: int) -> Array:
        """The log-weights, with the estimator's gradient for particles in groups."""
        if self.estimator == "stl":
            return bounds.log_weights(estimators.stopped(step, trace), step.xp)
        if self.estimator == "dreg":
            return bounds.log_weights(self._dreg(step, trace, log_w, groups), step.xp)
        return log_w

    def _dreg(self, step: Step, trace: Trace, log_w: Array, groups: int) -> Trace:
        """The gradient through each draw, times the factor that the identity for ∇ log q gives for its weight."""
        xp, a, b = step.xp, self._alpha, self._beta
        split = step.stop_gradient(self._split(step, log_w, groups))
        powers = (1.0 - a) * split
        w = xp.exp(powers - step.logsumexp(powers, 0)[None])
        factor = a + (1.0 - a) * w
        if b:
            k = split.shape[0]
            factor = (b / k + (1.0 - b) * w * factor) / (b / k + (1.0 - b) * w)
        return estimators.with_scaled_draws(step, trace, xp.reshape(factor, log_w.shape))


class IWAE(Weighted):
    """Importance-weighted bound, log 1/K Σ_k p(x, z_k) / q(z_k|x): between the ELBO (K = 1) and log p(x).

    Burda et al. 2016, arXiv:1509.00519. With the other settings: β ELBO + (1 − β) mean over M groups of such bounds.
    Each group has K particles. MIWAE is the mean of several such bounds: IWAE(k=8, groups=8). CIWAE mixes the bound
    with the ELBO: IWAE(k=64, elbo_share=0.5). PIWAE trains the model on one bound, and the guide on the mean of several
    bounds of the same particles: IWAE(k=64, guide_groups=8). Rainforth et al. 2018, arXiv:1802.04537.

    Args:
        k: K, particles of a group.
        groups: M, groups of particles per row.
        elbo_share: β.
        guide_groups: number of groups that all K·M particles form for the guide's parameters; None: as for the model's.
        estimator: of the gradient. "auto": through draws if they are reparameterised or relaxed, else "vimco".
            "reparam" refuses other draws; "dreg" is doubly reparameterised: its signal-to-noise ratio does not fall
            with K (Tucker et al. 2019, arXiv:1810.04152); "stl" (sticking the landing) leaves out ∇ log q, and is
            biased for K > 1; "dreg" and "stl" are not for plain Pyro pairs; "score" is the score function; "vimco"
            (variational inference for Monte Carlo objectives) gives each particle a baseline made of the others (Mnih &
            Rezende 2016, arXiv:1602.06725); "relaxed" is like "reparam", and needs a relaxation.
        baseline: of the score function: "none", "running" mean, "leave_one_out", "learned"; "auto": the one of "vimco",
            or "running" if K = 1.

    Raises:
        ProgramError: in training, if a setting is not possible for the program.
    """

    elbo_share: Share = 0.0
    guide_groups: PositiveInt | None = None

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.guide_groups and self.particles % self.guide_groups:
            raise ValueError(
                f"guide_groups: got {self.guide_groups}, expected a divisor of k·groups = {self.particles} particles."
            )
        return self

    @property
    def _beta(self) -> float:
        return self.elbo_share

    @property
    def _players(self) -> tuple[str, ...]:
        return ("model", "guide") if self.guide_groups else ()

    def _player_groups(self, label: str) -> int:
        return self.guide_groups if label == "guide" and self.guide_groups else self.groups


class Renyi(Weighted):
    """Maximise 1/(1 − α) log 1/K Σ_k (p(x, z_k) / q(z_k|x))^(1−α). Li & Turner 2016, arXiv:1602.02311.

    It is the IWAE bound at α = 0, and the ELBO at α = 1. As a bound itself, with 0 ≤ α < 1, it is the VR-IWAE bound
    (Daudel et al. 2023, arXiv:2210.06226).

    Args:
        alpha: α, any number; below 0 it is no lower bound on log p(x).
        k: K, particles of a group; one particle gives the ELBO for every α.
        groups, estimator, baseline: as for `IWAE`.
    """

    alpha: float = 0.5

    @property
    def _alpha(self) -> float:
        return self.alpha
