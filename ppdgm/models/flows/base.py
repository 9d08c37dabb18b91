"""The base class of flows."""

from __future__ import annotations

from abc import abstractmethod
from inspect import isabstract
from typing import ClassVar, Literal

from ppdgm.errors import ProgramError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.program import Context
from ppdgm.specs import Spec


class Flow(Spec):
    """An invertible map f of vectors [..., D] with a tractable |det J|; it may depend on a context.

    A flow is always used in a part: `FlowPosterior` and `FlowPrior` declare its parameters in their scope. A flow
    without an `inverse` is one-way: only the density of its own draws is known, not that of other values.
    """

    fast: ClassVar[Literal["forward", "inverse", "both"]] = "both"  #: takes one pass; the other direction takes D
    one_way: ClassVar[bool] = False  #: set for a class that has no `inverse`

    @classmethod
    def __pydantic_init_subclass__(cls, **options: object) -> None:
        super().__pydantic_init_subclass__(**options)
        if not isabstract(cls) and cls.inverse is Flow.inverse:
            cls.one_way, cls.fast = True, "forward"

    @abstractmethod
    def build(self, scope: Context, width: int, conditional: bool) -> int:
        """Declare parameters and nets for vectors of `width`.

        Args:
            scope: the build context, in the flow's own scope.
            width: D.
            conditional: whether the flow gets a context. This method returns how wide it must be.

        Returns:
            How many numbers of context the flow reads for each row; 0 if it is not conditional.
        """

    @abstractmethod
    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        """f(x) [..., D] and log |det ∂f/∂x| [...].

        Args:
            P: the vocabulary, in the flow's own scope.
            x: [..., D].
            context: [..., C], whose leading dimensions broadcast with those of x; or None.
        """

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        """f⁻¹(y) [..., D] and log |det ∂f⁻¹/∂y| [...].

        Raises:
            ProgramError: no inverse is known (`one_way`).
        """
        name = type(self).__name__
        raise ProgramError(
            f"{name} has no known inverse, so it can score only its own draws. Use another flow, such as IAF or "
            "RQSpline."
        )

    def settle(self, P: NumpyVocabulary, y: Array, context: Array | None) -> Array:
        """f⁻¹(y), after first values that depend on the data were set by `P.set`; P is over NumPy.

        A flow that has such values, or has flows inside it, defines it. By default, there are none.
        """
        return self.inverse(P, y, context)[0]
