"""A program's statements as primitives of a library, for its plain callables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from ppdgm.errors import ProgramError
from ppdgm.language import states
from ppdgm.language.scan import Body
from ppdgm.language.steps import Tree
from ppdgm.language.unrolled import unrolled
from ppdgm.language.vocabulary import Array, Dist, Namespace, Noise, Vocabulary

if TYPE_CHECKING:
    from types import ModuleType


class StatementHandlers(ABC):
    """Statements as a library's primitives.

    Args:
        size: B, for plates without data.
        data_size: N, if B rows stand for more.
        hold_states: whether states keep their values.

    Attributes:
        library: the module with its primitives.
        effects: the module with its effect handlers.
        stack: the handlers around a statement.
        arrays: the types of arrays.
    """

    library: ClassVar[ModuleType]
    effects: ClassVar[ModuleType]
    stack: ClassVar[Sequence[object]]
    arrays: ClassVar[tuple[type, ...]]
    looping: bool = False
    recomputes: bool = False

    def __init__(self, size: int | None, data_size: int | None, hold_states: bool):
        self.size, self.data_size, self.hold_states = size, data_size, hold_states

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

    def drops(self) -> bool:
        """Whether dropout is on: the library's tools do not say whether they train."""
        return False

    def draws_terms(self) -> bool:
        """Whether terms are drawn in part."""
        return False

    def estimates(self, what: str) -> bool:
        """False: these tools may need exact terms, as Markov chains do."""
        return False

    def scan(
        self, P: Vocabulary, body: Body, carry: Tree, xs: Tree, length: int | None, mask: Array | None
    ) -> tuple[Tree, Tree]:
        return unrolled(self, P, body, carry, xs, length, mask)

    def sizes(self) -> dict[int, int]:
        """The sizes of the plates around a statement, by dimension."""
        return {f.dim: f.subsample_size for f in self.stack if isinstance(f, self.library.plate)}

    def masked(self, mask: Array) -> AbstractContextManager[object]:
        """The library's handler that leaves out the terms of rows where the mask is False."""
        found: AbstractContextManager[object] = self.effects.mask(mask=mask)
        return found

    @abstractmethod
    def filled(self, dist: Dist, value: Array, mask: Array) -> Array:
        """Data that the library can score, also where the mask is False."""

    def penalty(self, name: str, value: Array) -> None:  # noqa: B027  # it does nothing
        """Not part of the joint density, which is all that Pyro's and NumPyro's tools need."""

    def update(self, name: str, value: Array, state: Array) -> None:
        """Nothing, if states are held: the library's tools have no step that could move them."""
        if not self.hold_states:
            raise ProgramError(
                f"P.update({name!r}): the tools of {self.library.__name__} have no training step that moves states. "
                "Train with ppdgm.fit. To use the trained program with its states as they are: program.bind(…, "
                "fit.params, hold_states=True)."
            )
        states.check_update(name, value, state, (), self.arrays)

    def batch_mean(self, value: Array, event_ndim: int, otherwise: Array | None, xp: Namespace) -> Array:
        lead = states.axes_before(value, event_ndim, otherwise, None, self.arrays, xp)
        return states.mean_of_rows(value, lead, None, xp) if otherwise is None else otherwise

    def deterministic(self, name: str, value: Array) -> Array:
        return self.library.deterministic(name, value)
