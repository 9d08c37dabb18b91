"""The errors that ppdgm raises. Each message says what was got, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PpdgmError(Exception):
    """Base of every error that ppdgm raises on purpose."""


class SpecError(PpdgmError, ValueError):
    """A field of a spec has a value that it can't have."""


class ProgramError(PpdgmError, ValueError):
    """A program's model and guide do not fit each other, or a site's shape does not fit its plate."""


class DataError(PpdgmError, ValueError):
    """Data that the program can't be trained or judged on."""


class TrainingError(PpdgmError, RuntimeError):
    """A training run that can't start or can't go on."""


class CheckpointError(PpdgmError, ValueError):
    """A run folder that can't be read."""


class UnsupportedByBackend(PpdgmError, NotImplementedError):
    """What one backend can't do, with the reason."""


class BackendMissing(PpdgmError, ImportError):
    """A backend whose packages are not installed."""


def require(name: str, value: object, kind: type | tuple[type, ...], least: float | None, expected: str) -> None:
    """Refuse an argument that is not of `kind`, or is below `least`.

    Raises:
        PpdgmError: names the argument, what was got and what was expected.
    """
    right = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    if not right or (least is not None and value < least):  # type: ignore[operator]
        raise PpdgmError(f"{name}: got {value!r}; expected {expected}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the known word closest to `name`, or the known words where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known) or 'none'}."
