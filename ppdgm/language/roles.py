"""The functions of a program that engines run: `model`, `guide`, and others such as `loss` or `critic`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

from ppdgm.errors import ProgramError, listed, nearest
from ppdgm.language.vocabulary import Array


def functions_of(program: object) -> dict[str, Callable[..., Array]]:
    """The program's own functions of P and data, by name; `model` and `guide` only if it defines them."""
    found: dict[str, Callable[..., Array]] = {}
    for home in reversed(type(program).__mro__):
        if home.__name__ == "Program" and home.__module__.startswith("ppdgm."):  # its model and guide stand for none
            continue
        for name, function in vars(home).items():
            if inspect.isfunction(function) and [*inspect.signature(function).parameters][1:2] == ["P"]:
                found[name] = getattr(program, name)
    return found


def no_function(program: object, role: str) -> ProgramError:
    """The error for a function that an engine runs, and that the program does not have."""
    kind = type(program).__name__
    if hasattr(program, role):
        return ProgramError(f"{kind}.{role} is no function of P and the data, which the engine needs. Define one.")
    known = functions_of(program)
    hint = nearest(role, known) if known else ""
    return ProgramError(
        f"{kind} has no {role}(self, P, x), which the engine needs. {hint} Define it.".replace("  ", " ")
    )


def wrong_fields(program: object, role: str, fields: Iterable[str]) -> ProgramError | None:
    """The error if a function of the program does not take the fields of the data; None if it does."""
    names, asked = list(fields), inspect.signature(getattr(program, role))
    try:
        asked.bind(None, **dict.fromkeys(names))
    except TypeError:
        takes = [*asked.parameters][1:]
        return ProgramError(
            f"{type(program).__name__}.{role}: got data with the fields {listed(names)}, but it takes "
            f"{listed(takes)}. Give the data these fields, or take each field: {role}(self, P, {', '.join(names)})."
        )
    return None
