"""Trainers: the state of training on a device, and the steps that change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ppdgm.language.native import OwnOptimiser
from ppdgm.language.phases import OptimiserLike, PlanLike
from ppdgm.language.runtime import Arrays, Native, Runtime
from ppdgm.language.vocabulary import Trace


@dataclass(frozen=True)
class TrainerSettings:
    """What a trainer needs to know of a run.

    Attributes:
        seed: of all draws.
        data_size: N.
        optimiser: of phases without one of their own: a spec, or the library's own.
        metrics: the numbers of objectives that are kept of each step.
        binarise: draw x ~ Bernoulli(x) again for each minibatch.
        average: d of the moving average of the parameters, or None.
        compile: compile the step with torch.compile, if possible; JAX always compiles.
        insist: raise an error for a program that torch can't compile, instead of running it eagerly.
        pieces: the number of parts of a minibatch, computed one after the other; the gradient is that of all.
        mixed: nets multiply in bfloat16.
    """

    seed: int
    data_size: int | None
    optimiser: OptimiserLike | OwnOptimiser
    metrics: tuple[str, ...] = ("objective", "elbo", "kl")
    binarise: bool = False
    average: float | None = None
    compile: bool = False
    insist: bool = False
    pieces: int = 1
    mixed: bool = False


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


class Trainer(Protocol):
    """The state of training, and the loop over a stretch of steps."""

    runtime: Runtime
    compiled: bool

    def run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        """Take the plan's steps; returns the metrics of each. Nothing is read back between the steps."""
        ...

    @property
    def judged(self) -> Native:
        """The parameters that the run is evaluated with: their average, if one is kept."""
        ...

    def values(self) -> dict[str, np.ndarray]:
        """The current values of these parameters, and of buffers."""
        ...

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on."""
        ...

    def state_like(self, saved: Arrays) -> dict[str, np.ndarray]:
        """Arrays with the names, shapes and types that `state_arrays` may have returned for `saved`."""
        ...

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from the result of `state_arrays`."""
        ...

    def finite(self) -> bool:
        """Whether all parameters are finite, and the state of an optimiser by name."""
        ...

    def skip(self) -> None:
        """Skip a step: the next one has its own draws."""
        ...

    def diagnose(self, plan: PlanLike, data: Native) -> Symptoms:
        """The quantities of the plan's first step, which is not taken."""
        ...
