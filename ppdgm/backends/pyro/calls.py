"""How a user's function takes its data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ppdgm.language.calls import Call, check_used
from ppdgm.language.vocabulary import PairLike


class TorchCall(Call):
    """A function of tensors."""

    advice: ClassVar[str] = "Give the fields the names of its arguments; a single array is the field x."


def calls(program: PairLike, fields: Iterable[str]) -> tuple[Call, Call]:
    """(guide, model) of a pair.

    Raises:
        ProgramError: the fields do not fit the functions' arguments.
    """
    guide, model = TorchCall(program, "guide", fields), TorchCall(program, "model", fields)
    guide.check()
    model.check()
    taken = ", ".join(sorted({*guide.names, *model.names})) or "none"
    check_used(guide, model, lambda _: f"Known: {taken}. Leave the field out, or give it the name of an argument.")
    return guide, model
