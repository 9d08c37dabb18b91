"""Threads of one process take turns: torch's generator, handler stacks, argument checks and warnings are global.

A turn is one question to a program, or one stretch of training, so that a thread never waits for a whole run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Args = ParamSpec("Args")
Result = TypeVar("Result")

TURN = threading.RLock()  #: of this process; who has it may call what needs it


def in_turn(function: Callable[Args, Result]) -> Callable[Args, Result]:
    """The function, which waits until no other thread runs one of these."""

    @wraps(function)
    def waiting(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        with TURN:
            return function(*args, **kwargs)

    return waiting
