"""Which display a run has: by where its output goes."""

from __future__ import annotations

import sys

from rich.console import Console

from ppdgm.inference.runs.notebook import NotebookDisplay, in_notebook
from ppdgm.inference.runs.progress import Display, LiveDisplay, PlainDisplay


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process."""
        self.quiet = True


def make_display(progress: bool | None) -> Display:
    """Live lines in a terminal, one output in a notebook, plain lines elsewhere; nothing if `progress` is False."""
    if progress is False:
        return Display()
    if in_notebook():
        return NotebookDisplay()
    console = _Console(stderr=True, highlight=False)
    live = _is_terminal() and console.is_interactive and not console.is_dumb_terminal
    return LiveDisplay(console) if live else PlainDisplay()


def _is_terminal() -> bool:
    """Rich also takes FORCE_COLOR for a terminal, and would then fill a log file with cursor movements."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False
