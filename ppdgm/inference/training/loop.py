"""The loop over stretches of one training run: it checks, repairs, saves, reports, and can go on from a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.errors import CheckpointError, shown
from ppdgm.inference.engines.engine import Engine, PhaseController, hyperparameters_of, rates_of
from ppdgm.inference.evaluation.information import mutual_information
from ppdgm.inference.inputs.ahead import Ahead
from ppdgm.inference.inputs.batches import Batches, Plan
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.runs import checkpoint
from ppdgm.inference.runs.progress import Display, Progress
from ppdgm.inference.runs.recorder import Recorder
from ppdgm.inference.runs.settings import Training
from ppdgm.inference.training.monitor import Monitor
from ppdgm.inference.training.non_finite import ADVICE, describe_non_finite, diverged
from ppdgm.inference.training.unused_latents import Unused
from ppdgm.inference.training.validation import Validation
from ppdgm.language.step import MASS
from ppdgm.language.trainer import Trainer
from ppdgm.specs.schedules import Schedule

if TYPE_CHECKING:
    from types import FrameType

    from ppdgm.specs import Table

STRETCH_SECONDS = 0.5  # length of a stretch, without a look in between
STRETCH_STEPS = 1000
STOPS = "done", "early stopping", "callback", "interrupted", "not finite"  # the last one is stronger
REPORTS = 5  # number of reports of steps that are not finite; more are only counted

Arrays = dict[str, np.ndarray]


@dataclass
class Run:
    """One training run, from its first step or a checkpoint's to its end.

    A stretch of steps runs without checks. If something in it was not finite, the run goes back to the last finite
    state, repeats the steps up to the first bad one, reports and skips that one, and goes on. So finite steps cost
    nothing extra, and the skipped steps do not depend on where stretches end.
    """

    trainer: Trainer
    feed: Feed
    batches: Batches
    engine: Engine
    training: Training
    total: int
    validation: Validation | None
    callbacks: tuple[Callable[[Progress], object], ...]
    display: Display
    recorder: Recorder
    rate: Schedule
    metrics: tuple[str, ...]
    controller: PhaseController | None = None  # of an engine whose phases depend on the training so far
    monitor: Monitor | None = None
    unused: Unused | None = None  # of an engine that measures the KL of latents
    looked: Feed | None = None  # rows of training as the steps see them, if there are no others
    turns: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    step: int = 0
    stopped: str = "done"
    parts: list[Arrays] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    in_a_row: int = 0
    seconds: float = 0.0  # of earlier sessions and this one
    compiled_at: tuple[int, float] = (0, 0.0)
    good: tuple[int, Arrays] = (0, {})  # a step, and the finite state before it
    good_at: float = -np.inf
    good_cost: float = 0.0
    at_work: bool = False  # in the middle of a stretch
    ahead: Ahead | None = field(default=None, init=False)  # of streamed data

    def __post_init__(self) -> None:
        if self.feed.streamed and self.engine.phases():
            self.ahead = Ahead(self.feed, self.batches, self.capacity, self.total)

    @property
    def capacity(self) -> int:
        """The longest stretch: arrays of a stretch are padded to it, so that nothing is compiled twice."""
        most = min(self.total, STRETCH_STEPS) if self.engine.phases() else 1
        return self.feed.capacity(self.batches.batch_size, most)

    def go(self, interrupted: threading.Event) -> None:
        """Run stretches to the end, or until something stops them."""
        with nullcontext() if self.ahead is None else closing(self.ahead):
            self._go(interrupted)

    def _go(self, interrupted: threading.Event) -> None:
        capacity, earlier, started = self.capacity, self.seconds, time.perf_counter()
        self.compiled_at = self.step, 0.0
        self._remember()
        count = min(capacity, 20)
        share = self.trainer.runtime.share
        while self.step < self.total and self.stopped == "done":
            count = share.first(min(count, self._until_look()))
            first, before = self.step, time.perf_counter()
            self.at_work = True
            self._advance(count)
            self.at_work = False
            now = time.perf_counter()
            self.seconds = earlier + now - started
            self._look_up(now - started, first, interrupted)
            self.stopped = STOPS[int(share.largest(np.array([STOPS.index(self.stopped)]))[0])]
            grown = min(capacity, 4 * count, int(count * STRETCH_SECONDS / max(now - before, 1e-6)))
            count = max(1, grown) if self.step - first == count else min(32, capacity)
        if self.stopped == "done" and (message := diverged(self.history(), len(self.engine.phases()) < 2)):
            self.stopped = "diverged"
            self.display.warn(f"{message} {ADVICE}")
            self.recorder.note(message)

    def best(self) -> Arrays:
        """The parameters with the best value of the criterion, or the last ones if there was no validation."""
        kept = self.validation.best_params if self.validation and self.training.keep_best else None
        return self.trainer.values() if kept is None else kept

    def state(self) -> Arrays:
        """Everything that the next step depends on, as arrays."""
        return self.good[1] if self.good[0] == self.step else self.trainer.state_arrays()

    def restore(self, arrays: Mapping[str, np.ndarray], page: Table) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it is another run's, or not complete.
        """
        state, history, best = (checkpoint.group(arrays, n) for n in ("trainer", "history", "best"))
        checkpoint.check_same_arrays(self.trainer.state_like(state), state)
        self._check_history(history, page)
        if best:
            checkpoint.check_same_arrays(self.trainer.values(), best)
        self.trainer.restore(state)
        if page["step"] and not self.trainer.finite():
            raise CheckpointError("its numbers are not finite.")
        self.step, self.skipped, self.in_a_row = page["step"], list(page["skipped"]), page["in_a_row"]
        self.parts = [{n: history[n] for n in self.metrics}] if self.step else []
        self.seconds = page["seconds"]
        if self.unused and self.step:
            self.unused.see(history["kl"])
            self.unused.told = bool(self.unused.steps)
        if self.controller is not None:
            self.controller.restore(page["director"])
            self.turns = np.asarray(history["phase"], np.int32)
        if self.monitor and page.get("live"):
            self.monitor.restore(page["live"])
        if self.validation and page["watch"]:
            self.validation.restore(page["watch"], best, self.step)
            if self.validation.done:
                self.stopped = "early stopping"

    def _check_history(self, history: Mapping[str, np.ndarray], page: Table) -> None:
        """Refuse a history that does not belong to the steps that were taken."""
        if (self.controller is None) != (page["director"] is None):
            raise CheckpointError(f"director: got {shown(page['director'])}, which does not belong to this engine.")
        turns = [] if self.controller is None else ["phase"]
        for name in ("step", *self.metrics, *turns):
            if len(history.get(name, ())) != page["step"]:
                raise CheckpointError(
                    f"history {name!r}: got {len(history.get(name, ()))} numbers, expected {page['step']}, one per "
                    "step."
                )
        if turns and not np.isin(history["phase"], np.arange(len(self.engine.phases()))).all():
            raise CheckpointError("history 'phase': got numbers that are not phases of this engine.")

    def go_back(self) -> None:
        """Count only the steps up to the last good state."""
        whole, step = self.history(), self.good[0]
        self.step, self.parts = step, [{n: whole[n][:step] for n in self.metrics}] if step else []

    def history(self) -> Arrays:
        """Everything that was measured, as arrays."""
        empty = [{n: np.empty(0, np.float32) for n in self.metrics}]
        found = {n: np.concatenate([p[n] for p in self.parts or empty]) for n in self.metrics}
        self.parts = [found] if self.parts else []
        found = {**found, "step": np.arange(1, self.step + 1)}
        if self.controller is not None:
            found["phase"] = self.turns[: self.step]
        if self.skipped:
            found["skipped_step"] = np.array(self.skipped)
        if self.monitor:
            found |= self.monitor.history()
        if self.validation:
            found |= self.validation.history()
        return found

    def _until_look(self) -> int:
        """Steps until the next validation, checkpoint, end of the rows that were read, or the end."""
        ends = [self.total, self.recorder.next_step(self.step) or self.total]
        if self.validation:
            ends.append(self.step - self.step % self.batches.per_epoch + self.batches.per_epoch)
        if self.monitor:
            ends.append(self.step - self.step % self.monitor.every + self.monitor.every)
        if self.ahead:
            ends.append(self.ahead.end(self.step))
        return min(ends) - self.step

    def _plan(self, first: int, count: int) -> Plan:
        capacity = self.capacity
        index, weight = self.batches.rows(first, count, capacity)
        steps = np.arange(first, first + capacity)
        turns = self._turns_of(first, capacity, steps)
        rate = rates_of(self.engine, self.rate, steps, turns)
        moved = {n: s(steps).astype(np.float32) for n, s in self.trainer.runtime.tracer.schedules.items()}
        mass, hyperparameters = self.batches.mass(first, count, capacity), hyperparameters_of(self.engine, steps)
        if mass is not None:
            hyperparameters = tuple({**h, MASS: mass} for h in hyperparameters)
        return Plan(index, weight, rate, hyperparameters, first, count, turns, moved)

    def _turns_of(self, first: int, capacity: int, steps: np.ndarray) -> np.ndarray:
        """The phases of these steps: from the controller, if there is one."""
        if self.controller is None:
            return self.engine.phase_of(steps)
        known = self.turns[first : first + capacity]
        return np.concatenate([known, np.zeros(capacity - len(known), np.int32)])

    def _take(self, first: int, count: int) -> Arrays:
        """Run steps from the trainer's state, finite or not."""
        stretch = self.feed.stretch if self.ahead is None else self.ahead.stretch
        metrics: Arrays = self.trainer.run(*stretch(self._plan(first, count)))
        return metrics

    def _advance(self, count: int) -> None:
        """Take `count` steps; fewer if one is not finite, which is then skipped."""
        first = self.step
        if self.controller is not None:
            turns = self.controller.next(count)
            count = len(turns)
            self.turns = np.concatenate([self.turns[:first], turns])
        self._advance_by(count)
        if self.controller is not None:
            taken = self.step - first
            if self.controller.seen(turns[:taken], self.parts[-1]["objective"][:taken]):
                self._look_at_information(self.controller)

    def _look_at_information(self, controller: PhaseController) -> None:
        feed = self.validation.evaluator.feed if self.validation else self.looked or self.feed
        information = mutual_information(self.trainer.runtime, self.trainer.judged, feed)
        controller.look(information)
        state = (
            "the guide no longer lags, both are trained together"
            if not controller.aggressive
            else ("the guide is trained before the model")
        )
        self.recorder.note(f"mutual information {information:.3f} nats at step {self.step}: {state}")

    def _advance_by(self, count: int) -> None:
        metrics = self._take(self.step, count)
        bad = ~np.isfinite(metrics["objective"])
        if not bad.any() and self.trainer.finite():
            self.parts.append(metrics)
            self.step += count
            self._remember()
            return
        guess = self.step + (int(np.argmax(bad)) if bad.any() else count)
        step = self._locate(guess, guess < self.step + count)
        self.parts.append({n: v[: step - self.step + 1] for n, v in metrics.items()})
        self._skip(step)

    def _locate(self, guess: int, taken: bool) -> int:
        """The first step that is not finite, with the trainer in the state before it.

        Args:
            guess: the step with the first objective that is not finite, or the end of the stretch.
            taken: whether the step `guess` was taken.
        """
        if self._finite_after(guess) and taken:
            return guess  # its objective, from parameters that are finite
        low, high = self.step, guess  # finite before low, not before high: some gradient was not finite
        middle = high - 1
        while high - low > 1:
            low, high = (middle, high) if self._finite_after(middle) else (low, middle)
            middle = (low + high) // 2
        self._finite_after(low)
        return low

    def _finite_after(self, end: int) -> bool:
        """Repeat the steps from the last good state up to `end`; returns whether the state is then finite."""
        step, state = self.good
        self.trainer.restore(state)
        while step < end:
            count = min(self.capacity, end - step)
            self._take(step, count)
            step += count
        return bool(self.trainer.finite())

    def _skip(self, step: int) -> None:
        if len(self.skipped) < REPORTS:
            plan, data = self.feed.stretch(self._plan(step, 1))
            rows, _ = self.batches.rows(step, 1, 1)
            message = describe_non_finite(step, self.trainer.diagnose(plan, data), rows[0])
            self.display.warn(f"{message} {ADVICE}" if not self.skipped else message)
            self.recorder.note(message)
        self.trainer.skip()
        self.in_a_row = self.in_a_row + 1 if self.skipped and self.skipped[-1] == step - 1 else 1
        self.skipped.append(step)
        self.step = step + 1
        self.good, self.good_at = (self.step, self.trainer.state_arrays()), time.perf_counter()
        if self.in_a_row >= self.training.max_skipped:
            self.stopped = "not finite"
            message = (
                f"{self.in_a_row} steps in a row were not finite. Training stops, and returns the parameters from "
                "before these steps."
            )
            self.display.warn(f"{message} {ADVICE}")
            self.recorder.note(message)

    def _remember(self) -> None:
        """Keep the present state, if that takes little of the time since the last one was kept."""
        before = time.perf_counter()
        if self.good[1] and not self.trainer.runtime.share.any(before - self.good_at >= 50 * self.good_cost):
            return
        self.good = self.step, self.trainer.state_arrays()
        self.good_at = time.perf_counter()
        self.good_cost = self.good_at - before

    def _rate(self, seconds: float) -> float:
        """Steps per second, without the first stretch once there are others: that one compiles."""
        step, before = self.compiled_at
        if not before:
            self.compiled_at = self.step, seconds
            return (self.step - step) / max(seconds, 1e-9) if self.step == self.total else float("nan")
        return (self.step - step) / max(seconds - before, 1e-9)

    def _look_up(self, seconds: float, first: int, interrupted: threading.Event) -> None:
        looks = self.step % self.batches.per_epoch == 0 or self.step == self.total
        if self.validation and looks and self.validation.look(self.trainer, self.step) and self.stopped == "done":
            self.stopped = "early stopping"
        if self.monitor and (self.step % self.monitor.every == 0 or self.step == self.total):
            self.monitor.look(self.trainer.judged, self.step)
        seen = self.parts[-1]
        if self.unused:
            self.unused.see(seen["kl"])
            if news := self.unused.news(self.step):
                (self.display.warn if self.unused.told else self.display.note)(news)
                self.recorder.note(news)
        mean = lambda v: float(v[np.isfinite(v)].mean()) if np.isfinite(v).any() else float("nan")
        now = Progress(
            step=self.step,
            steps=self.total,
            epoch=self.step / self.batches.per_epoch,
            seconds=self.seconds,
            rate=self._rate(seconds),
            metrics={n: mean(v) for n, v in seen.items()},
            validation=self.validation.values[-1] if self.validation and self.validation.values else None,
            criterion=self.validation.criterion.words if self.validation else "ELBO",
            smaller=bool(self.validation and self.validation.criterion.smaller),
            skipped=len(self.skipped),
            live=self.monitor.latest if self.monitor else {},
            unused=self.unused.steps if self.unused else 0,
        )
        self.display.update(now)
        for callback in self.callbacks:
            if callback(now) is True and self.stopped == "done":
                self.stopped = "callback"
        if interrupted.is_set() and self.stopped == "done":
            self.stopped = "interrupted"
        self.recorder.look(self, now)


class Interruption(threading.Event):
    """Whether training was asked to stop, and by which signal."""

    number = 0

    def pass_on(self) -> None:
        """Send a stop request to the whole process again, after the training so far is saved."""
        if self.number not in (0, signal.SIGINT):
            signal.raise_signal(self.number)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Ctrl-C, or a request to end, stops training after the present stretch; a second one stops it at once."""
    interrupted = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    signals = [s for name in ("SIGINT", "SIGTERM", "SIGHUP") if (s := getattr(signal, name, None))]
    if signals[-1] != signal.SIGTERM and signal.getsignal(signals[-1]) is signal.SIG_IGN:
        signals.pop()  # under nohup a terminal that closes must change nothing
    before = [signal.getsignal(s) for s in signals]

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.number = number
        interrupted.set()

    for s in signals:
        signal.signal(s, handle)
    try:
        yield interrupted
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)
