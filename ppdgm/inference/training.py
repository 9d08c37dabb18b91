"""Training: one call that checks everything first, then runs stretches of steps, reports, stops and returns."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppdgm import checkpoint
from ppdgm.errors import PpdgmError, TrainingError, explain, require
from ppdgm.inference.batches import Batches, Plan
from ppdgm.inference.engine import Engine
from ppdgm.inference.evaluate import Judge, as_fields, check_fields, parse_memory
from ppdgm.inference.optimisers import as_optimiser
from ppdgm.inference.result import Fit
from ppdgm.inference.schedules import Schedule, as_schedule, check_reached
from ppdgm.inference.svi import SVI
from ppdgm.program import PlainPair, Program
from ppdgm.registry import backend as load_backend
from ppdgm.report import Progress, Report, make_report

STRETCH_SECONDS = 0.5  # how long training goes without looking up
STRETCH_STEPS = 1000
SAFE_SECONDS = 10.0  # between copies of the parameters to fall back to
COMPILE_FROM_STEPS = 10_000  # torch.compile costs some ten seconds, and saves about a millisecond per step


def fit(
    program: Any,
    data: Any,
    *,
    validation: Any = None,
    engine: Any = None,
    backend: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    optimiser: Any = "adam",
    learning_rate: float | Schedule | None = None,
    clip_norm: float | None = None,
    binarise: Literal["none", "dynamic"] = "none",
    early_stopping: int | None = None,
    keep_best: bool = True,
    callbacks: Iterable[Callable[[Progress], Any]] = (),
    params: dict[str, np.ndarray] | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    compile: bool | Literal["auto"] = "auto",
    progress: bool | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Fit:
    """Train a program.

    Args:
        program: a Program, or a plain pair from `Program.from_pyro` or `Program.from_numpyro`.
        data: array [N, *event_shape], or a mapping of named arrays with N rows each.
        validation: likewise; its ELBO is taken after each epoch.
        engine: how to train; `SVI()` by default.
        backend: "numpyro" (default) or "pyro"; a plain pair has its own.
        epochs, steps: how long; give one of them.
        batch_size: B, 100 by default; a plain pair with a subsampled plate has its own.
        optimiser: "adam", "adamw", "adamax", "sgd", an `Optimiser`; or your own: an optax transformation, or a
            function of parameters that makes a torch optimiser (these have their own learning rate).
        learning_rate: a number (1e-3 by default), or a schedule in steps.
        clip_norm: largest norm of the gradient.
        binarise: "dynamic" draws x ~ Bernoulli(x) anew for each minibatch; x are probabilities.
        early_stopping: stop after this many validations without a better ELBO, once warm-ups are over.
        keep_best: return the parameters with the best validation ELBO, rather than the last.
        callbacks: functions of a `Progress`, called after each stretch of steps (about half a second, or an epoch with
            validation); one that returns True ends training.
        params: first values, by name, instead of `program.initialise(seed, data)`.
        seed: of first values, order of data, and draws. The same seed gives the same bits on the same machine's CPU.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: of parameters and data.
        compile: torch.compile on the pyro backend; "auto" where the run is long enough to pay for it.
        progress: show progress; by default, yes.
        out: folder to save to; refused before training if it holds a run, unless `overwrite`.
        overwrite: replace a run in `out`.

    Returns:
        The trained program; after Ctrl-C, what was reached.

    Raises:
        PpdgmError: arguments, data or program that can't be trained, before any work starts.
    """
    if (epochs is None) == (steps is None):
        raise TrainingError("Give either epochs=… or steps=…, to say how long to train.")
    callbacks = tuple(callbacks) if isinstance(callbacks, Iterable) else (callbacks,)
    length = epochs if steps is None else steps
    _check_arguments(program, length, seed, dtype, binarise, early_stopping, callbacks, compile)
    if early_stopping is not None and validation is None:
        raise TrainingError("early_stopping needs validation=… data to watch.")
    if out is not None:
        checkpoint.check_free(Path(out), overwrite)
    engine = SVI() if engine is None else engine
    if not isinstance(engine, Engine):
        raise TrainingError(f"engine: got {engine!r}, expected an engine such as SVI().")
    name = _choose_backend(program, backend)
    fields, held_out = as_fields(data, dtype), None if validation is None else as_fields(validation, dtype)
    check_fields(program, fields, binarise)
    if held_out is not None:
        check_fields(program, held_out)
    size = len(next(iter(fields.values())))

    runtime = load_backend(name).Runtime(program, device)
    first = runtime.initialise(seed, fields, dtype)
    if params is not None:
        if not isinstance(params, Mapping):
            raise TrainingError(f"params: got {type(params).__name__}, expected arrays by name, such as fit.params.")
        first = checkpoint.matching(first, params)
    batches = Batches(size, _choose_batch(runtime, batch_size, size), seed)
    total = steps if steps is not None else (epochs or 0) * batches.per_epoch
    rate = as_schedule(1e-3 if learning_rate is None else learning_rate)
    if (rate(np.arange(total)) < 0).any():
        raise TrainingError(f"learning_rate: got {learning_rate!r}, expected numbers of at least 0.")
    for what, schedule in {**engine.schedules(), "learning_rate": rate}.items():
        check_reached(what, schedule, total)
    compiled = _choose_compile(compile, name, total)
    optimiser = as_optimiser(optimiser, clip_norm)
    own_rate = not hasattr(optimiser, "clip_norm")
    if own_rate and learning_rate is not None:
        raise TrainingError("learning_rate: works with an optimiser by name; one of your own has its own.")
    native = runtime.put(fields)
    params_native = runtime.put(first)
    checked = runtime.put({**fields, "x": np.round(fields["x"])}) if binarise == "dynamic" else native
    _first_reading(program, runtime, params_native, checked)
    if out is not None:
        checkpoint.make_folder(Path(out))

    trainer = load_backend(name).Trainer(
        runtime, engine, optimiser, params_native, native, seed, size, binarise == "dynamic", compiled, compile is True
    )
    run = _Run(
        trainer=trainer,
        batches=batches,
        engine=engine,
        rate=as_schedule(1.0) if own_rate else rate,
        total=total,
        watch=None if held_out is None else _Watch(runtime, held_out, early_stopping, _warm(engine)),
        callbacks=callbacks,
        keep_best=keep_best,
        report=make_report(progress),
    )
    settings = {
        "seed": seed,
        "batch_size": batches.batch_size,
        "data_size": size,
        "fields": sorted(fields),
        "dtype": dtype,
        "binarise": binarise,
        "optimiser": "own" if own_rate else optimiser.to_dict(),
        "learning_rate": rate.to_dict(),
    }

    def finish() -> Fit:
        info = {**settings, "steps": run.step, "compile": trainer.compiled, "stopped": run.stopped}
        values = run.best() if held_out is not None and keep_best else run.last()
        result = Fit(program, values, name, device, engine, run.history(), info, run.stopped, runtime)
        if out is not None:
            result.save(out, overwrite)
        return result

    try:
        with _interruptible() as interrupted:
            run.go(interrupted)
    except BaseException:  # an error in a callback, or a second Ctrl-C: what was reached is not lost
        run.stopped = "failed"
        if out is not None and run.parts:
            finish()
        raise
    return finish()


@dataclass
class _Watch:
    """The validation ELBO, the best parameters by it, and when to stop."""

    runtime: Any
    fields: dict[str, np.ndarray]
    patience: int | None
    warm: int
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    best: float = -np.inf
    best_params: dict[str, np.ndarray] | None = None
    waited: int = 0

    def __post_init__(self) -> None:
        size = len(next(iter(self.fields.values())))
        memory = parse_memory("auto", self.runtime.device)
        self.judge = Judge(self.runtime, None, self.runtime.put(self.fields), size, memory)

    def look(self, trainer: Any, step: int) -> bool:
        """Take the validation ELBO; True when it has not got better for long enough."""
        value = replace(self.judge, params=trainer.params).elbo(1, 0).mean
        self.steps.append(step)
        self.values.append(value)
        if value > self.best:
            self.best, self.best_params, self.waited = value, trainer.values(), 0
        elif step >= self.warm:
            self.waited += 1
        return self.patience is not None and self.waited >= self.patience


@dataclass
class _Run:
    """The loop over stretches of one training run."""

    trainer: Any
    batches: Batches
    engine: Any
    rate: Schedule
    total: int
    watch: _Watch | None
    callbacks: tuple[Callable[[Progress], Any], ...]
    keep_best: bool
    report: Report
    step: int = 0
    stopped: str = "done"
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    compiled_at: tuple[int, float] = (0, 0.0)
    safe: dict[str, np.ndarray] = field(default_factory=dict)  # to fall back to from numbers that are not finite
    safe_at: float = 0.0

    def go(self, interrupted: threading.Event) -> None:
        """Run stretches to the end, or until something stops them."""
        self.safe = self.trainer.values()
        capacity = min(self.total, STRETCH_STEPS)
        count, started = min(capacity, 20), time.perf_counter()
        with self.report:
            while self.step < self.total and self.stopped == "done":
                count = min(count, self._until_look())
                before = time.perf_counter()
                metrics = self.trainer.run(self._plan(count, capacity))
                took = time.perf_counter() - before
                self.parts.append(metrics)
                self.step += count
                self._look_up(metrics, time.perf_counter() - started, interrupted)
                count = int(np.clip(count * STRETCH_SECONDS / max(took, 1e-6), 1, min(capacity, 4 * count)))

    def best(self) -> dict[str, np.ndarray]:
        """The parameters with the best validation ELBO, or the last ones where none was taken."""
        kept = self.watch.best_params if self.watch else None
        return self.last() if kept is None else kept

    def last(self) -> dict[str, np.ndarray]:
        """The parameters now, or those of some seconds before they were not finite."""
        return self.safe if self.stopped == "not finite" else self.trainer.values()

    def history(self) -> dict[str, np.ndarray]:
        """Everything that was measured, as arrays."""
        found = {n: np.concatenate([p[n] for p in self.parts]) for n in self.parts[0]}
        found["step"] = np.arange(1, self.step + 1)
        if self.watch:
            found["validation_step"] = np.array(self.watch.steps)
            found["validation_elbo"] = np.array(self.watch.values)
        return found

    def _until_look(self) -> int:
        """Steps until the next validation, or the end."""
        left = self.total - self.step
        return min(left, self.batches.per_epoch - self.step % self.batches.per_epoch) if self.watch else left

    def _plan(self, count: int, capacity: int) -> Plan:
        index, weight = self.batches.rows(self.step, count, capacity)
        steps = np.arange(self.step, self.step + capacity)
        rate = self.rate(steps).astype(np.float32)
        return Plan(index, weight, rate, self.engine.knobs(steps), self.step, count)

    def _rate(self, seconds: float) -> float:
        """Steps per second, without the first stretch once there are others: that one compiles."""
        if len(self.parts) == 1:
            self.compiled_at = self.step, seconds
            return self.step / max(seconds, 1e-9)
        step, before = self.compiled_at
        return (self.step - step) / max(seconds - before, 1e-9)

    def _look_up(self, metrics: dict[str, np.ndarray], seconds: float, interrupted: threading.Event) -> None:
        if not np.isfinite(metrics["objective"]).all():
            bad = int(np.argmin(np.isfinite(metrics["objective"]))) + self.step - len(metrics["objective"])
            self.stopped = "not finite"
            row = self.batches.rows(bad, 1, 1)[0][0]
            self.report.warn(
                f"The objective was not finite at step {bad} (data {row[:5].tolist()}…). Training stopped, and goes "
                "back to parameters that were. Try a smaller learning_rate, clip_norm=…, or a larger min_scale."
            )
            return
        if seconds - self.safe_at > SAFE_SECONDS:
            self.safe, self.safe_at = self.trainer.values(), seconds
        looks = self.step % self.batches.per_epoch == 0 or self.step == self.total
        if self.watch and looks and self.watch.look(self.trainer, self.step):
            self.stopped = "early stopping"
        now = Progress(
            step=self.step,
            steps=self.total,
            epoch=self.step / self.batches.per_epoch,
            seconds=seconds,
            rate=self._rate(seconds),
            metrics={n: float(v.mean()) for n, v in metrics.items()},
            validation_elbo=self.watch.values[-1] if self.watch and self.watch.values else None,
        )
        self.report.update(now)
        for callback in self.callbacks:
            if callback(now) is True:
                self.stopped = "callback"
        if interrupted.is_set():
            self.stopped = "interrupted"


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C ends training after the present stretch; a second one at once."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _first_reading(program: Any, runtime: Any, params: Any, data: Any) -> None:
    """Read a few data, with the libraries' checks of arguments and values on, and sizes that hide no shape mistake."""
    try:
        runtime.validate(params, data, 2, runtime.tracer.batch_size or 3)
    except PpdgmError:
        raise
    except Exception as error:
        raise explain(program, error) from error


def _check_arguments(
    program: Any,
    length: Any,
    seed: Any,
    dtype: Any,
    binarise: Any,
    patience: Any,
    callbacks: tuple[Any, ...],
    compile: Any,
) -> None:
    if not isinstance(program, Program | PlainPair):
        raise TrainingError(
            f"program: got {type(program).__name__}, expected a Program such as VAE(…), or a plain pair from "
            "Program.from_pyro(…) or Program.from_numpyro(…)."
        )
    require("epochs or steps", length, int, 1, "a whole number, at least 1")
    require("seed", seed, int, 0, "a whole number, at least 0")
    if patience is not None:
        require("early_stopping", patience, int, 1, "a whole number of validations, at least 1")
    if not all(callable(c) for c in callbacks):
        raise TrainingError(f"callbacks: got {callbacks!r}, expected functions of a Progress.")
    for name, value, allowed in (
        ("compile", compile, (True, False, "auto")),
        ("dtype", dtype, ("float32", "float64")),
        ("binarise", binarise, ("none", "dynamic")),
    ):
        if value not in allowed:
            raise TrainingError(f"{name}: got {value!r}, expected {' or '.join(map(repr, allowed))}.")


def _warm(engine: Any) -> int:
    return max((s.reached() for s in engine.schedules().values()), default=0)


def _choose_backend(program: Any, backend: str | None) -> str:
    own = getattr(program, "backend", None)
    if own and backend and own != backend:
        raise TrainingError(f"backend: got {backend!r}, but this is a plain {own} pair, which runs on {own!r} only.")
    return own or backend or "numpyro"


def _choose_batch(runtime: Any, batch_size: int | None, size: int) -> int:
    own = runtime.tracer.batch_size
    if own and batch_size not in (None, own):
        raise TrainingError(f"batch_size: got {batch_size}, but the program's own plate fixes it at {own}.")
    chosen = own or (100 if batch_size is None else batch_size)
    require("batch_size", chosen, int, 1, "a whole number, at least 1")
    if own and own > size:
        raise TrainingError(f"The program's plate takes minibatches of {own}, but there are {size} data.")
    return chosen


def _choose_compile(compile: bool | str, backend: str, total: int) -> bool:
    if backend != "pyro" or compile is False:
        return backend != "pyro"
    if compile == "auto":
        return total >= COMPILE_FROM_STEPS and any(shutil.which(c) for c in ("c++", "g++", "clang++"))
    return True
