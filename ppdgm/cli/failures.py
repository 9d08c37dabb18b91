"""Errors as one line on stderr, and exit codes that scripts can use."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from ppdgm.cli.output import emit, one_line, tell
from ppdgm.errors import CheckpointError, DataError, PackageMissing, PpdgmError, out_of_memory

if TYPE_CHECKING:
    pass

FAILED, USAGE, DATA, TRAINING, FOLDER, BACKEND, INTERRUPTED, PIPE = 1, 2, 3, 4, 5, 6, 130, 141
_CODES = ((PackageMissing, BACKEND), (CheckpointError, FOLDER), (DataError, DATA), (PpdgmError, USAGE))

EXIT_CODES = """Exit codes:
0  done
1  a bug in ppdgm: please report it
2  a wrong argument, recipe or program
3  data that can't be read, or that do not fit the program
4  training that could not continue: numbers not finite, or out of memory
5  a run's folder or file: missing, damaged, already there or not writable
6  a backend or another package that is not installed
130  Ctrl-C"""


def report(error: BaseException, as_json: bool, debug: bool) -> int:
    """Report an error, and return the exit code.

    Args:
        error: what was raised.
        as_json: also as a JSON object on stdout.
        debug: with the traceback.
    """
    if debug:
        tell("".join(traceback.format_exception(error)).rstrip())
    code, name, message = _explain(error)
    tell(f"ppdgm: {message}")
    if as_json:
        emit({"error": {"type": name, "message": message}})
    return code


def _explain(error: BaseException) -> tuple[int, str, str]:
    """Exit code, type and message."""
    name, text = type(error).__name__, one_line(error)
    if (told := out_of_memory(error)) is not None:
        return TRAINING, type(told).__name__, one_line(told)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code, name, text
    if hasattr(error, "format_message"):  # typer's
        return USAGE, "UsageError", _usage(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, name, "interrupted."
    if isinstance(error, RecursionError):
        return USAGE, name, "A recipe, or a value, is nested too deeply."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return FOLDER, name, f"{where}{error.strerror or text}."
    if isinstance(error, ModuleNotFoundError):
        return BACKEND, name, f"The package {error.name!r} is not installed: pip install {error.name}"
    return (
        FAILED,
        name,
        (
            f"{name}: {text or 'no message'}. This is an error in ppdgm, or in your own code that it runs. To see "
            "where, run the same command with --debug. Please report it, with that output and `ppdgm --version`."
        ),
    )


def _usage(error: Any) -> str:
    """typer's message about a mistyped command line, in the form of our own errors."""
    text, parameter = one_line(error.message).rstrip("."), getattr(error, "param", None)
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "ppdgm"
    if hasattr(error, "possibilities"):
        text = f"{text}. {_other_option(error.option_name, error.possibilities, path)}".rstrip(" .")
    elif type(error).__name__ == "MissingParameter":
        text = one_line(error.format_message()).rstrip(".")
    elif parameter is not None:
        name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
        text = f"{name}: {text}"
    return f"{text}{'' if text.endswith('?') else '.'} See: {path} --help"


def _other_option(name: str, possible: list[str] | None, path: str) -> str:
    """What to write instead of an unknown option: in `fit`, --set sets a field of the recipe."""
    if path.endswith(" fit"):
        from ppdgm.catalogue import public_specs

        field = name.lstrip("-").replace("-", "_")
        homes = {"Training": "training", "Source": "data", "SVI": "engine", "VAE": "program"}
        found = [homes[c.__name__] for c in public_specs() if c.__name__ in homes and field in c.model_fields]
        if found:
            return f"Set it as --set {found[-1]}.{field}=VALUE"
    return f"Did you mean {possible[0]!r}?" if possible else ""
