"""What training needs from an engine, its phases, its optimiser and a plan of steps, which are written elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from ppdgm.language.step import Objective, Step
from ppdgm.language.vocabulary import Array, Namespace

Hyperparameters = Sequence[Mapping[str, np.ndarray]]  #: of each phase, the scheduled numbers of its engine, [S] each


class ObjectiveLike(Protocol):
    """What is maximised."""

    def objective(self, step: Step) -> Objective: ...


class OptimiserLike(Protocol):
    """The settings of an optimiser by name."""

    @property
    def name(self) -> str: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def decay(self) -> float: ...
    @property
    def clip_norm(self) -> float | None: ...


class PhaseLike(Protocol):
    """A part of an engine's steps."""

    @property
    def engine(self) -> ObjectiveLike: ...
    @property
    def players(self) -> tuple[str, ...]: ...
    @property
    def optimiser(self) -> OptimiserLike | None: ...
    @property
    def projection(self) -> Callable[[Namespace, Array], Array] | None: ...
    @property
    def together(self) -> str: ...
    def groups(self, labels: Mapping[str, str], states: Iterable[str] = ()) -> list[list[str]]: ...
    def kept(self, updates: Mapping[str, Array]) -> Mapping[str, Array]: ...


class EngineLike(Protocol):
    """How a program is trained."""

    def phases(self) -> Sequence[PhaseLike]: ...


class StateLike(Protocol):
    """A number or an array of an engine's own."""

    @property
    def value(self) -> np.ndarray: ...
    @property
    def label(self) -> str | None: ...


class PlanLike(Protocol):
    """The steps of a stretch; see `ppdgm.inference.inputs.batches.Plan`."""

    @property
    def index(self) -> np.ndarray: ...
    @property
    def weight(self) -> np.ndarray: ...
    @property
    def rate(self) -> np.ndarray: ...
    @property
    def hyperparameters(self) -> Hyperparameters: ...
    @property
    def first(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def phase(self) -> np.ndarray: ...
    @property
    def scheduled(self) -> Mapping[str, np.ndarray]: ...
