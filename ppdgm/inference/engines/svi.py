"""Stochastic variational inference: the ELBO, with changes to its KL in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds, estimators
from ppdgm.inference.engines.engine import Engine, State
from ppdgm.inference.engines.estimators import Baseline
from ppdgm.inference.engines.no_effect import check_baseline, check_latents
from ppdgm.language import mistakes
from ppdgm.language.scales import scaled
from ppdgm.language.step import OWN, Objective, Step
from ppdgm.language.vocabulary import Array, Namespace, Trace
from ppdgm.specs import NonNegativeFloat, PositiveFloat, PositiveInt
from ppdgm.specs.schedules import Schedule

_SETTINGS_OF = {
    "gamma": "capacity",
    "free_bits_per": "free_bits",
    "free_bits_of": "free_bits",
    "multiplier_rate": "kl_at_most",
}
_LOG_BETA = f"{OWN}log_beta"  # of kl_at_most


class SVI(Engine):
    """Maximise E_q[log p(x, z) − β (log q(z|x) − log p(z))], averaged over K particles and the minibatch.

    Kingma & Welling 2014, arXiv:1312.6114. The reported `elbo` has β = 1, whatever is trained, and no scales: a plain
    pair's constant scales (poutine.scale, handlers.scale) are only in the objective.

    Args:
        k: K, particles per row. If no site is drawn (nothing is latent, or all is summed over), all K are alike.
        kl: "auto" uses the closed form of a latent's KL if there is one and it is valid, "monte_carlo" never
            does, "analytic" refuses a program if the closed form is not valid for every latent.
        beta: weight of the KL, a number or a schedule in steps (Higgins et al. 2017; cyclical, Fu et al. 2019).
        capacity: C in nats, a number or a schedule: the KL's term becomes γ |KL − C| (Burgess et al. 2018,
            arXiv:1804.03599), of the minibatch's mean KL, instead of β KL.
        gamma: γ.
        free_bits: λ in nats: the KL counts as max(λ, KL), so that below λ it has no gradient (Kingma et al. 2016,
            arXiv:1606.04934).
        kl_at_most: ε in nats: the ELBO is maximised under the constraint that the mean KL is at most ε. β = 1 + λ, with
            the constraint's multiplier λ, is found by training, is in the history as "beta", and ends at 1 if the KL
            needs no constraint (Higgins et al. 2017).
        multiplier_rate: how fast: log β moves by this number times KL/ε − 1, within ±1, in each step.
        free_bits_per: λ for each "site", or for each "dimension", which needs closed forms that split into dimensions:
            those of a full covariance do not.
        free_bits_of: the KL of each "datum", or the mean over the minibatch ("batch").
        estimator: of the gradient. "auto": through draws if they are reparameterised or relaxed, else by the score
            function. "reparam" refuses other draws; "stl" (sticking the landing) leaves out ∇ log q (Roeder et al.
            2017), and is not for plain Pyro pairs; "score" draws discrete latents as they are (Williams 1992);
            "enumerate" sums over them; "relaxed" is like "reparam", and needs a relaxation.
        baseline: of the score function: "none", "running" mean, "leave_one_out" (K ≥ 2), or "learned", a net of x;
            "auto": "leave_one_out", or "running" if K = 1.

    Raises:
        ProgramError: in training, if a setting is not possible for the program, or would change nothing.
    """

    k: PositiveInt = 1
    kl: Literal["auto", "monte_carlo", "analytic"] = "auto"
    beta: NonNegativeFloat | Schedule = 1.0
    capacity: NonNegativeFloat | Schedule | None = None
    gamma: NonNegativeFloat = 1000.0
    kl_at_most: PositiveFloat | None = None
    multiplier_rate: PositiveFloat = 0.01
    free_bits: NonNegativeFloat = 0.0
    free_bits_per: Literal["site", "dimension"] = "site"
    free_bits_of: Literal["datum", "batch"] = "batch"
    estimator: Literal["auto", "reparam", "stl", "score", "enumerate", "relaxed"] = "auto"
    baseline: Baseline = "auto"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.capacity is not None and self.free_bits:
            raise ValueError("capacity and free_bits both change the KL. Give only one of them.")
        if self.capacity is not None and self.beta != 1.0:
            raise ValueError("capacity replaces beta, so beta would change nothing. Give only one of them.")
        others = {"beta": self.beta != 1.0, "capacity": self.capacity is not None, "free_bits": self.free_bits}
        if self.kl_at_most is not None and (other := next((n for n, given in others.items() if given), None)):
            raise ValueError(f"kl_at_most finds β by itself, and {other} changes the KL too. Give only one of them.")
        for name, of in _SETTINGS_OF.items():
            given = getattr(self, of) is not None if of != "free_bits" else of in self.model_fields_set  # 0: in a sweep
            if not given and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is a setting of {of}, which is not given. Give {of} too, or leave {name} out."
                )
        if self.estimator == "stl" and (self.kl == "analytic" or self.capacity is not None or self.free_bits):
            raise ValueError(
                "estimator='stl' needs the KL from draws. Leave out kl='analytic', capacity and free_bits."
            )
        if self.baseline == "leave_one_out" and self.k < 2:
            raise ValueError("baseline='leave_one_out' needs at least two particles. Give k=2 or more.")
        return self

    def state(self, width: int, scored: Iterable[str]) -> dict[str, State]:
        found = estimators.first_state(self._baseline(list(scored)), width)
        return found if self.kl_at_most is None else {**found, _LOG_BETA: State(np.zeros((), np.float32))}

    def _baseline(self, scored: list[str]) -> str:
        if self.baseline != "auto":
            return self.baseline
        return "none" if not scored else "leave_one_out" if self.k > 1 else "running"

    def objective(self, step: Step) -> Objective:
        weights, now, data_size = step.weights, step.hyperparameters, step.data_size
        wants_kl = self.kl != "monte_carlo" and self.estimator != "stl"
        trace = step.trace(self.k, kl=wants_kl, gradients=estimators.gradients_of(self.estimator), weighed=True)
        if step.scales:
            self._check_scales(step.scales)
        estimators.check_estimator(step, trace, self.estimator)
        check_baseline(step, self.baseline)
        changed = {"beta": self.beta != 1.0, "capacity": self.capacity is not None, "free_bits": bool(self.free_bits)}
        changed["kl_at_most"] = self.kl_at_most is not None
        check_latents(trace, "SVI", {**changed, "estimator='stl'": self.estimator == "stl"})
        if self.estimator == "stl" and trace.marginal is not None:
            raise mistakes.weighs_draws("estimator='stl'", "Leave the estimator out")
        if self.estimator == "stl":
            trace = estimators.stopped(step, trace)._replace(penalties=trace.penalties)  # these keep their gradient
        means = self._means(trace, step.xp, weights, data_size)
        if self.kl_at_most is not None:
            now = {**now, "beta": step.xp.exp(self._log_beta(step))}
        weighed = bounds.weighed(trace, step.scales) if step.scales else trace

        def at(whole: Mapping[str, Array]) -> Objective:
            found: dict[str, Array] = self(trace, step.xp, weights, now, data_size, whole)
            if step.scales:  # the bound and its KL are reported without scales
                found["objective"] = self(weighed, step.xp, weights, now, data_size, whole)["objective"]
            if self.kl_at_most is not None:
                found |= {"beta": now["beta"], "state": self._moved(step, whole["kl"])}
            return self._scored(step, trace, weighed, found, weights, now) if step.scored else found

        return {**at(means), **({"means": means, "at": at} if means else {})}

    def __call__(
        self,
        trace: Trace,
        xp: Namespace,
        weights: Array,
        now: Mapping[str, Array],
        data_size: float | None,
        means: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """The metrics of a trace's terms, [K, B]; `means` are those of `_means`, perhaps over more data."""
        latents = [*trace.log_q, *(n for n in trace.shared if n in trace.values)]  # shared latents have no closed form
        if self.kl == "analytic" and (without := [n for n in latents if n not in trace.kl]):
            raise ProgramError(
                f"Site {without[0]!r} has no closed-form KL that is valid here. Use SVI(kl='auto') or kl='monte_carlo'."
            )
        if trace.shared and not data_size:
            raise ProgramError(
                f"Site {next(iter(trace.shared))!r} is one latent for all data, so its weight relative to the rows "
                "depends on their number N. Give data_size=N."
            )
        mean = lambda terms: bounds.mean(terms, weights, xp)
        once, size = bounds.shared_kl(trace, xp), data_size or 1
        seen, kl = map(mean, bounds.elbo_terms(trace, xp))
        seen, kl = seen + (bounds.shared(trace, xp) + once) / size, kl + once / size
        means = self._means(trace, xp, weights, data_size) if means is None else means
        objective = seen - self._made_small(trace, xp, weights, now, kl, means)
        if trace.penalties:
            objective = objective - mean(bounds.penalties(trace, xp) + 0.0 * weights[None])
        return {"objective": objective, "elbo": seen - kl, "kl": kl}

    def _means(self, trace: Trace, xp: Namespace, weights: Array, data_size: float | None) -> dict[str, Array]:
        """Means over the minibatch, for an objective that is not a sum over rows: pieces need those of the whole."""
        if self.capacity is not None or self.kl_at_most is not None:
            return {
                "kl": bounds.mean(bounds.kl(trace, xp), weights, xp) + bounds.shared_kl(trace, xp) / (data_size or 1)
            }
        if self.free_bits and self.free_bits_of == "batch":
            return bounds.kl_parts(trace, xp, weights, self.free_bits_per, "batch")[0]
        return {}

    def _made_small(
        self,
        trace: Trace,
        xp: Namespace,
        weights: Array,
        now: Mapping[str, Array],
        kl: Array,
        means: Mapping[str, Array],
    ) -> Array:
        """The term that stands for the KL in the objective."""
        if self.capacity is not None:
            return self.gamma * xp.abs(means["kl"] - now["capacity"])
        if self.free_bits:
            if trace.shared and not trace.log_q:
                raise ProgramError(
                    "free_bits: is for the KL of each row's latents, but here all rows share all latents. Leave "
                    "free_bits out."
                )
            parts, share = (means, 1.0) if means else bounds.kl_parts(trace, xp, weights, self.free_bits_per, "datum")
            floored = bounds.floored(parts, share, xp, self.free_bits)
            return now["beta"] * (floored + kl - bounds.mean(bounds.kl(trace, xp), weights, xp))
        return now["beta"] * kl

    def _log_beta(self, step: Step) -> Array:
        """The log of β = 1 + λ, without a gradient."""
        known = step.params.get(_LOG_BETA)  # not before the run has its state
        return 0.0 * step.weights[0] if known is None else step.stop_gradient(known)

    def _moved(self, step: Step, kl: Array) -> dict[str, Array]:
        """log β ← max(0, log β + rate (KL/ε − 1)): it rests where KL = ε, or at β = 1."""
        now, xp = self._log_beta(step), step.xp
        over = xp.clip(step.stop_gradient(kl) / self.kl_at_most - 1.0, -1.0, 1.0)
        moved = xp.clip(now + self.multiplier_rate * over, 0.0, None)
        return {_LOG_BETA: xp.astype(moved, now.dtype)}

    def _check_scales(self, scales: Mapping[str, float]) -> None:
        """Refuse settings that change the meaning of the KL."""
        given = {"capacity": self.capacity is not None, "free_bits": bool(self.free_bits)}
        given["kl_at_most"] = self.kl_at_most is not None
        for name in (n for n, there in (given | {"estimator='stl'": self.estimator == "stl"}).items() if there):
            raise scaled(f"SVI({name})", next(iter(scales)))

    def _scored(
        self,
        step: Step,
        trace: Trace,
        weighed: Trace,
        found: Objective,
        weights: Array,
        now: Mapping[str, Array],
    ) -> Objective:
        """Adds the gradient of draws that carry none: E[(f − b) ∇ log q], with f from the terms `weighed`."""
        names, xp = step.scored, step.xp
        # With another latent, a closed form may depend on a draw that is scored, and its gradient would be left out.
        if (self.capacity is not None or self.free_bits) and (len(trace.log_q) > 1 or names[0] not in trace.kl):
            raise ProgramError(
                f"Site {names[0]!r} has a score-function gradient, with which capacity and free_bits work only if it "
                "is the only latent and has a closed-form KL. Leave them out, or use a relaxation."
            )
        beta = 0.0 if self.capacity is not None or self.free_bits else now["beta"]
        f = bounds.elbo(weighed, xp, beta) - bounds.penalties(trace, xp)
        kind = self._baseline(names)
        if kind == "leave_one_out":
            b = (xp.sum(f, axis=0) - f) / (self.k - 1)
        else:
            b = estimators.baseline(step, kind, f)
        f, before = step.stop_gradient(f), step.stop_gradient(b)
        gain = estimators.score(step, trace, (f - before) / self.k)
        objective = found["objective"] + self.k * bounds.mean(gain, weights, xp)
        if kind == "learned":
            miss = -0.5 * bounds.mean((f - b) ** 2, weights, xp)
            objective = objective + miss - step.stop_gradient(miss)
        state = {**found.get("state", {}), **estimators.moved(step, bounds.mean(f, weights, xp))}
        return {**found, "objective": objective, "state": state}
