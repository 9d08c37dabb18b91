"""Functions of parameters and one array, without statements: the blocks of `P.reversible`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from ppdgm.errors import ProgramError
from ppdgm.language.native import Array

Map = Callable[[Any, Array], Array]  # of P in the block's scope and an array
Pure = Callable[[Mapping[str, Array], Array], Array]  # of the parameters in the block's scope and an array


class InvertibleBlock(NamedTuple):
    """An invertible map, with the parameters in its scope."""

    own: dict[str, Array]
    forward: Pure
    inverse: Pure


class WithoutStatements:
    """The interpreter of what has no statements: parameters are as they are."""

    looping = False
    recomputes = False

    def param(self, name: str, value: Array) -> Array:
        return value

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # a question of Python's own
            raise AttributeError(name)
        word = {"noise": "random", "drops": "dropout"}.get(name, name)
        raise ProgramError(
            f"P.{word} is called where only arrays are computed, such as in a block of P.reversible, which is run "
            "again for the gradient. Write statements and noise outside it."
        )


def blocks_of(P: Any, named: Sequence[tuple[str, Map, Map]]) -> list[InvertibleBlock]:
    """Blocks as functions of their parameters alone; each has those in the scope of its name."""
    return [_block(P.scope(name), forward, inverse) for name, forward, inverse in named]


def _block(P: Any, forward: Map, inverse: Map) -> InvertibleBlock:
    own = {n: P.param(n[len(P.prefix) :]) for n in P.params if n.startswith(P.prefix)}
    over = lambda values: type(P)(WithoutStatements(), values, P.declared, P.prefix)
    return InvertibleBlock(own, lambda values, x: forward(over(values), x), lambda values, y: inverse(over(values), y))
