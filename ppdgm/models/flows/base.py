"""What every flow is."""

from __future__ import annotations

from abc import abstractmethod
from inspect import isabstract
from typing import Any, ClassVar, Literal

from ppdgm.errors import ProgramError
from ppdgm.language import Array, Vocabulary
from ppdgm.program import Context
from ppdgm.spec import Spec


class Flow(Spec):
    """An invertible map f of vectors [..., D] with a tractable |det J|, perhaps depending on a context.

    A flow has no parameters of its own outside a part: `FlowPosterior` and `FlowPrior` declare it in their scope. One
    without an `inverse` is one-way: its draws can be scored, but no other values.
    """

    fast: ClassVar[Literal["forward", "inverse", "both"]] = "both"  #: direction of one pass; the other takes D passes
    one_way: ClassVar[bool] = False  #: set for a class that has no `inverse`

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        if not isabstract(cls) and cls.inverse is Flow.inverse:
            cls.one_way, cls.fast = True, "forward"

    @abstractmethod
    def build(self, context: Context, width: int, conditional: bool) -> int:
        """Declare parameters and nets for vectors of `width`.

        Args:
            context: in the flow's own scope.
            width: D.
            conditional: whether the flow gets a context, of as many numbers per datum as are returned.

        Returns:
            How many numbers of context per datum the flow reads; 0 where it is not conditional.
        """

    @abstractmethod
    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        """f(x) [..., D] and log |det ∂f/∂x| [...].

        Args:
            P: in the flow's own scope.
            x: [..., D].
            context: [..., C], whose leading dimensions broadcast with those of x; or None.
        """

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        """f⁻¹(y) [..., D] and log |det ∂f⁻¹/∂y| [...].

        Raises:
            ProgramError: no inverse is known (`one_way`).
        """
        name = type(self).__name__
        raise ProgramError(f"{name} has no known inverse: it scores its own draws only. Take IAF, say, or RQSpline.")
