"""The loop of exact EM: closed-form steps over all data, in float64 NumPy, with any backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np

from ppdgm.data import take
from ppdgm.errors import ProgramError
from ppdgm.inference.inputs.feed import Feed
from ppdgm.language.phases import PlanLike
from ppdgm.language.runtime import Native, Runtime
from ppdgm.language.trainer import Symptoms, Trainer

EXACT_METRICS = ("objective", "elbo", "kl")
ROWS = 4096  #: rows whose statistics are computed at a time


class Exact(Protocol):
    """A program with closed-form steps."""

    def e_step(self, params: Mapping[str, np.ndarray], **fields: np.ndarray) -> Mapping[str, np.ndarray]: ...
    def m_step(
        self, params: Mapping[str, np.ndarray], statistics: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]: ...


class ExactTrainer(Trainer):
    """Training state and steps, without gradients.

    Args:
        runtime: of the program, for evaluations.
        program: with `e_step` and `m_step`.
        feed: of the data.
        params: first values, by name.
    """

    compiled = False

    def __init__(self, runtime: Runtime, program: Exact, feed: Feed, params: Mapping[str, np.ndarray]):
        self.runtime, self.tracer, self.program, self.feed = runtime, runtime.tracer, program, feed
        self.dtypes = {n: v.dtype for n, v in params.items()}
        self.params = {n: np.asarray(v, float) for n, v in params.items()}

    def run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        """Take the plan's steps; the objective of each is the mean log p(x) before it."""
        found = [self._step() for _ in range(plan.count)]
        return {"objective": np.array(found), "elbo": np.array(found), "kl": np.zeros(len(found))}

    def _step(self) -> float:
        total: dict[str, np.ndarray] = {}
        for start in range(0, self.feed.size, ROWS):
            rows = take(self.feed.fields, np.arange(start, min(start + ROWS, self.feed.size)))
            for name, value in self.program.e_step(self.params, **rows).items():
                total[name] = total[name] + value if name in total else value
        self.params = {**self.params, **self.program.m_step(self.params, total)}
        return float(total["log_likelihood"]) / self.feed.size

    @property
    def judged(self) -> Native:
        """The parameters, on the device."""
        return self.runtime.put(self.values())

    def values(self) -> dict[str, np.ndarray]:
        """The parameters now, in the run's floating type."""
        with np.errstate(over="ignore"):  # numbers that are too large are reported by `finite`
            return {n: v.astype(self.dtypes[n]) for n, v in self.params.items()}

    def state_arrays(self) -> dict[str, np.ndarray]:
        return {f"params/{n}": v.copy() for n, v in self.params.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.params = {n.partition("/")[2]: np.asarray(a, float) for n, a in arrays.items()}

    def finite(self) -> bool:
        return all(bool(np.isfinite(v).all()) for v in self.values().values())

    def check_divided(self, plan: PlanLike, data: Native) -> None:
        """Nothing to refuse, because these steps are refused on several devices."""

    def skip(self) -> None:
        """Skip a step: nothing to do, because there are no draws."""

    def diagnose(self, plan: PlanLike, data: Native) -> Symptoms:
        """The terms of the plan's first rows; there is no gradient."""
        few = self.feed.some(3)
        index = np.arange(min(3, self.feed.size))
        terms = self.runtime.trace(self.runtime.put(self.values()), few, index, 1, 0, None, False)
        return Symptoms(terms, {}, {}, {})


def check_steps(program: object, labels: Mapping[str, str], states: Collection[str]) -> None:
    """Refuse a program without closed-form steps, or with a guide or states that these steps would not move."""
    missing = [n for n in ("e_step", "m_step") if not callable(getattr(program, n, None))]
    if missing:
        raise ProgramError(
            f"{type(program).__name__} has no {missing[0]}, which EM() needs. Use VariationalEM() or SVI(), or give "
            "the program e_step(params, x) and m_step(params, statistics)."
        )
    if states:
        raise ProgramError(
            f"EM() takes closed-form steps, which run no P.update, so the state {min(states)!r} would never change. "
            "Use VariationalEM() or SVI(), or declare it with context.param, so that m_step moves it."
        )
    if own := [n for n, label in labels.items() if label == "guide"]:
        raise ProgramError(
            f"EM() trains only the model, but the guide has its own parameters ({own[0]!r}), which would never "
            "change. Use VariationalEM(), or a guide without parameters, such as posterior='exact'."
        )
