"""What every likelihood is, and how it refuses data."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ppdgm.errors import DataError
from ppdgm.program import Part


class Likelihood(Part):
    """A distribution over the datum, given the decoder's output."""

    role: ClassVar[str] = "likelihood"

    def check(self, name: str, x: np.ndarray) -> None:
        """Refuse data outside the likelihood's support.

        Raises:
            DataError: with the index of the first bad datum.
        """
        refuse(name, x, ~np.isfinite(x), "finite numbers")


class BadData(DataError):
    """Some data of a field that a likelihood can't take.

    Attributes:
        index: of the first bad number.
        bad: how many data have one.
    """

    def __init__(self, name: str, value: Any, index: tuple[int, ...], expected: str, bad: int, size: int):
        super().__init__(
            f"Data {name!r}: got {value} at index {index}, expected {expected}. {bad} of {size} data are affected."
        )
        self.name, self.value, self.index, self.expected, self.bad = name, value, index, expected, bad

    def moved(self, row: int, bad: int, size: int) -> BadData:
        """The same, of a larger set: the first bad datum's row there, and how many are bad."""
        return BadData(self.name, self.value, (row, *self.index[1:]), self.expected, bad, size)


def refuse(name: str, x: np.ndarray, bad: np.ndarray, expected: str) -> None:
    """Raise a DataError that names the first datum where `bad`."""
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise BadData(name, x[index], index, expected, int(bad.reshape(len(x), -1).any(1).sum()), len(x))
