"""Progress of a training run: live lines in a terminal, plain lines, or nothing; and a run's log."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

FIRST_SECONDS, PLAIN_SECONDS, LOG_SECONDS = 1.0, 5.0, 10.0  # until the first line, and between lines
LIVE_SECONDS = 0.1  # between drawings
_ASCII = str.maketrans(
    {"…": "...", "−": "-", "–": "-", "±": "+-", "×": "x", "·": "|", "→": "->", "≤": "<=", "β": "beta"}
)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step, steps: taken, and planned.
        epoch: passes over the data so far.
        seconds: since the start.
        rate: steps per second, without the first stretch, which compiles.
        metrics: means over the last stretch, in nats per row; "elbo" has β = 1.
        validation: the latest value of the engine's criterion, if any.
        skipped: steps that were left out, because they were not finite.
        epochs: planned, if that is known.
        live: the latest of what `fit(diagnose_epochs=…)` measures: "live_kl_SITE", "live_active_SITE" and
            "live_information".
        unused: the number of steps for which the KL of latents has stayed near 0, once it reaches 300; else 0.
        criterion, smaller: the name of what validation watches, and whether a smaller number is better.
    """

    step: int
    steps: int
    epoch: float
    seconds: float
    rate: float
    metrics: dict[str, float] = field(default_factory=dict)
    validation: float | None = None
    skipped: int = 0
    epochs: float | None = None
    live: dict[str, float] = field(default_factory=dict)
    unused: int = 0
    criterion: str = "ELBO"
    smaller: bool = False

    @property
    def validation_elbo(self) -> float | None:
        """The latest validation ELBO, if the criterion is the ELBO."""
        return self.validation if self.criterion == "ELBO" else None

    @property
    def bound(self) -> str:
        """The current bound and KL, the validation, and how many steps were skipped, in words.

        If there is no ELBO, the objective is shown. A criterion other than the ELBO is named.
        """
        named = {"elbo": "ELBO", "kl": "KL"}
        seen = {n: v for n, v in self.metrics.items() if not math.isnan(v)} or self.metrics  # others: of other phases
        found = [f"{named[n]} {seen[n]:.2f}" for n in named if n in seen]
        if not found and "objective" in seen:
            found = [f"objective {digits(seen['objective'])}"]
        if self.validation is not None:
            name = "" if self.criterion == "ELBO" else f"{self.criterion} "
            found.append(f"validation {name}{digits(self.validation)}")
        active = [f"{int(v)}" for n, v in self.live.items() if n.startswith("live_active_")]
        found += [f"active {'+'.join(active)}"] if active else []
        found += [f"information {self.live['live_information']:.2f}"] if "live_information" in self.live else []
        if self.unused:
            found.append(f"latents unused for {self.unused:,} steps")
        if self.skipped:
            found.append(f"{self.skipped:,} step{'s' if self.skipped > 1 else ''} skipped")
        return "  ".join(found)

    @property
    def place(self) -> str:
        """Steps and epochs so far, and their totals."""
        epochs = self.epochs or (self.epoch * self.steps / self.step if self.step else 0.0)
        return f"step {self.step:,}/{self.steps:,}  epoch {self.epoch:.1f}/{epochs:.4g}"

    @property
    def pace(self) -> str:
        """Steps per second, and the time that is left, or at the end the time that was taken."""
        if not 0 < self.rate < math.inf:
            return "?/s"
        rate = f"{self.rate:,.0f}/s" if self.rate >= 10 else f"{self.rate:.2g}/s"
        left = max(self.steps - self.step, 0) / self.rate
        return f"{rate}  {clock(left)} left" if left else f"{rate}  took {clock(self.seconds)}"


def digits(value: float) -> str:
    """A number with two decimals, or, if it is small, with three digits."""
    return f"{value:.2f}" if not 0 < abs(value) < 1 else f"{value:.3g}"


def clock(seconds: float) -> str:
    """Seconds as minutes:seconds, with hours and days if there are any."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days} d {h}:{m:02}:{s:02}" if days else f"{h}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class Display:
    """Shows only warnings. If an output is closed, or can't show a character, the run does not stop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        pass

    def update(self, now: Progress) -> None:
        """Show how far the run is."""

    def note(self, message: str) -> None:
        """Report an event, such as a checkpoint."""

    def warn(self, message: str) -> None:
        """Report a problem."""
        _tell(lambda: print(readable(message), file=sys.stderr, flush=True))


class Silent(Display):
    """Of a process beside the one that shows."""

    def warn(self, message: str) -> None:
        """The first process has the same problem, and reports it."""


class PlainDisplay(Display):
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

    def note(self, message: str) -> None:
        self.warn(message)

    def _show(self, now: Progress) -> None:
        self._unseen = None
        self.warn(f"{now.place}  {now.pace}  {now.bound}")


class LiveDisplay(Display):
    """Two lines that are redrawn: a bar with steps, rate and time left; and the bound."""

    def __init__(self, console: Console):
        self._console, self._encoding = console, _encoding()  # the stream that Rich puts in its place has another
        self._live = Live(Text("starting", style="dim"), console=console, auto_refresh=False)
        self._now: Progress | None = None
        self._drawn = -math.inf

    def __enter__(self) -> Self:
        _tell(lambda: self._live.start(refresh=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._now:
            self._draw(self._now)
        _tell(self._live.stop)

    def update(self, now: Progress) -> None:
        self._now = now
        if time.monotonic() - self._drawn >= LIVE_SECONDS:
            self._draw(now)

    def note(self, message: str) -> None:
        self._print(message, "dim")

    def warn(self, message: str) -> None:
        self._print(message, "yellow")

    def _print(self, message: str, style: str) -> None:
        _tell(lambda: self._console.print(Text(readable(message, self._encoding), style=style), soft_wrap=True))

    def _draw(self, now: Progress) -> None:
        self._drawn = time.monotonic()
        first = Table.grid(padding=(0, 2), expand=True)
        first.add_column(ratio=1)
        first.add_column(no_wrap=True, overflow="crop")
        first.add_row(ProgressBar(now.steps, now.step), Text(f"{now.place}  {now.pace}", no_wrap=True))
        second = Text(now.bound, style="bold", no_wrap=True, overflow="crop")
        _tell(lambda: self._live.update(Group(first, second), refresh=True))


def _encoding() -> str:
    return getattr(sys.stderr, "encoding", None) or "utf-8"


def readable(text: str, encoding: str | None = None) -> str:
    """The text; characters that an encoding (by default the error stream's) lacks are written in another way."""
    encoding = encoding or _encoding()
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text


def _tell(action: Callable[[], object]) -> None:
    with suppress(OSError, ValueError):  # closed, broken or full
        if sys.stderr is not None:
            action()


class RunLog:
    """A run's log: lines that start with the time; each is appended, and written to the disk at once.

    Args:
        path: of the file; its present content stays.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._next = -math.inf

    def write(self, message: str) -> None:
        """Append a line. If the log can't be written, the run goes on."""
        line = f"{datetime.now().astimezone().isoformat(timespec='seconds')} {' '.join(message.splitlines())}\n"
        with suppress(OSError), self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            torn = end > 0 and file.read(1) != b"\n"  # a killed run may have left half a line
            file.write(("\n" + line if torn else line).encode())

    def progress(self, now: Progress) -> None:
        """Append how far the run is: at once, and then every ten seconds."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_SECONDS
            self.write(f"{now.place}  {now.pace}  {now.bound}")
