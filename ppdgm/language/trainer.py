"""Trainers: the state of training on a device, and the steps that change it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ppdgm.language.augmenting import Augment
from ppdgm.language.native import OwnOptimiser
from ppdgm.language.phases import EngineLike, OptimiserLike, PlanLike, StateLike
from ppdgm.language.runtime import Arrays, Native, Runtime
from ppdgm.language.states import next_value
from ppdgm.language.step import MASS, Objective, Step
from ppdgm.language.tracer import Params
from ppdgm.language.vocabulary import Array, Trace


@dataclass(frozen=True)
class TrainerSettings:
    """What a trainer needs to know of a run.

    Attributes:
        seed: of all draws.
        data_size: N, or the sum of the rows' weights.
        optimiser: of phases without one of their own: a spec, or the library's own.
        metrics: the numbers of objectives that are kept of each step.
        binarise: draw x ~ Bernoulli(x) again for each minibatch.
        augment: changes x of each minibatch at random, before it is binarised; None: nothing does.
        average: d of the moving average of the parameters, or None.
        compile: compile the step with torch.compile, if possible; JAX always compiles.
        insist: raise an error for a program that torch can't compile, instead of running it eagerly.
        pieces: the number of parts of a minibatch, computed one after the other; the gradient is that of all.
        mixed: nets multiply in bfloat16.
        tf32: products of float32 numbers round their inputs to TF32.
        graphs: run the compiled step as a CUDA graph.
        rematerialise: the layers of nets are computed again for the gradient, in place of being kept.
        chunk: the number of particles that are read at a time; None: all.
    """

    seed: int
    data_size: float | None
    optimiser: OptimiserLike | OwnOptimiser
    metrics: tuple[str, ...] = ("objective", "elbo", "kl")
    binarise: bool = False
    average: float | None = None
    compile: bool = False
    insist: bool = False
    pieces: int = 1
    mixed: bool = False
    chunk: int | None = None
    tf32: bool = False
    graphs: bool = False
    rematerialise: bool = False
    augment: Augment | None = None


class Symptoms(NamedTuple):
    """The quantities of a step, to find one that is not finite.

    Attributes:
        terms: the first trace, [K, B]; None if the objective has none.
        returned: what the program's functions returned, by name.
        gradients: by parameter.
        updates: new values of states.
    """

    terms: Trace | None
    returned: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    updates: dict[str, np.ndarray]


class Trainer(ABC):
    """The state of training, and the loop over a stretch of steps."""

    runtime: Runtime
    compiled: bool

    @abstractmethod
    def run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        """Take the plan's steps; return the metrics of each. Nothing is read back between the steps.

        Args:
            plan: of a stretch.
            data: the data that the plan's indices refer to, from `runtime.put`.
        """

    @property
    @abstractmethod
    def judged(self) -> Native:
        """The parameters that the run is evaluated with: their average, if one is kept."""

    @abstractmethod
    def values(self) -> dict[str, np.ndarray]:
        """The current values of these parameters, and of buffers."""

    @abstractmethod
    def state_arrays(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on."""

    def state_like(self, saved: Arrays) -> dict[str, np.ndarray]:
        """Arrays with the names, shapes and types that `state_arrays` may have returned for `saved`."""
        return self.state_arrays()

    @abstractmethod
    def restore(self, arrays: Arrays) -> None:
        """Continue from the result of `state_arrays`."""

    @abstractmethod
    def finite(self) -> bool:
        """Whether all parameters are finite, and the state of an optimiser by name."""

    @abstractmethod
    def skip(self) -> None:
        """Skip a step: the next one has its own draws."""

    @abstractmethod
    def check_divided(self, plan: PlanLike, data: Native) -> None:
        """Refuse a run whose step would be another one if its rows are divided among processes.

        Args:
            plan: one step of each phase.
            data: as for `run`.
        """

    @abstractmethod
    def diagnose(self, plan: PlanLike, data: Native) -> Symptoms:
        """The quantities of the plan's first step, which is not taken."""


class GradientTrainer(Trainer):
    """Steps along gradients. A backend supplies the optimisers and the loop.

    Args:
        runtime: of the program.
        engine: each of its phases has an objective, and parameters that it trains.
        params: from `runtime.put`.
        settings: of the run.
        state: the engine's own parameters and numbers, which are not part of the result.

    Attributes:
        params, average: all parameters; and moving averages of those of the result, if they are kept.
        own: names of the engine's own.
        groups: of each phase, the parameters that each player trains.
    """

    params: Native
    average: Native

    def __init__(
        self,
        runtime: Runtime,
        engine: EngineLike,
        params: Native,
        settings: TrainerSettings,
        state: Mapping[str, StateLike] = MappingProxyType({}),
    ):
        self.runtime, self.tracer, self.engine, self.settings = runtime, runtime.tracer, engine, settings
        self.own, self.decay = frozenset(state), settings.average
        self.phases = engine.phases()
        labels = {**self.tracer.labels, **{n: s.label for n, s in state.items() if s.label is not None}}
        self.groups = [phase.groups(labels, self.tracer.states) for phase in self.phases]
        self.start(params, state)

    @abstractmethod
    def start(self, params: Native, state: Mapping[str, StateLike]) -> None:
        """Set parameters, averages, optimisers and draws to what they are before the first step."""

    @staticmethod
    @abstractmethod
    def copies(arrays: Native) -> dict[str, np.ndarray]:
        """NumPy arrays in their own memory: the next step may overwrite those of the device."""

    @abstractmethod
    def further(self) -> dict[str, dict[str, np.ndarray]]:
        """What the next step depends on besides the parameters, such as the optimisers' states, by part and name."""

    @property
    def judged(self) -> Native:
        return {n: v for n, v in {**self.params, **self.average}.items() if n not in self.own}

    def values(self) -> dict[str, np.ndarray]:
        return self.copies(self.judged)

    def state_arrays(self) -> dict[str, np.ndarray]:
        parts = {"params": self.copies(self.params), "average": self.copies(self.average), **self.further()}
        return {f"{part}/{n}": a for part, arrays in parts.items() for n, a in arrays.items()}

    def objective(self, j: int, params: Params, step: Step) -> Objective:
        """The result of phase j's objective for a step; new states are with the engine's."""
        found = dict(self.phases[j].engine.objective(step))
        if MASS in step.hyperparameters:
            found[MASS] = step.hyperparameters[MASS]
        moved = {n: next_value(params[n], v, step.xp) for n, v in self.phases[j].kept(step.updates).items()}
        return {**found, "state": {**found.get("state", {}), **moved}} if moved else found

    def losses(self, j: int, found: Objective) -> list[Array]:
        """What each player of phase j minimises."""
        losses = [-found["players"][n] for n in self.phases[j].players] or [-found["objective"]]
        return [found[MASS] * loss for loss in losses] if MASS in found else losses

    def metrics(self, found: Objective) -> list[Array]:
        """The numbers of an objective that are kept; NaN for those of another phase."""
        missing = self.runtime.xp.full_like(found["objective"], float("nan"))
        return [found.get(n, missing) for n in self.settings.metrics]


def part_of(arrays: Arrays, part: str) -> dict[str, np.ndarray]:
    """One part of the result of `state_arrays`."""
    return {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{part}/")}
