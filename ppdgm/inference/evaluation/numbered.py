"""Latents of one-hot vectors as the numbers of their codes, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppdgm.errors import DataError, ProgramError
from ppdgm.models.relaxed import CERTAIN
from ppdgm.program import AnyProgram, Program

POINTS = (
    "the guide chooses one code for each place of {!r}, with probability 1, so its draws say nothing about the "
    "posterior's width."
)


def numbered(program: AnyProgram) -> Mapping[str, int]:
    """Latents that are codes, chosen by the guide with probability 1: site -> number of codes."""
    return program.numbered() if isinstance(program, Program) else {}


def check_not_points(program: AnyProgram) -> None:
    """Refuse a program whose guide chooses codes.

    Raises:
        ProgramError: with the site.
    """
    for name in numbered(program):
        raise ProgramError(POINTS.format(name))


def code_numbers(program: AnyProgram, sites: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Log one-hot vectors [..., K] of a program's `numbered` latents as whole numbers [...]; others as they are."""
    known = numbered(program)
    return {n: np.asarray(v).argmax(-1).astype(np.int32) if n in known else v for n, v in sites.items()}


def code_vectors(program: AnyProgram, sites: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same back, for values of sites that are whole numbers.

    Raises:
        DataError: a number is none of a code.
    """
    known = numbered(program)
    return {n: _vectors(n, v, known[n]) if n in known else v for n, v in sites.items()}


def _vectors(name: str, value: np.ndarray, count: int) -> np.ndarray:
    value = np.asarray(value)
    if value.dtype.kind not in "iu":
        return value
    bad = (value < 0) | (value >= count)
    if bad.any():
        raise DataError(f"{name}: got the code {value[bad][0]}, expected whole numbers from 0 to {count - 1}.")
    found: np.ndarray = CERTAIN * ((value[..., None] == np.arange(count)) - 1.0).astype(np.float32)
    return found
