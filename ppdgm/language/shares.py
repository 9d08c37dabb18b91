"""What one process does in a run over several devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ppdgm.errors import TrainingError

#: Numbers of rows of each process in a trial step; the next one, if an axis of noise has the same size.
TRIED = (7, 11, 13)
OF_TRAINING = "The run's last checkpoint is whole: start all processes again, with ppdgm.resume or `ppdgm resume`."
OF_EVALUATIONS = "Every process has to call the same methods of the fit with the same arguments."
Result = TypeVar("Result")


@dataclass(frozen=True)
class Share:
    """The part of this process.

    Attributes:
        devices: the number of devices that each minibatch is divided among.
        process, processes: the number of this process, from 0, and how many there are. Only process 0 saves and shows.
    """

    devices: int = 1
    process: int = 0
    processes: int = 1

    def shown(self, one: str, kind: str) -> str:
        """Where a run is, in words.

        Args:
            one: the name of the only device.
            kind: what several devices are.
        """
        if self.devices == 1:
            return one
        return f"{self.devices} × {kind}" + (f" in {self.processes} processes" if self.processes > 1 else "")

    def lost(self, error: Exception, advice: str = OF_TRAINING) -> TrainingError:
        """The error to raise if the others do not answer."""
        return TrainingError(
            f"devices: another of the {self.processes} processes ended, or does not answer "
            f"({str(error).splitlines()[0]}). Look for its error. {advice}"
        )

    def first(self, number: int) -> int:
        """The number of the first process."""
        return number if self.processes == 1 else int(self.largest(np.array([number * (self.process == 0)]))[0])

    def any(self, told: bool) -> bool:
        """Whether something is true for one of the processes."""
        return bool(self.largest(np.array([told], np.int64))[0])

    def largest(self, numbers: np.ndarray) -> np.ndarray:
        """The largest of each number over all processes: what they all do then."""
        return numbers

    def each(self, count: int, work: Callable[[int], Result], about: tuple[object, ...]) -> Iterator[Result]:
        """work(0), …, work(count − 1), in this order. Several processes may divide the work; each gets all results.

        Args:
            count: the number of pieces.
            work: a piece; it may not depend on the pieces before it.
            about: plain values that say what the work is: they are the same in all processes.
        """
        return map(work, range(count))
