"""Interpreters of layers that take no noise."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar, cast

from ppdgm.errors import ProgramError

Same = TypeVar("Same")


def undropped(interpreter: Same) -> Same:
    """The same interpreter with dropout off, also in training: for draws from a net."""
    return cast(Same, _WithoutDropout(interpreter))


def computed_again(interpreter: Same) -> Same:
    """The same interpreter, for layers that are computed again for the gradient: they may take no noise."""
    return cast(Same, _ComputedAgain(interpreter))


class _Around:
    """An interpreter like another one."""

    def __init__(self, inner: object):
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _WithoutDropout(_Around):
    def drops(self) -> bool:
        return False


class _ComputedAgain(_Around):
    def update(self, *_: object) -> NoReturn:
        raise ProgramError(
            "A net moves a state (batch norm does), and rematerialise=True computes its layers again for the "
            "gradient. Leave rematerialise out, or use another norm."
        )

    def noise(self) -> NoReturn:
        raise ProgramError(
            "A net takes noise (P.random or P.dropout), and rematerialise=True computes its layers again for the "
            "gradient, with other noise. Leave rematerialise out."
        )
