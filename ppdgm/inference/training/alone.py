"""One training at a time of a plain Pyro pair: its parameters are those of the user's own modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ppdgm.errors import TrainingError
from ppdgm.language.turns import TURN
from ppdgm.program import AnyProgram, PlainPair

_in_training: set[int] = set()  # the functions of pairs that threads of this process train


@contextmanager
def trained_alone(program: AnyProgram) -> Iterator[None]:
    """For as long as a plain Pyro pair is trained, refuse to train it in another thread.

    Raises:
        TrainingError: another thread, or a callback, trains it already.
    """
    if not isinstance(program, PlainPair) or program.backend != "pyro":
        yield
        return
    own = {id(program.model), id(program.guide)}
    with TURN:
        if own & _in_training:
            raise TrainingError(
                "program: this plain Pyro pair is being trained already, in another thread or around this call. "
                "Training changes its own modules, so both would move the same parameters. Wait for the first, or "
                "make a second pair with modules of its own."
            )
        _in_training.update(own)
    try:
        yield
    finally:
        with TURN:
            _in_training.difference_update(own)
