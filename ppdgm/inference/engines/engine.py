"""The base class of engines: phases, each with an objective and the parameters that it moves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np

from ppdgm.errors import TrainingError, nearest
from ppdgm.language.reader import Gradients
from ppdgm.language.step import Step
from ppdgm.language.vocabulary import Array
from ppdgm.specs import Spec
from ppdgm.specs.schedules import Schedule


@dataclass(frozen=True)
class Phase:
    """A part of an engine's steps: an objective, the parameters that it moves, and how fast.

    Attributes:
        engine: the engine that has the `objective`.
        labels: labels of the parameters that it moves; None for all.
        freeze: patterns of names of parameters that it does not move, such as "decoder.*".
        first: the step from which its schedules count.
        learning_rate: the phase's own, counted from `first`; None for the run's.
    """

    engine: Engine
    labels: tuple[str, ...] | None = None
    freeze: tuple[str, ...] = ()
    first: int = 0
    learning_rate: Schedule | None = None

    def moving(self, labels: Mapping[str, str]) -> list[str]:
        """The names of the parameters that it moves.

        Raises:
            TrainingError: a pattern matches no parameter, or no parameter is left to move.
        """
        for pattern in self.freeze:
            if not any(fnmatchcase(n, pattern) for n in labels):
                raise TrainingError(f"freeze: {pattern!r} matches no parameter. {nearest(pattern, labels)}")
        frozen = lambda n: any(fnmatchcase(n, pattern) for pattern in self.freeze)
        found = [n for n, label in labels.items() if (not self.labels or label in self.labels) and not frozen(n)]
        if not found:
            labelled = f" labelled {' or '.join(self.labels)}" if self.labels else ""
            raise TrainingError(
                f"{type(self.engine).__name__} has no parameters{labelled} that it can train. Freeze fewer parameters, "
                "or use an engine that trains all of them at once, such as SVI()."
            )
        players = self.engine.players
        if alone := [n for n in found if players and labels[n] not in players]:
            raise TrainingError(
                f"{type(self.engine).__name__} trains parameters labelled {' and '.join(players)}, but {alone[0]!r} "
                f"is labelled {labels[alone[0]]!r}, so no objective would train it. Use SVI or IWAE, or change its "
                "label in build()."
            )
        return found

    def later(self, steps: int) -> Phase:
        """The same phase, this many steps later."""
        return replace(self, first=self.first + steps)


class Engine(Spec):
    """How a program is trained: what is maximised, with how many particles, and with which schedules."""

    metrics: ClassVar[tuple[str, ...]] = ("objective", "elbo", "kl")  #: named scalars that an objective returns
    players: ClassVar[tuple[str, ...]] = ()  #: labels with their own objectives; none: one objective for all
    exact: ClassVar[bool] = False  #: closed-form steps over all data, without gradients
    compiles: ClassVar[bool] = True  #: whether torch.compile can compile the objective
    weighs: ClassVar[bool] = False  #: weighs draws by p(x, z) / q(z|x), or learns log q: the guide needs a density
    together: ClassVar[str] = ""  #: why a minibatch can't be split into pieces; empty if it can

    @property
    def particles(self) -> int:
        """K, draws from the guide per row."""
        return 1

    @property
    def wants_kl(self) -> bool:
        """Whether closed-form KLs are wanted."""
        return False

    def gradients(self) -> Gradients:
        """How gradients pass through draws."""
        return Gradients(scored=[])

    def schedules(self) -> dict[str, Schedule]:
        """Schedules by name, for which a run must be long enough."""
        return {}

    def knobs(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Numbers that the objective needs at each step, each an array like `steps`."""
        return {}

    def own(self, width: int, scored: Iterable[str]) -> dict[str, np.ndarray]:
        """First values of the engine's own parameters and numbers, such as a baseline's.

        Args:
            width: of a row, flat.
            scored: sites whose draws carry no gradient.
        """
        return {}

    def labels(self, own: Iterable[str]) -> dict[str, str]:
        """Labels of those of its own parameters that move by gradient."""
        return {}

    def phases(self) -> tuple[Phase, ...]:
        """The phases that the engine consists of."""
        return (Phase(self),)

    def turns(self, steps: np.ndarray) -> np.ndarray:
        """The number of each step's phase."""
        return np.zeros(len(steps), np.int32)

    def controller(self, per_epoch: int) -> Any:
        """The object that chooses the phases if they depend on the training so far; else None."""
        return None

    def check(self, steps: int) -> None:
        """Refuse a run of this number of steps.

        Raises:
            TrainingError: it is too short for what is planned.
        """

    @abstractmethod
    def objective(
        self, step: Step, weights: Array, knobs: Mapping[str, Array], data_size: int | None
    ) -> dict[str, Any]:
        """The `metrics`, means over the minibatch in nats per row; "objective" is maximised.

        Args:
            step: readings of the minibatch.
            weights: [B], 1 for a row and 0 for padding.
            knobs: this step's values of `knobs`.
            data_size: N; a latent outside the data plate counts once in N rows.

        Returns:
            The metrics. With players, also "players": label -> what it maximises. If the engine has its own numbers,
            also "own": their new values. If the objective is not a mean over rows but a function of such means, also
            "means", by name, and "at": means -> all of this at the means of a minibatch of which these rows are a
            piece.
        """


class Composite(Engine):
    """An engine that is made of other engines' phases, and has no objective itself."""

    def objective(self, step: Step, weights: Array, knobs: Mapping[str, Array], data_size: int | None) -> Any:
        raise TypeError(f"{type(self).__name__} has no objective: its phases have.")

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The phases that the engine consists of."""


def knobs_of_phases(engine: Engine, steps: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers that all phases' objectives need at each step, by the names that `knobs_of` reads."""
    found: dict[str, np.ndarray] = {}
    for i, phase in enumerate(engine.phases()):
        own = phase.engine.knobs(np.maximum(steps - phase.first, 0))
        found |= {f"{n}@{i}" if i else n: v for n, v in own.items()}
    return found


def rates_of_phases(engine: Engine, rate: Schedule, steps: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """The learning rate of each step: its phase's own, or the run's."""
    found = rate(steps)
    for i, phase in enumerate(engine.phases()):
        if phase.learning_rate is not None:
            found = np.where(turns == i, phase.learning_rate(np.maximum(steps - phase.first, 0)), found)
    return found.astype(np.float32)
