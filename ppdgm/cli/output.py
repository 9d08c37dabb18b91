"""Output of the commands: results on stdout, everything else on stderr; JSON that every parser reads; tables."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

_results: list[TextIO] = []  # the true stdout, while a user's prints go elsewhere


@contextmanager
def results_only(wanted: bool) -> Iterator[None]:
    """If stdout is for machines, prints of a user's program go to stderr."""
    if not wanted:
        yield
        return
    _results.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results.pop()


def _stdout() -> TextIO:
    return _results[-1] if _results else sys.stdout


def say(text: str = "") -> None:
    """Write a line of the result to stdout."""
    print(_readable(text, _stdout()), file=_stdout())


def tell(text: str) -> None:
    """Write any other line to stderr."""
    _stdout().flush()
    print(_readable(text, sys.stderr), file=sys.stderr, flush=True)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """A user's warning is one line, shown once, without the place in the code."""
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is not UserWarning:
            before(message, category, filename, lineno, file, line)
        elif str(message) not in told:
            told.add(str(message))
            tell(f"ppdgm: {message}")

    with warnings.catch_warnings():
        before, warnings.showwarning = warnings.showwarning, show
        yield


def _readable(text: str, stream: TextIO) -> str:
    """The text; characters that the stream's encoding lacks are written in another way."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        from ppdgm.inference.runs.progress import readable

        return readable(text, encoding)
    return text


def emit(value: object) -> None:
    """Write one JSON value to stdout."""
    print(json.dumps(plain_values(value), indent=2), file=_stdout())


def plain_values(value: object) -> object:
    """Values as JSON has them: NumPy's as Python's; a number that is not finite becomes null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(v) for v in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def one_line(text: object) -> str:
    """Text without line breaks."""
    return " ".join(str(text).split())


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows under a heading, in columns; `right` are the columns that are flush right.

    If the terminal is too narrow for it, the first column loses its beginning.
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    if sys.stdout.isatty():
        spare = shutil.get_terminal_size().columns - sum(widths) - 2 * (len(widths) - 1)
        widths[0] = max(12, widths[0] + min(spare, 0))
    shown = []
    for line in lines:
        if len(line[0]) > widths[0]:
            line[0] = "..." + line[0][3 - widths[0] :]
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def tolerate_any_encoding() -> None:
    """Characters that the terminal's encoding lacks become "?", and raise no error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def close_pipe() -> None:
    """After the reader is gone (`| head`), ignore the output of Python's last flush of stdout."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def width() -> int:
    """Columns to write in."""
    return min(shutil.get_terminal_size((80, 24)).columns, 100)


def paragraph(text: str, indent: int = 0) -> str:
    """Text in lines that fit the terminal's width."""
    return textwrap.fill(text, width(), initial_indent=" " * indent, subsequent_indent=" " * indent)


def listing(rows: Sequence[tuple[str, str]]) -> str:
    """Names with their descriptions, in two columns."""
    column = max((len(name) for name, _ in rows), default=0) + 4
    return "\n".join(
        textwrap.fill(text or "-", width(), initial_indent=f"  {name}".ljust(column), subsequent_indent=" " * column)
        for name, text in rows
    )
