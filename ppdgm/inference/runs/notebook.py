"""Progress of a training run in a notebook: one output that is redrawn."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from ppdgm import markup
from ppdgm.inference.runs.progress import Display, Progress

DRAW_SECONDS = 0.3  # between drawings: each is a message to the browser
MOST_NOTES = 5


def in_notebook() -> bool:
    """Whether a notebook runs this, rather than a script or IPython in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and not any(c.__name__ == "TerminalInteractiveShell" for c in type(shell).__mro__)


class NotebookDisplay(Display):
    """A bar with steps, rate and time left, the bound, and what was noted: one output, which is redrawn in its place.

    Warnings go to the error stream, which notebooks show in a colour of its own.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._now: Progress | None = None
        self._notes: list[str] = []
        self._drawn = -math.inf

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._now or self._notes:
            self._draw()

    def update(self, now: Progress) -> None:
        self._now = now
        if time.monotonic() - self._drawn >= DRAW_SECONDS:
            self._draw()

    def note(self, message: str) -> None:
        self._notes = [*self._notes, message][-MOST_NOTES:]
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        now = self._now
        plain = [f"{now.place}  {now.pace}", now.bound] if now else ["starting"]
        shown = [markup.bar(now.step / max(now.steps, 1) if now else 0.0), *map(markup.line, [*plain, *self._notes])]
        data = {"text/html": f"<div>{''.join(shown)}</div>", "text/plain": "\n".join([*plain, *self._notes])}
        _tell(lambda: self._show(data))

    def _show(self, data: dict[str, str]) -> None:
        if self._handle is None:
            from IPython.display import display

            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def _tell(action: Callable[[], object]) -> None:
    with suppress(Exception):  # a display that fails, such as one of a kernel that is shut down, does not stop a run
        action()
