"""One training run: it checks data, settings and program, then it trains and leaves its result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from ppdgm.data import Dataset, as_fields, codings_of, enter_beside
from ppdgm.data.transform import Transform
from ppdgm.errors import CheckpointError, DataError, PpdgmError, ProgramError, TrainingError, explain, out_of_memory
from ppdgm.inference.engines.engine import check_length, first_watched, hyperparameters_of, last_reached, states_of
from ppdgm.inference.engines.estimators import first_field
from ppdgm.inference.engines.optimisers import as_optimiser
from ppdgm.inference.evaluation.estimates import check_density, check_fields, leave_labels, parse_memory
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.inference.evaluation.information import mutual_information
from ppdgm.inference.evaluation.opening import values_of
from ppdgm.inference.evaluation.pair_draws import rows_of
from ppdgm.inference.evaluation.result import Fit
from ppdgm.inference.inputs.batches import Batches, choose_batch
from ppdgm.inference.inputs.changed_rows import changed_rows, check_changes
from ppdgm.inference.inputs.feed import Feed, with_bits
from ppdgm.inference.inputs.own_rows import check_own_rows, fingerprint
from ppdgm.inference.inputs.parameters import as_params
from ppdgm.inference.inputs.row_independence import check_apart, stirred
from ppdgm.inference.inputs.row_weights import check_weighable, check_weights, digest_of, of_mean_one, weights_by_split
from ppdgm.inference.inputs.stray_noise import check_quiet, noise_of
from ppdgm.inference.inputs.support import check_support, dimensions_of
from ppdgm.inference.inputs.tables import table_of
from ppdgm.inference.runs.checkpoint import matching
from ppdgm.inference.runs.codings import read_codings
from ppdgm.inference.runs.folder import Folder
from ppdgm.inference.runs.layout import check_free
from ppdgm.inference.runs.progress import Display, Progress, Silent
from ppdgm.inference.runs.rates import news, waits
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.inference.runs.recorder import Recorder
from ppdgm.inference.runs.showing import make_display
from ppdgm.inference.training.chunks import check_chunk, check_reading, why_not_again
from ppdgm.inference.training.devices import check_devices, check_divided, check_resumed
from ppdgm.inference.training.exact import check_closed_steps, exact_metrics, exact_trainer
from ppdgm.inference.training.loop import Interruption, Run, interruptible
from ppdgm.inference.training.memory import warnings_of
from ppdgm.inference.training.monitor import Monitor
from ppdgm.inference.training.no_effect import check_compile, check_nets, check_rates, check_tf32
from ppdgm.inference.training.pieces import check_pieces, check_rows_apart, check_whole
from ppdgm.inference.training.same_data import check_same_data
from ppdgm.inference.training.unused_latents import Unused, has_latents
from ppdgm.inference.training.validation import Validation
from ppdgm.inference.training.watching import check_wanted, check_watchable, criterion_of
from ppdgm.language.augmenting import Augment
from ppdgm.language.native import OwnOptimiser
from ppdgm.language.runtime import Native, Rehearsal
from ppdgm.language.step import ROLES
from ppdgm.language.trainer import Trainer, TrainerSettings
from ppdgm.language.vocabulary import Trace
from ppdgm.program import PlainPair, has_model
from ppdgm.registry import backend as load_backend
from ppdgm.specs.schedules import as_schedule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ppdgm.data.aliases import Codings, Data
    from ppdgm.inference.inputs.row_weights import Weights
    from ppdgm.specs import Table

COMPILE_FROM_STEPS = 10_000  # torch.compile takes some ten seconds, and saves about a millisecond per step
Value = TypeVar("Value")
Callback = Callable[[Progress], object]


@dataclass(frozen=True)
class Saved:
    """An opened checkpoint."""

    file: Path
    arrays: dict[str, np.ndarray]
    page: Table


@dataclass
class Job:
    """The parts of a run; `prepare` checks them, `run` trains."""

    recipe: Recipe
    data: Data | Dataset
    validation: Data | None
    own: OwnOptimiser | None
    callbacks: tuple[Callback, ...]
    progress: bool | None
    params: Mapping[str, np.ndarray] | None
    given_weights: Weights | None = None
    augment: Augment | None = None

    def prepare(self, known: Codings | None = None) -> None:
        """Check data, settings and program, and put everything on the device.

        Args:
            known: the codings of a run that goes on; they replace those of the data that are given again.
        """
        recipe, training = self.recipe, self.recipe.training
        self.codings = {**(known or {}), **codings_of(self.data)}
        if recipe.training.binarise == "dynamic" and "x" in self.codings:
            transform = cast(Transform, self.codings["x"])  # that of x always is one
            _check_drawn(transform.binarise)
            self.codings["x"] = replace(transform, binarise="dynamic")
        self.criterion, self.notes = criterion_of(recipe.engine), []
        weights = weights_by_split(self.given_weights, self.data, self.validation)
        if isinstance(self.data, Dataset):
            beside = self.data.validation
            if self.criterion is None and beside is not None:
                self.notes = [
                    f"{type(recipe.engine).__name__} has no criterion: the data's validation rows are not used"
                ]
                beside = None
            held_out = _first(self.validation, beside)
            self.data, self.validation = (leave_labels(recipe.program, d) for d in (self.data.train, held_out))
        if (table := table_of(recipe.program)) is not None:
            self.notes.append(f"columns: {', '.join(table.columns)}")
        check_wanted(recipe.engine, self.criterion, self.validation, training.early_stopping)
        check_nets(training, recipe.program)
        typed = isinstance(recipe.program, PlainPair)
        self.fields = as_fields(self.data, training.dtype, "train", typed)
        held_out = None if self.validation is None else enter_beside(self.codings, self.validation)
        self.held_out = None if held_out is None else as_fields(held_out, training.dtype, "judge", typed)
        check_fields(recipe.program, self.fields, training.binarise)
        if self.held_out is not None:
            check_fields(recipe.program, self.held_out)
        self.module = load_backend(recipe.backend)
        self.runtime = self.module.Runtime(recipe.program, training.device, training.devices)
        self.runtime.check_trains()
        check_tf32(training, self.runtime.place)
        self.feed = Feed(self.runtime, self.fields)
        first = self.runtime.initialise(training.seed, self.feed.sample, training.dtype)
        self.looked = with_bits(self.feed) if training.binarise == "dynamic" else self.feed
        if self.params is not None:
            first = matching(first, as_params(None, self.params))
        size, exact = self.feed.size, not recipe.engine.phases()
        if exact:
            check_closed_steps(recipe, self.runtime.tracer, size)
        batch_size = size if exact else choose_batch(self.runtime.tracer, training.batch_size, size)
        self._weigh(weights)
        if self.augment is not None:
            check_changes(self.runtime.tracer, self.fields)
            self.changed = changed_rows(self.module.augment_rows, self.augment, self.fields)
            check_fields(recipe.program, self.changed, training.binarise)
        of_rows = None if self.weights is None else of_mean_one(self.weights).astype(training.dtype)
        self.batches = Batches(size, batch_size, training.seed, of_rows)
        if self.batches.batch_size % training.accumulate:
            raise TrainingError(
                f"accumulate: got {training.accumulate}, expected a divisor of batch_size={self.batches.batch_size}."
            )
        if training.accumulate > 1:
            check_pieces(recipe.engine, self.runtime.tracer.batch_size)
        check_devices(training, self.runtime, self.batches.batch_size)
        self.total = training.length(self.batches.per_epoch)
        own = training.optimiser if self.own is None else self.own
        self.optimiser = as_optimiser(own, training.clip_norm)
        why_not = self.runtime.why_not_compiled(recipe.engine, self.optimiser)
        check_compile(training, exact, why_not or why_not_again(training), self.runtime.place)
        self._check_schedules()
        self.native, self.first = self.runtime.put(first), first
        self._first_reading()
        if not first:
            where = "with numpyro.param" if isinstance(recipe.program, PlainPair) else "in build()"
            raise ProgramError(
                f"The program has no parameters, so there is nothing to train. Declare parameters {where}."
            )
        engine = recipe.engine
        self.monitor: Monitor | None = None
        if training.diagnose_epochs is not None:
            seen = self.looked if self.held_out is None else Feed(self.runtime, self.held_out)
            self.monitor = Monitor(self.runtime, seen, training.diagnose_epochs * self.batches.per_epoch)
            self.monitor.check(self.native)
        own = {n: s.label for n, s in self.state.items() if s.label is not None}
        tracer = self.runtime.tracer
        for phase in engine.phases():
            phase.moving({**tracer.labels, **own}, tracer.states)  # refuses a phase that moves nothing
        by_name = self.own is None and any(phase.learning_rate is None for phase in engine.phases())
        rate = 1e-3 if by_name and training.learning_rate is None else training.learning_rate
        resolved = training.replace(batch_size=self.batches.batch_size, learning_rate=rate)
        self.recipe = replace(recipe, training=resolved)
        if self.runtime.share.processes > 1:
            trainer = self.module.Trainer(self.runtime, engine, self._stirred(), self._settings(False), self.state)
            check_divided(trainer, self.feed, engine, recipe.program)
        if self.runtime.place != "cpu":
            self.notes.append(f"trains on {self.runtime.place}")

    def run(self, out: Path | None, fresh: bool = False, saved: Saved | None = None, overwrite: bool = False) -> Fit:
        """Train, from the first step or a checkpoint."""
        if not hasattr(self, "feed"):
            self.prepare(read_codings(saved.arrays, saved.page) if saved else {})
        facts: dict[str, object] = {"data_size": self.feed.size, "fields": sorted(self.fields)}
        facts["dimensions"] = dimensions_of(self.recipe.program, self.runtime, self.fields)
        if isinstance(self.recipe.program, PlainPair):
            facts["rows"] = rows_of(self.fields)
        else:
            facts["shapes"] = {n: list(v.shape[1:]) for n, v in self.fields.items()}
        if out is not None or self.runtime.tracer.batch_size is not None:
            facts["fingerprint"] = fingerprint(self.fields)
        if out is not None and self.held_out is not None:
            facts["held_out"] = fingerprint(self.held_out)
        if self.weights is not None or self.held_weights is not None:
            facts["weights"] = digest_of(self.weights, self.held_weights)
        if saved:
            check_same_data(saved.page, facts)
        first = self.runtime.share.process == 0  # the others only compute
        out, self.callbacks = (out, self.callbacks) if first else (None, ())
        with ExitStack() as stack:
            folder = None if out is None else Folder(out)
            if folder is not None:
                stack.enter_context(folder.held())
            if folder is not None and fresh:
                check_free(folder.path, overwrite, held=True)  # another run may have been there after the first check
                folder.clear()
                folder.write_recipe(self.recipe, self._remarks())
            display = stack.enter_context(make_display(self.progress) if first else Silent())
            for callback in self.callbacks:
                if isinstance(callback, AbstractContextManager):
                    stack.enter_context(callback)
            recorder = Recorder(folder, self.recipe, self.codings, facts)
            run = self._make(display, recorder, saved)
            if saved:
                self._restore(run, saved, folder)
            recorder.start(run, saved.file.name if saved else "")
            self.notes += news(self.recipe.training.learning_rate, run.step)
            for show, told in (*((display.note, n) for n in self.notes), *((display.warn, w) for w in self.warnings)):
                show(told)
                recorder.note(told)
            interrupted = self._go(run, recorder)
            result = self._result(run, run.best())
            recorder.finish(run, result.params)
            recorder.draw(result)
        interrupted.pass_on()
        return result

    def _weigh(self, given: Mapping[str, ArrayLike]) -> None:
        """Check the weights of rows."""
        weigh = lambda n, size: check_weights(given[n], size, f"weights of {n}") if n in given else None
        self.weights = weigh("train", self.feed.size)
        if self.held_out is None and "validation" in given and self.given_weights is not None:
            raise DataError("weights: got some of 'validation', but there are no validation data. Leave them out.")
        self.held_weights = (
            None if self.held_out is None else weigh("validation", len(next(iter(self.held_out.values()))))
        )
        if self.weights is not None:
            check_weighable(self.recipe.engine, self.runtime.tracer)

    def _settings(self, compiled: bool) -> TrainerSettings:
        training = self.recipe.training
        size = self.feed.size if self.weights is None else float(self.weights.sum())
        return TrainerSettings(
            training.seed, size, self.optimiser, self.metrics, training.binarise == "dynamic",
            training.weight_average, compiled, training.compile not in (False, "auto"), training.accumulate,
            training.mixed_precision, training.particle_chunk, training.tf32, training.compile == "cudagraphs",
            training.rematerialise, self.augment,
        )  # fmt: skip

    def _restore(self, run: Run, saved: Saved, folder: Folder | None) -> None:
        """Go on from a checkpoint; later files are removed when the checkpoint is known to be right."""
        try:
            run.restore(saved.arrays, saved.page)
        except CheckpointError as error:
            raise CheckpointError(f"{saved.file} is not a checkpoint of this run: {error}") from None
        if folder is not None:
            folder.drop_after(saved.file)
            if saved.page["recipe"] != self.recipe.table():  # longer than was planned
                folder.write_recipe(self.recipe, self._remarks())

    def _make(self, display: Display, recorder: Recorder, saved: Saved | None) -> Run:
        training, name, exact = self.recipe.training, self.recipe.backend, not self.recipe.engine.phases()
        compiled = saved.page["compile"] if saved else _choose_compile(training.compile, name, self.total)
        if saved and compiled:
            check_resumed(self.runtime)
        settings, engine = self._settings(compiled), self.recipe.engine
        trainer: Trainer = (
            exact_trainer(engine, self.runtime, self.recipe.program, self.feed, self.first, self.weights)  # is checked
            if exact
            else self.module.Trainer(self.runtime, engine, self.native, settings, self.state)
        )
        validation = None
        if self.held_out is not None and self.criterion is not None:
            memory = parse_memory("auto", self.runtime.device)
            evaluator = Evaluator(self.runtime, {}, Feed(self.runtime, self.held_out), memory)
            of_program = [s.reached() for s in self.runtime.tracer.schedules.values()]
            ends = last_reached(self.recipe.engine), first_watched(self.recipe.engine), waits(training.learning_rate)
            warm = max([*ends, *of_program])
            validation = Validation(self.criterion, evaluator, training.early_stopping, warm, self.held_weights)
        rate = as_schedule(1.0) if self.own is not None else training.rate
        return Run(
            trainer, self.feed, self.batches, self.recipe.engine, training, self.total, validation, self.callbacks,
            display, recorder, rate, self.metrics, self.recipe.engine.controller(self.batches.per_epoch), self.monitor,
            self._unused(), self.looked,
        )  # fmt: skip

    def _unused(self) -> Unused | None:
        return Unused() if self.latent and "kl" in self.metrics and self.recipe.engine.phases() else None

    def _go(self, run: Run, recorder: Recorder) -> Interruption:
        """Train; an error in a callback, or a second Ctrl-C, does not lose the training so far."""
        try:
            with interruptible() as interrupted:
                run.go(interrupted)
            return interrupted
        except BaseException as error:
            run.stopped = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            recorder.note(f"{type(error).__name__}: {error}")
            if run.at_work:  # in the middle of a stretch: the last good state is all there is
                run.go_back()
            if not run.step:
                recorder.status(run, run.stopped)
            else:
                recorder.finish(run, values_of(run.good[1]) if run.at_work else run.best(), not run.at_work)
            if (told := self._explained(error, run)) is not None:
                raise told from error
            raise

    def _explained(self, error: BaseException, run: Run) -> PpdgmError | None:
        """The error to raise instead: of memory, or of the program within a stretch (a backward pass, say)."""
        if run.at_work and isinstance(error, Exception) and not isinstance(error, PpdgmError):
            return explain(self.recipe.program, error)
        return out_of_memory(error)

    def _result(self, run: Run, values: dict[str, np.ndarray]) -> Fit:
        recipe, together = self.recipe, self.runtime.share.processes > 1  # later, each process computes by itself
        looked = {"diagnose_share": run.monitor.seconds / max(run.seconds, 1e-9)} if run.monitor else {}
        info = {
            **run.recorder.facts,
            **looked,
            "steps": run.step,
            "compile": run.trainer.compiled,
            "skipped": len(run.skipped),
            "device": self.runtime.place,
            "process": self.runtime.share.process,
        }
        return Fit(
            recipe.program, values, recipe.backend, recipe.training.device, recipe.engine, run.history(), info,
            run.stopped, recipe.training, recipe.data, self.codings, runtime=None if together else self.runtime,
        )  # fmt: skip

    def _check_schedules(self) -> None:
        training, engine = self.recipe.training, self.recipe.engine
        if self.own is not None and training.learning_rate is not None:
            raise TrainingError(
                "learning_rate: works only with an optimiser that is given by name; your own optimiser has its "
                "own rate. Leave it out."
            )
        check_rates(engine, training, self.own is not None)
        some = np.unique(np.linspace(0, self.total - 1, 10_000).astype(np.int64))
        if (training.rate(some) < 0).any():
            raise TrainingError(
                f"learning_rate: got {training.learning_rate!r}, expected numbers that are not negative."
            )
        check_length(engine, self.total, {**self.runtime.tracer.schedules, "learning_rate": training.rate})

    def _first_reading(self) -> None:
        """Read a few rows, with the libraries' argument checks on, and with sizes that hide no shape mistake.

        Then read them as in training: errors of the engine are raised before there is a run. A model whose density
        neither the engine nor its criterion needs is not read.
        """
        program, rows = self.recipe.program, self.runtime.tracer.batch_size or 3
        data, reading = self.feed.some(rows), None
        if self.recipe.training.binarise == "dynamic":
            data = {**data, **self.runtime.put({"x": np.round(self.runtime.fetch(data["x"]))})}
        engine, criterion, watches = self.recipe.engine, self.criterion, self.held_out is not None
        elbo, found = criterion is not None and criterion.of is None, None
        try:
            if not has_model(program) or not elbo:  # what the engine runs decides what there is to check
                found = self._rehearse(data, rows)
            if found is None or set(found.roles) & set(ROLES) or (watches and elbo and has_model(program)):
                reading = self._read_model(data, rows, found is None and not watches)
            self.latent = reading is not None and has_latents(reading)
            if watches and criterion is not None:
                held = Feed(self.runtime, self.held_out or {})
                check_watchable(engine, criterion, self.runtime, self.native, held, rows, reading)
            found = found or self._rehearse(data, rows)
            self.state = states_of(engine, self._width(), found.scored)
            self.metrics = tuple(found.names) or exact_metrics(engine)
            if (training := self.recipe.training).accumulate > 1:
                check_whole(found.whole)
                check_rows_apart(self.runtime, self.first, self.feed, found.roles, data, rows, reading is not None)
            if training.particle_chunk is not None:
                check_chunk(training.particle_chunk, found.particles)
                check_reading(self.runtime, self.native, self._stirred(), self.feed, data, rows)
            size = self.batches.batch_size
            self.warnings = warnings_of(self.runtime, self.native, self.feed, training, size, found.particles)
            if engine.controller(1) is not None:
                mutual_information(self.runtime, self.native, self.feed, rows=2)  # the run will measure it
        except PpdgmError:
            raise
        except Exception as error:
            raise (out_of_memory(error) or explain(program, error)) from error

    def _rehearse(self, data: Native, rows: int) -> Rehearsal:
        """Every phase's objective, as in training."""
        engine = self.recipe.engine
        now = hyperparameters_of(engine, np.zeros(1))
        own = self.runtime.put({n: s.value for n, s in states_of(engine, self._width(), ()).items()})
        chunk = self.recipe.training.particle_chunk
        return self.runtime.rehearse(engine, {**self.native, **own}, data, rows, now, self.feed.size, chunk)

    def _read_model(self, data: Native, rows: int, maybe: bool) -> Trace | None:
        """Guide and model at a few rows; the data and the bound that they give are checked.

        With `maybe`, they are only checked if the engine runs them; if it doesn't, and they fail, there is no reading.
        """
        try:
            return self._checked_model(data, rows)
        except Exception:
            if not maybe or self._runs_model(data, rows):
                raise
            return None

    def _runs_model(self, data: Native, rows: int) -> bool:
        try:
            return bool(set(self._rehearse(data, rows).roles) & set(ROLES))
        except Exception:  # by the model's mistake, or another one that comes after it
            return True

    def _checked_model(self, data: Native, rows: int) -> Trace:
        reading: Trace = self.runtime.validate(self.native, data, 2, rows)
        if any(phase.weighs for phase in self.recipe.engine.phases()) and not reading.shared:
            check_density(reading)
        self._check_rows()
        if self.held_out is not None:
            known = lambda: fingerprint(self.held_out or {}) == fingerprint(self.fields)
            first, held = stirred(self.first, self.runtime.tracer.labels), Feed(self.runtime, self.held_out)
            check_own_rows(self.runtime, first, held, self.feed.size, known)
        elbo = self.held_out is not None and self.criterion is not None and self.criterion.of is None
        if elbo or self.recipe.training.diagnose_epochs is not None:
            check_quiet(self.runtime, self._stirred(), self.feed)
        return reading

    def _check_rows(self) -> None:
        """All rows are in their distributions' supports, and their terms do not depend on other rows."""
        program, dynamic = self.recipe.program, self.recipe.training.binarise == "dynamic"
        check_support(program, self.runtime, self.first, self.feed, True, dynamic)
        if self.augment is not None:
            check_support(program, self.runtime, self.first, Feed(self.runtime, self.changed), True, dynamic)
        if self.held_out is not None:
            check_support(program, self.runtime, self.first, Feed(self.runtime, self.held_out), False)
        try:
            check_apart(self.runtime, self.first, self.feed)
        except ProgramError:
            if not noise_of(self.runtime, self._stirred(), self.feed):  # such noise would move the terms of every row
                raise

    def _stirred(self) -> Native:
        """First values without zeros, such as a last layer's, that would hide what the terms depend on."""
        return self.runtime.put(stirred(self.first, self.runtime.tracer.labels))

    def _width(self) -> int:
        """The width of the field that a learned baseline reads, flat."""
        return int(np.prod(self.fields[first_field(self.fields)].shape[1:]))

    def _remarks(self) -> list[str]:
        """The parts of the run that can't be written in the recipe."""
        given = {
            "its data": self.recipe.data is None,
            "its weights of rows": self.given_weights is not None,
            "its first parameter values": self.params is not None,
            "its augmentation": self.recipe.training.augment == "own",
            "its optimiser": self.own is not None,
            "its program": isinstance(self.recipe.program, PlainPair),
        }
        missing = [n for n, absent in given.items() if absent]
        return [f"This recipe does not contain what was given in Python: {', '.join(missing)}."] if missing else []


def _check_drawn(before: str) -> None:
    """Refuse to draw x ~ Bernoulli(x) again if x are already 0 or 1: the draws would be x."""
    if before in ("static", "threshold"):
        raise TrainingError(
            "binarise: got 'dynamic', but these data are already 0 or 1, because they were loaded with "
            f"binarise={before!r}. Load them with load_data(…, binarise='dynamic') or --binarise dynamic."
        )


def _first(*values: Value | None) -> Value | None:
    return next((v for v in values if v is not None), None)


def _choose_compile(compile: bool | str, backend: str, total: int) -> bool:
    if backend != "pyro" or compile is False:
        return backend != "pyro"
    if compile == "auto":
        return total >= COMPILE_FROM_STEPS and any(shutil.which(c) for c in ("c++", "g++", "clang++"))
    return True
