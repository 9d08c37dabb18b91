"""The base class of engines: phases, each with an objective and the parameters that it moves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, NoReturn, Protocol

import numpy as np

from ppdgm.errors import TrainingError, nearest
from ppdgm.inference.engines.criteria import ELBO, Criterion
from ppdgm.inference.engines.optimisers import Optimiser
from ppdgm.language.step import OWN, Objective, Step
from ppdgm.language.vocabulary import Array, Namespace
from ppdgm.specs import Spec, Table
from ppdgm.specs.schedules import Schedule, check_reached, schedules_of, unreached

Projection = Callable[[Namespace, Array], Array]  #: (array namespace, parameter) -> parameter


@dataclass(frozen=True)
class Phase:
    """A part of an engine's steps: an objective, the parameters that it moves, and how.

    Attributes:
        engine: the engine that has the `objective`; its fields have the schedules.
        labels: labels of the parameters that it moves; None for all.
        freeze: patterns of names of parameters and states that it does not move, such as "decoder.*".
        first: the step from which its schedules count.
        last: the step before which it ends; None: the run's end.
        players: labels that maximise objectives of their own, one each; none: one objective for all.
        learning_rate: its own, counted from `first`; None for the run's.
        optimiser: its own; None for the run's.
        projection: of each parameter that it moved, after each step, such as weight clipping.
        weighs: whether it weighs draws by p(x, z) / q(z|x), or learns log q, so that the guide needs a density.
        together: why a minibatch can't be split into pieces, nor a step be compiled by torch; empty if both can.
    """

    engine: Engine
    labels: tuple[str, ...] | None = None
    freeze: tuple[str, ...] = ()
    first: int = 0
    last: int | None = None
    players: tuple[str, ...] = ()
    learning_rate: Schedule | None = None
    optimiser: Optimiser | None = None
    projection: Projection | None = None
    weighs: bool = False
    together: str = ""

    def frozen(self, name: str) -> bool:
        """Whether a pattern of `freeze` matches this name."""
        return any(fnmatchcase(name, pattern) for pattern in self.freeze)

    def kept(self, updates: Mapping[str, Array]) -> dict[str, Array]:
        """The new values of states that are not frozen."""
        return {n: v for n, v in updates.items() if not self.frozen(n)}

    def moving(self, labels: Mapping[str, str], states: Iterable[str] = ()) -> list[str]:
        """The names of the parameters that it moves.

        Args:
            labels: of all parameters.
            states: names of states, which a pattern may match too.

        Raises:
            TrainingError: a pattern matches nothing, or no parameter is left to move.
        """
        for pattern in self.freeze:
            if not any(fnmatchcase(n, pattern) for n in (*labels, *states)):
                raise TrainingError(f"freeze: {pattern!r} matches no parameter. {nearest(pattern, (*labels, *states))}")
        found = [n for n, label in labels.items() if (not self.labels or label in self.labels) and not self.frozen(n)]
        if not found:
            labelled = f" labelled {' or '.join(self.labels)}" if self.labels else ""
            raise TrainingError(
                f"One phase of the engine ({type(self.engine).__name__}) trains parameters{labelled}, and all of them "
                "are frozen, or there are none. Freeze fewer, or train all parameters in one phase: engine=SVI()."
            )
        players = self.players
        if alone := [n for n in found if players and labels[n] not in players]:
            raise TrainingError(
                f"{type(self.engine).__name__} trains parameters labelled {' and '.join(players)}, but {alone[0]!r} "
                f"is labelled {labels[alone[0]]!r}, so no objective would train it. Use SVI or IWAE, or change its "
                "label in build()."
            )
        return found

    def groups(self, labels: Mapping[str, str], states: Iterable[str] = ()) -> list[list[str]]:
        """The parameters that each of its players moves."""
        moving = self.moving(labels, states)
        return [[n for n in moving if labels[n] == p] for p in self.players] or [moving]

    def later(self, steps: int) -> Phase:
        """The same phase, this many steps later."""
        return replace(self, first=self.first + steps)


@dataclass(frozen=True)
class State:
    """A number or an array of an engine's own, which is saved with the run.

    Attributes:
        value: its first value.
        label: of the parameters that it moves with, by gradient; None: the objective gives its next value.
    """

    value: np.ndarray
    label: str | None = None


class PhaseController(Protocol):
    """Chooses the phases from the training so far."""

    aggressive: bool

    def next(self, count: int) -> np.ndarray:
        """The phases of the next steps, at most `count`."""
        ...

    def seen(self, phases: np.ndarray, objective: np.ndarray) -> bool:
        """Record steps that were taken; returns whether the mutual information is to be measured now."""
        ...

    def look(self, information: float) -> None:
        """Record the mutual information."""
        ...

    def page(self) -> dict[str, object]:
        """Its state as plain values."""
        ...

    def restore(self, page: Table) -> None:
        """Continue from what `page` gave."""
        ...


class Engine(Spec):
    """How a program is trained: what is maximised, by which parameters, and how fast.

    An engine of your own only needs `objective`. Fields that take a schedule are given to it at each step, as
    `step.hyperparameters`.
    """

    reads_data: ClassVar[bool] = True  #: whether it needs rows; else it draws them, and `fit` is called without data

    @abstractmethod
    def objective(self, step: Step) -> Objective:
        """Named numbers, means over the minibatch in nats per row; "objective" is maximised.

        Args:
            step: runs of the program on the minibatch.

        Returns:
            The numbers, which become the history. If the phase has players, also "players": label -> what it
            maximises. If the engine has a state, also "state": its new values. If the objective is not a mean over rows
            but a function of such means, also "means", by name, and "at": means -> all of this at the means of a
            minibatch of which these rows are a piece.
        """

    def phases(self) -> tuple[Phase, ...]:
        """The phases that the engine consists of; none if its steps are closed-form ones over all data."""
        return (Phase(self),)

    def phase_of(self, steps: np.ndarray) -> np.ndarray:
        """The number of each step's phase."""
        return np.zeros(len(steps), np.int32)

    def controller(self, per_epoch: int) -> PhaseController | None:
        """The object that chooses the phases, if they depend on the training so far; `per_epoch` steps are an epoch."""
        return None

    def state(self, width: int, scored: Iterable[str]) -> dict[str, State]:
        """The engine's own parameters and numbers, such as a baseline's, by names that begin with "engine/".

        Args:
            width: of a row, flat.
            scored: sites whose draws carry no gradient.
        """
        return {}

    def criterion(self) -> Criterion | None:
        """What validation watches: early stopping, keep-best and the history follow it. None: validation is refused."""
        return ELBO


class Composite(Engine):
    """An engine that is made of other engines' phases, and has no objective itself.

    Its criterion is that of its last phase's engine.
    """

    def objective(self, step: Step) -> NoReturn:
        raise TypeError(f"{type(self).__name__} has no objective: its phases have.")

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The phases that the engine consists of."""

    def criterion(self) -> Criterion | None:
        phases = self.phases()
        return phases[-1].engine.criterion() if phases else ELBO


def states_of(engine: Engine, width: int, scored: Iterable[str]) -> dict[str, State]:
    """The states of the engine and of all its phases' engines.

    Raises:
        TrainingError: two of them begin a state of one name with different values.
    """
    scored = list(scored)
    found: dict[str, State] = {}
    for each in (*(phase.engine for phase in engine.phases()), engine):
        for name, state in each.state(width, scored).items():
            if not np.array_equal(found.setdefault(name, state).value, state.value):
                raise TrainingError(
                    f"{type(each).__name__}: {name.removeprefix(OWN)} begins with different values in two phases of "
                    "the run, but they share it. Give the same value in both, or train them in two runs."
                )
    return found


def hyperparameters_of(engine: Engine, steps: np.ndarray) -> tuple[dict[str, np.ndarray], ...]:
    """The scheduled numbers of each phase's engine at each step, by the names of its fields."""
    return tuple(
        {
            name: schedule(np.maximum(steps - phase.first, 0)).astype(np.float32)
            for name, schedule in schedules_of(phase.engine).items()
        }
        for phase in engine.phases()
    )


def rates_of(engine: Engine, rate: Schedule, steps: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """The learning rate of each step: its phase's own, or the run's."""
    found = rate(steps)
    for i, phase in enumerate(engine.phases()):
        if phase.learning_rate is not None:
            found = np.where(phases == i, phase.learning_rate(np.maximum(steps - phase.first, 0)), found)
    return found.astype(np.float32)


def last_reached(engine: Engine) -> int:
    """The step at which the last warm-up of its phases' hyperparameters ends."""
    found = ((p.first, s.reached()) for p in engine.phases() for s in schedules_of(p.engine).values())
    return max((first + reached for first, reached in found if reached), default=0)


def first_watched(engine: Engine) -> int:
    """The step from which the run's criterion is that of the engine in turn: stages before may have another one."""
    name = lambda e: getattr(e.criterion(), "name", None)
    return max((p.last for p in engine.phases() if p.last and name(p.engine) != name(engine)), default=0)


def check_length(engine: Engine, steps: int, others: Mapping[str, Schedule]) -> None:
    """Refuse a run of this number of steps if a phase would not begin, or a schedule not be reached.

    Args:
        engine: of the run.
        steps: the run's number of steps.
        others: schedules by name that count from the run's first step.

    Raises:
        TrainingError: with what is too short.
    """
    phases = engine.phases()
    if phases and (latest := max(p.first for p in phases)) >= steps:
        raise TrainingError(
            f"The stages before the last take {latest} steps, but the run has {steps} steps, so no step is "
            "left for the last stage. Train longer, or give these stages fewer steps."
        )
    messages: dict[str, None] = {}  # each once: phases can share an engine
    for phase in phases:
        whole = phase.first == 0 and phase.last is None
        length = (steps if phase.last is None else phase.last) - phase.first
        own = {} if phase.learning_rate is None else {"learning_rate": phase.learning_rate}
        schedules = {**schedules_of(phase.engine), **own}
        messages |= dict.fromkeys(unreached(schedules, length, "the run" if whole else "its stage"))
    check_reached([*messages, *unreached(others, steps)])
