"""Progress of a training run: a live line in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

FIRST_SECONDS, PLAIN_SECONDS = 1.0, 5.0  # until the first line, and between lines


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        step, steps: taken, and planned.
        epoch: passes over the data so far.
        seconds: since the start.
        rate: steps per second, without the first stretch, which compiles.
        metrics: means over the last stretch, in nats per datum; "elbo" has β = 1.
        validation_elbo: the latest, if any.
    """

    step: int
    steps: int
    epoch: float
    seconds: float
    rate: float
    metrics: dict[str, float] = field(default_factory=dict)
    validation_elbo: float | None = None
    skipped: int = 0

    @property
    def bound(self) -> str:
        """The current bound and KL, in words."""
        text = f"ELBO {self.metrics['elbo']:.2f}  KL {self.metrics['kl']:.2f}"
        return text if self.validation_elbo is None else f"{text}  validation {self.validation_elbo:.2f}"


class Report:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        pass

    def update(self, now: Progress) -> None:
        """Show where the run is."""

    def warn(self, message: str) -> None:
        """Tell of trouble."""
        print(message, file=sys.stderr)


class LiveReport(Report):
    """A line that is redrawn: bar, steps, rate, time left, bound."""

    def __init__(self, console: Console):
        columns = (
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} steps  {task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[bound]}"),
        )
        self._bar = Bar(*columns, console=console)
        self._task: Any = None

    def __enter__(self) -> Self:
        self._bar.start()
        self._task = self._bar.add_task("", total=None, rate=0.0, bound="starting")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, now: Progress) -> None:
        self._bar.update(self._task, total=now.steps, completed=now.step, rate=now.rate, bound=now.bound)

    def warn(self, message: str) -> None:
        self._bar.console.print(message)


class PlainReport(Report):
    """A line every few seconds, for logs."""

    def __init__(self) -> None:
        self._next: float | None = None
        self._unseen: Progress | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._unseen:
            self._show(self._unseen)

    def update(self, now: Progress) -> None:
        self._unseen = now
        if self._next is None:  # the first stretch compiles: its rate would mislead
            self._next = time.monotonic() + FIRST_SECONDS
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_SECONDS
            self._show(now)

    def _show(self, now: Progress) -> None:
        self._unseen = None
        left = (now.steps - now.step) / max(now.rate, 1e-9)
        print(
            f"step {now.step}/{now.steps}  epoch {now.epoch:.1f}  "
            f"{now.rate:.0f} steps/s  {left:.0f} s left  {now.bound}",
            file=sys.stderr,
            flush=True,
        )


def make_report(progress: bool | None) -> Report:
    """The live line in a terminal, plain lines elsewhere; nothing if `progress` is False."""
    if progress is False:
        return Report()
    console = Console(stderr=True)
    return LiveReport(console) if console.is_terminal else PlainReport()


class RunLog:
    """Timestamped lines in a run folder's log."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, message: str) -> None:
        """Append a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {message}\n")

    def progress(self, now: Progress) -> None:
        """Append where the run is."""
