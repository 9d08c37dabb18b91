"""The errors that ppdgm raises. Each message says what was got, what was expected and what to do."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from typing import Any


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


def explain(program: object, error: Exception) -> ProgramError:
    """An error from within a user's program, told with the line of the program that it came from."""
    functions = (getattr(program, name, None) for name in ("model", "guide", "build"))
    files = {code.co_filename for f in functions if (code := getattr(f, "__code__", None))}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    where = f"{frames[-1].filename}:{frames[-1].lineno}, `{frames[-1].line}`" if frames else type(program).__name__
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ProgramError(
        f"{where}: {text} ({type(error).__name__}). Values in a program are [K, B, …], with particles first, and data "
        "are [B, …]: check shapes and widths from the right, h[..., i], and use P.xp for mathematics."
    )


def require(name: str, value: Any, kind: type | tuple[type, ...], least: float | None, expected: str) -> None:
    """Refuse an argument that is not of `kind`, or is below `least`.

    Raises:
        PpdgmError: names the argument, what was got and what was expected.
    """
    right = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    if not right or (least is not None and value < least):
        raise PpdgmError(f"{name}: got {value!r}; expected {expected}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the known word closest to `name`, or the known words where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known) or 'none'}."
