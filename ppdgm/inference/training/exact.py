"""The loop of closed-form steps over all data, EM and coordinate ascent, in float64 NumPy, with any backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Protocol, cast

import numpy as np

from ppdgm.data import take
from ppdgm.errors import ProgramError, TrainingError, listed
from ppdgm.inference.engines.coordinates import CoordinateAscent
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.inference.runs.settings import Training
from ppdgm.language.phases import PlanLike
from ppdgm.language.runtime import Native, Runtime
from ppdgm.language.tracer import Tracer
from ppdgm.language.trainer import Symptoms, Trainer

EXACT_METRICS = ("objective", "elbo", "kl")
ROWS = 4096  #: rows whose statistics are computed at a time


class Exact(Protocol):
    """A program with closed-form steps."""

    def e_step(self, params: Mapping[str, np.ndarray], **fields: np.ndarray) -> Mapping[str, np.ndarray]: ...
    def m_step(
        self, params: Mapping[str, np.ndarray], statistics: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]: ...


class Blockwise(Protocol):
    """A program with closed-form updates of blocks."""

    def statistics(self, params: Mapping[str, np.ndarray], **fields: np.ndarray) -> Mapping[str, np.ndarray]: ...
    def updates(self) -> Sequence[Callable[..., Mapping[str, np.ndarray]]]: ...
    def bound(self, params: Mapping[str, np.ndarray], statistics: Mapping[str, np.ndarray]) -> float: ...


class ExactTrainer(Trainer):
    """Training state and steps, without gradients.

    Args:
        runtime: of the program, for evaluations.
        program: with the methods that the engine needs.
        feed: of the data.
        params: first values, by name.
        weights: of rows, [N]; None if each counts once.
    """

    compiled = False

    def __init__(
        self,
        runtime: Runtime,
        program: object,
        feed: Feed,
        params: Mapping[str, np.ndarray],
        weights: np.ndarray | None = None,
    ):
        self.weights = np.ones(feed.size) if weights is None else weights
        self.runtime, self.tracer, self.program, self.feed = runtime, runtime.tracer, program, feed
        self.dtypes = {n: v.dtype for n, v in params.items()}
        self.params = {n: np.asarray(v, float) for n, v in params.items()}

    def run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        """Take the plan's steps; the objective of each is the mean log p(x), or ELBO, before it."""
        found = [self._step() for _ in range(plan.count)]
        return {"objective": np.array(found), "elbo": np.array(found), "kl": np.zeros(len(found))}

    def _step(self) -> float:
        program = cast(Exact, self.program)
        total = self._summed(program.e_step)
        self.params = {**self.params, **program.m_step(self.params, total)}
        return float(total["log_likelihood"]) / float(self.weights.sum())

    def _summed(self, of_rows: Callable[..., Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Statistics at the present parameters, summed over the data; rows of one weight at a time."""
        total: dict[str, np.ndarray] = {}
        for weight, index in self._groups:
            for start in range(0, len(index), ROWS):
                rows = take(self.feed.fields, index[start : start + ROWS])
                for name, value in of_rows(self.params, **rows).items():
                    counted = value if weight == 1.0 else weight * value
                    total[name] = total[name] + counted if name in total else counted
        return total

    @cached_property
    def _groups(self) -> list[tuple[float, np.ndarray]]:
        """Each weight except 0, and the rows that have it."""
        values, place = np.unique(self.weights, return_inverse=True)
        rows = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
        return [(float(w), index) for w, index in zip(values, rows, strict=True) if w > 0]

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


class BlockTrainer(ExactTrainer):
    """The same, one block after another."""

    def run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        found = np.array([self._step() for _ in range(plan.count)])
        return {"objective": found, "elbo": found.copy()}

    def _step(self) -> float:
        program, first = cast(Blockwise, self.program), float("nan")
        for i, update in enumerate(program.updates()):
            total = self._summed(program.statistics)
            if i == 0:
                first = float(program.bound(self.params, total)) / float(self.weights.sum())
            moved = update(self.params, total)
            if unknown := [n for n in moved if n not in self.params]:
                raise ProgramError(
                    f"{getattr(update, '__name__', 'An update')} gives {unknown[0]!r}, which build() does not declare. "
                    f"Declared: {listed(self.params)}."
                )
            self.params = {**self.params, **{n: np.asarray(v, float) for n, v in moved.items()}}
        return first


def exact_metrics(engine: Engine) -> tuple[str, ...]:
    """What such a step reports."""
    return EXACT_METRICS[:2] if isinstance(engine, CoordinateAscent) else EXACT_METRICS


def exact_trainer(
    engine: Engine,
    runtime: Runtime,
    program: object,
    feed: Feed,
    params: Mapping[str, np.ndarray],
    weights: np.ndarray | None = None,
) -> ExactTrainer:
    """The trainer of an engine with closed-form steps."""
    kind = BlockTrainer if isinstance(engine, CoordinateAscent) else ExactTrainer
    return kind(runtime, program, feed, params, weights)


_OF_GRADIENTS = (
    *("optimiser", "learning_rate", "clip_norm", "weight_average", "binarise", "accumulate", "augment"),
    *("particle_chunk", "rematerialise", "mixed_precision", "tf32", "devices"),
)


def check_closed_steps(recipe: Recipe, tracer: Tracer, size: int) -> None:
    """Refuse a program without closed-form steps, and settings of gradient steps."""
    check_steps(recipe.engine, recipe.program, tracer.labels, tracer.states)
    default, training, engine = Training(), recipe.training, type(recipe.engine).__name__
    for name in _OF_GRADIENTS:
        if getattr(training, name) != getattr(default, name):
            raise TrainingError(f"{name}: {engine}() takes closed-form steps, which do not use it. Leave it out.")
    if training.batch_size not in (None, size):  # `size` is what the recipe of such a run contains
        raise TrainingError(
            f"batch_size: got {training.batch_size}, but each step of {engine}() uses all {size} rows. Leave it out."
        )


def check_steps(engine: Engine, program: object, labels: Mapping[str, str], states: Collection[str]) -> None:
    """Refuse a program without closed-form steps, or with a guide or states that these steps would not move."""
    blocks = isinstance(engine, CoordinateAscent)
    if blocks:
        _check_blocks(program)
    elif missing := [n for n in ("e_step", "m_step") if not callable(getattr(program, n, None))]:
        raise ProgramError(
            f"{type(program).__name__} has no {missing[0]}, which EM() needs. Use VariationalEM() or SVI(), or give "
            "the program e_step(params, x) and m_step(params, statistics)."
        )
    if states:
        raise ProgramError(
            f"{type(engine).__name__}() takes closed-form steps, which run no P.update, so the state {min(states)!r} "
            "would never change. Use VariationalEM() or SVI(), or declare it with context.param, so that the steps "
            "move it."
        )
    if blocks:
        return
    if own := [n for n, label in labels.items() if label == "guide"]:
        raise ProgramError(
            f"EM() trains only the model, but the guide has its own parameters ({own[0]!r}), which would never "
            "change. Use VariationalEM(), or a guide without parameters, such as posterior='exact'."
        )


def _check_blocks(program: object) -> None:
    """Refuse a program without closed-form updates."""
    kind = type(program).__name__
    if missing := [n for n in ("statistics", "updates", "bound") if not callable(getattr(program, n, None))]:
        raise ProgramError(
            f"{kind} has no {missing[0]}, which CoordinateAscent() needs. Use SVI(), or give the program "
            "statistics(params, x), updates() and bound(params, statistics)."
        )
    blocks = cast(Blockwise, program).updates()
    if not (isinstance(blocks, list | tuple) and blocks and all(callable(b) for b in blocks)):
        raise ProgramError(
            f"{kind}.updates(): got {blocks!r}, expected a tuple of functions (params, statistics) -> new parameters."
        )
