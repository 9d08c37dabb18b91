"""How a user's function takes its data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from copy import copy

import torch

from ppdgm.errors import ProgramError
from ppdgm.language.vocabulary import Batch, PairLike


class Call:
    """A function of named fields: `function(x)` if x is the only one, otherwise with the keywords that it takes.

    Args:
        program: the pair.
        role: "guide" or "model".
        fields: names of the data's fields.

    Raises:
        ProgramError: the fields do not fit the function's arguments.
    """

    def __init__(self, program: PairLike, role: str, fields: Iterable[str]):
        self.program, self.role, self.function = program, role, getattr(program, role)
        function, fields = self.function, list(fields)
        self.positional = fields == ["x"]
        signature = inspect.signature(function.forward if isinstance(function, torch.nn.Module) else function)
        kinds = [p.kind for p in signature.parameters.values()]
        everything = inspect.Parameter.VAR_KEYWORD in kinds
        self.names = [n for n in fields if self.positional or everything or n in signature.parameters]
        args, kwargs = (["x"], {}) if self.positional else ([], dict.fromkeys(self.names))
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ProgramError(
                f"The {role} takes {signature}, but the data have the fields {', '.join(fields)} ({error}). Give the "
                "fields the names of its arguments; a single array is the field x."
            ) from None

    def of(self, function: Callable[..., object]) -> Call:
        """The same call of another function."""
        other = copy(self)
        other.function = function
        return other

    def __call__(self, batch: Batch) -> object:
        if self.positional:
            return self.function(batch["x"])
        return self.function(**{n: batch[n] for n in self.names})


def calls(program: PairLike, fields: Iterable[str]) -> tuple[Call, Call]:
    """(guide, model) of a pair.

    Raises:
        ProgramError: neither takes one of the fields.
    """
    fields = list(fields)
    guide, model = Call(program, "guide", fields), Call(program, "model", fields)
    if unused := [n for n in fields if n not in guide.names and n not in model.names]:
        taken = sorted({*guide.names, *model.names})
        raise ProgramError(
            f"Data field {unused[0]!r}: neither the model nor the guide has an argument of this name. Known: "
            f"{', '.join(taken) or 'none'}. Leave the field out, or give it the name of an argument."
        )
    return guide, model
