"""How a function of a plain pair takes its data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from copy import copy
from traceback import walk_tb
from typing import Any, ClassVar

from ppdgm.errors import ProgramError
from ppdgm.language.native import Message
from ppdgm.language.vocabulary import Batch, PairLike


class Call:
    """A function of named fields: `function(x)` if x is the only one, otherwise with the keywords that it takes.

    Args:
        program: the pair.
        role: "guide" or "model".
        fields: names of the data's fields.

    Attributes:
        names: the fields that it takes.
        everything: whether it takes keywords of any name.
        advice: the end of the error for fields that do not fit.
    """

    advice: ClassVar[str] = "Give the fields the names of its arguments."

    def __init__(self, program: PairLike, role: str, fields: Iterable[str]):
        self.program, self.role, self.fields = program, role, list(fields)
        self.function: Callable[..., object] = getattr(program, role)
        self.signature = inspect.signature(getattr(self.function, "forward", self.function))
        self.positional = self.fields == ["x"]
        self.everything = any(p.kind is p.VAR_KEYWORD for p in self.signature.parameters.values())
        of_any = self.positional or self.everything
        self.names = [n for n in self.fields if of_any or n in self.signature.parameters]

    @property
    def told(self) -> str:
        """What the error for fields that do not fit says of the function."""
        return f"takes {self.signature}"

    def check(self) -> None:
        """Refuse fields that do not fit the function's arguments."""
        args, kwargs = (["x"], {}) if self.positional else ([], dict.fromkeys(self.names))
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ProgramError(
                f"The {self.role} {self.told}, but the data have the fields {', '.join(self.fields)} ({error}). "
                f"{self.advice}"
            ) from None

    def of(self, function: Callable[..., object]) -> Call:
        """The same call of another function."""
        other = copy(self)
        other.function = function
        return other

    def __call__(self, batch: Batch) -> Any:
        if self.positional:
            return self.function(batch["x"])
        return self.function(**{n: batch[n] for n in self.names})


def check_used(guide: Call, model: Call, hint: Callable[[str], str]) -> None:
    """Refuse a field that neither function takes: most likely a mistake in its name; `hint` says what to do."""
    if unused := [n for n in guide.fields if n not in guide.names and n not in model.names]:
        raise ProgramError(
            f"Data field {unused[0]!r}: neither the model nor the guide has an argument of this name. {hint(unused[0])}"
        )


def stopped_at(error: Exception) -> Message | None:
    """The message that Pyro's or NumPyro's handlers were processing when an error occurred; None if there is none."""
    frames = [f for f, _ in walk_tb(error.__traceback__) if f.f_code.co_name == "apply_stack"]
    return frames[-1].f_locals["msg"] if frames else None
