"""A program's statements as primitives of a library, for its plain callables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from ppdgm.errors import ProgramError
from ppdgm.language.vocabulary import Array, Dist, Noise


class StatementHandlers(ABC):
    """Statements as a library's primitives.

    Args:
        size: B, for plates without data.
        data_size: N, if B rows stand for more.

    Attributes:
        library: the module with its primitives.
    """

    library: ClassVar[Any]
    looping: bool = False

    def __init__(self, size: int | None, data_size: int | None):
        self.size, self.data_size = size, data_size

    @abstractmethod
    def subsampled(self, name: str, size: int, data_size: int) -> AbstractContextManager[object]:
        """A plate whose rows count data_size / size times."""

    @abstractmethod
    def param(self, name: str, value: Array) -> Array: ...

    def plate(self, name: str, data: Array) -> AbstractContextManager[object]:
        size = self.size if data is None else data.shape[0]
        if size is None:
            raise ProgramError(
                f"Plate {name!r} has no data, so its size is not known. Give the size: program.bind(…, size=B)."
            )
        if self.data_size is not None:
            return self.subsampled(name, size, self.data_size)
        plate: AbstractContextManager[object] = self.library.plate(name, size, dim=-1)
        return plate

    def sample(self, name: str, dist: Dist, obs: Array | None, infer: Mapping[str, object] | None) -> Array:
        return self.library.sample(name, dist, obs=obs, infer=dict(infer or {}))

    @abstractmethod
    def noise(self) -> Noise:
        """What `P.random` draws from."""

    def penalty(self, name: str, value: Array) -> None:  # noqa: B027  # it does nothing
        """Not part of the joint density, which is all that Pyro's and NumPyro's tools need."""

    def deterministic(self, name: str, value: Array) -> Array:
        return self.library.deterministic(name, value)
