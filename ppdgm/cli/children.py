"""Runs of a sweep, each in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ppdgm.cli import failures
from ppdgm.errors import CheckpointError
from ppdgm.inference.runs.layout import CHECKPOINTS, is_held, read_status

DONE = ("done", "early stopping", "callback")
BROKEN = ("not finite", "diverged")  # they would end in the same way again


@dataclass
class SweptRun:
    """One run of a sweep.

    Attributes:
        name, folder: of the run; the name says its values.
        values: path -> value.
        begin, go_on: arguments of ppdgm that start it, and that continue it.
        code: with which it ended; None before.
        message: of its error.
    """

    name: str
    folder: Path
    values: Mapping[str, str]
    begin: list[str]
    go_on: list[str]
    code: int | None = None
    message: str = ""

    def arguments(self) -> list[str] | None:
        """What to do: start it, or continue it; None if it has ended.

        Raises:
            CheckpointError: another process writes it.
        """
        if self.code is not None:
            return None
        if is_held(self.folder):
            raise CheckpointError(
                f"{self.folder}: another process is training this run. Wait until it has ended, or end it."
            )
        state = read_status(self.folder).get("state")
        if state in DONE or state in BROKEN:
            self.code = failures.TRAINING if state in BROKEN else 0
            self.message = f"training ended: {state}." if state in BROKEN else ""
            return None
        if any(self.folder.glob(f"{CHECKPOINTS}/step-*")):
            return self.go_on
        return [*self.begin, "--overwrite"] if self.folder.exists() else self.begin

    def share(self) -> float:
        """The part of its steps that are done."""
        status = read_status(self.folder)
        step, steps = status.get("step"), status.get("steps")
        return step / steps if isinstance(step, int) and isinstance(steps, int) and steps else 0.0


class RunSource(Protocol):
    """Which runs there are."""

    def take(self) -> SweptRun | None:
        """The next run; None if there are no more."""

    def ended(self, run: SweptRun) -> None:
        """A run has its code."""


class Child:
    """A process of `ppdgm`, with what it prints kept."""

    def __init__(self, arguments: list[str]):
        self.files = ExitStack()
        self.out = self.files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # closed later
        self.err = self.files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # closed later
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ppdgm", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self.out,
            stderr=self.err,
            start_new_session=True,  # Ctrl-C reaches it only through the sweep
        )

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        return self.process.poll()

    def stop(self) -> None:
        """Let it save its progress and end."""
        with suppress(OSError):
            self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.files.close()

    def message(self) -> str:
        """Its error, in one line."""
        with suppress(ValueError, KeyError, TypeError):
            return str(json.loads(_text(self.out))["error"]["message"])
        lines = [line for line in _text(self.err).splitlines() if line.strip()]
        return lines[-1].removeprefix("ppdgm: ") if lines else f"its process ended with code {self.process.returncode}."


def carry_out(
    source: RunSource, jobs: int, watch: Callable[[list[SweptRun]], None], start: Callable[..., Child]
) -> None:
    """Train all runs, at most `jobs` processes at once; if interrupted, the runs save their progress and end.

    Args:
        source: of the runs.
        jobs: how many at once.
        watch: called often, with the runs that are being trained.
        start: arguments -> a process.

    Raises:
        KeyboardInterrupt: after all processes have ended.
        CheckpointError: another process writes one of the runs.
    """
    going: list[tuple[SweptRun, Child]] = []
    try:
        while True:
            while len(going) < jobs and (run := source.take()) is not None:
                arguments = run.arguments()
                if arguments is None:
                    source.ended(run)
                else:
                    going.append((run, start(arguments)))
            if not going:
                return
            time.sleep(0.05)
            for run, child in [(r, c) for r, c in going if c.poll() is not None]:
                going.remove((run, child))
                _end(run, child)
                source.ended(run)
            watch([run for run, _ in going])
    finally:
        for _, child in going:
            child.stop()


def _end(run: SweptRun, child: Child) -> None:
    code = child.poll() or 0
    if code == failures.INTERRUPTED:
        raise KeyboardInterrupt
    run.code = failures.TRAINING if code < 0 else code  # a signal ended it
    run.message = child.message() if code else ""
    child.files.close()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
