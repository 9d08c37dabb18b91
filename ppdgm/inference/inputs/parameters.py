"""Parameters that a user gives, as arrays of numbers with the shapes that the program declares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppdgm.data.kinds import numbers
from ppdgm.errors import DataError, ProgramError
from ppdgm.inference.runs.checkpoint import matching
from ppdgm.language.vocabulary import Array
from ppdgm.program import AnyProgram, Program


def as_params(program: AnyProgram | None, given: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Parameters by name, as arrays.

    Args:
        program: the program that they belong to; a plain pair's shapes are known only later.
        given: arrays by name, such as `fit.params`.

    Raises:
        ProgramError: one is not an array of real numbers; with what it is, and what to do.
        CheckpointError: one is missing, or has another shape.
    """
    found = {n: _numbers(n, v) for n, v in given.items()}
    if isinstance(program, Program):
        shapes = {n: p.shape for n, p in program.declarations().params.items()}
        matching({n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()}, found)
    return found


def _numbers(name: str, value: object) -> np.ndarray:
    try:
        return numbers(name, value)
    except DataError as error:
        raise ProgramError(f"params: {str(error).removeprefix('Data ')}") from None
