"""What every engine is: an objective over a trace's terms, and what it needs to know of each step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ppdgm.language import Array, Trace
from ppdgm.schedules import Schedule
from ppdgm.spec import Spec


class Engine(Spec):
    """How a program is trained: what is maximised, with how many particles, under which schedules."""

    metrics: ClassVar[tuple[str, ...]] = ("objective", "elbo", "kl")  #: named scalars that the objective returns

    @property
    @abstractmethod
    def particles(self) -> int:
        """K, draws from the guide per datum."""

    @property
    @abstractmethod
    def wants_kl(self) -> bool:
        """Whether the trace should hold closed-form KLs."""

    def schedules(self) -> dict[str, Schedule]:
        """Schedules that a run must be long enough for, by name."""
        return {}

    def knobs(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Numbers that the objective needs to know of each step, each an array like `steps`."""
        return {}

    @abstractmethod
    def __call__(
        self, trace: Trace, xp: Any, weights: Array, knobs: Mapping[str, Array], data_size: int | None
    ) -> dict[str, Array]:
        """The `metrics`, means over the minibatch in nats per datum; "objective" is maximised.

        Args:
            trace: terms [K, B].
            xp: array namespace.
            weights: [B], 1 for a datum and 0 for padding.
            knobs: this step's values of `knobs`.
            data_size: N; a latent outside the data plate counts once in N data.
        """
