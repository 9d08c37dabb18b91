"""The list of published programs, and what is known about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PYRO = "https://github.com/pyro-ppl/pyro/blob/dev/"
NUMPYRO = "https://github.com/pyro-ppl/numpyro/blob/master/"
Made = tuple[Callable[..., Any], Callable[..., Any], Mapping[str, np.ndarray]]  # model, guide, data


@dataclass(frozen=True)
class Published:
    """A published program with one data plate.

    Attributes:
        backend: its library.
        path: of the file, in the library's repository.
        name: of the program in that file.
        plate: name of its data plate.
        make: a function that makes model, guide and synthetic data of the published shapes, but small.
        change: what is changed in the program, besides the sizes of nets and data; "" for nothing.
        guide: what its guide is, if the file has none (because it runs Markov chains, for example).
        settings: of `ppdgm.fit`.
    """

    backend: str
    path: str
    name: str
    plate: str
    make: Callable[[], Made]
    change: str = ""
    guide: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it is published."""
        return (PYRO if self.backend == "pyro" else NUMPYRO) + self.path

    @property
    def title(self) -> str:
        """Library, file and name."""
        return f"{self.backend} {self.path} {self.name}"


PROGRAMS: list[Published] = []
RNG = np.random.default_rng(0)


def published(backend: str, path: str, plate: str, change: str = "", guide: str = "", **settings: Any) -> Any:
    """Put a function that makes a program on the list, under the function's name."""

    def listed(make: Callable[[], Made]) -> Callable[[], Made]:
        PROGRAMS.append(Published(backend, path, make.__name__, plate, make, change, guide, settings))
        return make

    return listed


def normal(*shape: int) -> np.ndarray:
    """Draws of N(0, 1)."""
    return np.random.default_rng([1, *shape]).normal(size=shape).astype("float32")


def binary(*shape: int) -> np.ndarray:
    """0 or 1, as floating numbers."""
    return (np.random.default_rng([2, *shape]).random(shape) < 0.4).astype("float32")


def counts(*shape: int, rate: float = 2.0) -> np.ndarray:
    """Poisson counts, as floating numbers."""
    return np.random.default_rng([3, *shape]).poisson(rate, shape).astype("float32")


def choices(of: int, *shape: int) -> np.ndarray:
    """Whole numbers from 0."""
    return np.random.default_rng([4, *shape]).integers(0, of, shape)
