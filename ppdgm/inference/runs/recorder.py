"""What a run saves in its folder, and when: checkpoints, status, log, history, result, pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from ppdgm.inference.runs.checkpoint import grouped
from ppdgm.inference.runs.codings import coding_arrays, coding_tables
from ppdgm.inference.runs.folder import Folder, versions
from ppdgm.inference.runs.layout import PICTURES
from ppdgm.inference.runs.progress import Progress, RunLog
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.program import has_model

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.data.transform import Transform
    from ppdgm.inference.engines.criteria import Criterion
    from ppdgm.inference.engines.engine import PhaseController
    from ppdgm.language.trainer import Trainer
    from ppdgm.specs import Table

STATUS_SECONDS = 2.0


class ValidationLike(Protocol):
    """What is saved of the validation."""

    @property
    def criterion(self) -> Criterion: ...
    @property
    def values(self) -> Sequence[float]: ...
    @property
    def best(self) -> float: ...
    @property
    def best_params(self) -> Mapping[str, np.ndarray] | None: ...
    def page(self) -> Table: ...


class MonitorLike(Protocol):
    """What is saved of the measurements of latents."""

    @property
    def steps(self) -> Sequence[int]: ...
    @property
    def seconds(self) -> float: ...
    def page(self) -> Table: ...


class RunLike(Protocol):
    """What is saved of a run."""

    @property
    def trainer(self) -> Trainer: ...
    @property
    def step(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def stopped(self) -> str: ...
    @property
    def skipped(self) -> Sequence[int]: ...
    @property
    def in_a_row(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def parts(self) -> Sequence[Mapping[str, np.ndarray]]: ...
    @property
    def controller(self) -> PhaseController | None: ...
    @property
    def validation(self) -> ValidationLike | None: ...
    @property
    def monitor(self) -> MonitorLike | None: ...
    def state(self) -> Mapping[str, np.ndarray]: ...
    def history(self) -> Mapping[str, np.ndarray]: ...


class FitLike(Protocol):
    """What is drawn of a run's result."""

    @property
    def history(self) -> Mapping[str, np.ndarray]: ...
    @property
    def transform(self) -> Transform | None: ...
    def sample(
        self, n: int, *, mean: bool = False, units: Literal["own", "prepared"] = "own"
    ) -> np.ndarray | dict[str, np.ndarray]: ...


class Recorder:
    """Saves a run; for a run without a folder it does nothing.

    Args:
        folder: of the run, or None.
        recipe: of the run.
        codings: of its data, by field.
        facts: other contents of a checkpoint: data, their size and fields.
    """

    def __init__(self, folder: Folder | None, recipe: Recipe, codings: Codings, facts: Mapping[str, object]):
        self.folder, self.recipe, self.codings, self.facts = folder, recipe, codings, dict(facts)
        self.log = RunLog(folder.path / "log.txt") if folder else None
        self._saved_at, self._saved_step, self._status_at = time.monotonic(), -1, 0.0

    def start(self, run: RunLike, resumed_from: str) -> None:
        """Log that the run starts, or goes on."""
        found = " ".join(f"{n} {v}" for n, v in versions().items())
        begins = f"resumed from {resumed_from}" if resumed_from else "started"
        place = f"the {self.recipe.backend} backend, {run.trainer.runtime.place}"
        self.note(f"{begins} at step {run.step} of {run.total}, on {place}; {found}")
        self.status(run, "running")

    def note(self, message: str) -> None:
        """Write a line to the log."""
        if self.log:
            self.log.write(message)

    def next_step(self, step: int) -> int | None:
        """The step after `step` at which a checkpoint must be saved, if checkpoints are counted in steps."""
        every = self.recipe.training.checkpoint_steps
        return step - step % every + every if self.folder and every else None

    def look(self, run: RunLike, now: Progress) -> None:
        """After each stretch: log, status, and a checkpoint if one is due."""
        if not self.folder or not self.log:
            return
        self.log.progress(now)
        if time.monotonic() - self._status_at > STATUS_SECONDS:
            self.status(run, "running", now)
        every, minutes = self.recipe.training.checkpoint_steps, self.recipe.training.checkpoint_minutes
        due = run.step % every == 0 if every else time.monotonic() - self._saved_at > 60 * minutes
        if due:
            self.save(run)

    def save(self, run: RunLike) -> None:
        """Write a checkpoint of the present step, and the history so far."""
        if not self.folder or run.step == self._saved_step:
            return
        best = run.validation.best_params if run.validation else None
        arrays = grouped("trainer", run.state()) | grouped("best", best or {}) | self._common(run)
        digest = self.folder.write_checkpoint(run.step, arrays, self.page(run))
        self.folder.write_history(run.history())
        self.note(f"checkpoint at step {run.step}, sha256 {digest}")
        self.status(run, "running")
        self._saved_at, self._saved_step = time.monotonic(), run.step

    def finish(self, run: RunLike, values: Mapping[str, np.ndarray], checkpoint: bool = True) -> None:
        """Write the result, and a last checkpoint to go on from."""
        if not self.folder:
            return
        if checkpoint:
            self.save(run)
        self.folder.write_weights({**values, **self._common(run)}, self.page(run))
        self.status(run, run.stopped)
        watched = run.validation if run.validation and run.validation.values else None
        best = f"; best validation {watched.criterion.words} {watched.best:.6g}" if watched else ""
        if run.monitor and run.monitor.steps:
            share = run.monitor.seconds / max(run.seconds, 1e-9)
            self.note(f"measured the latents {len(run.monitor.steps)} times, in {share:.1%} of the time")
        self.note(f"ended at step {run.step} of {run.total}: {run.stopped}{best}")

    def draw(self, fit: FitLike) -> None:
        """Draw the history, and samples if there is a model; if a picture fails, the run is not lost."""
        if not self.folder:
            return
        from ppdgm import plots

        path = self.folder.path / PICTURES
        try:
            path.mkdir(exist_ok=True)
            plots.history_picture(path / "history.png", fit.history)
            if not has_model(self.recipe.program):
                return
            means = _one_site(fit.sample(64, mean=True, units="prepared"))
            if plots.is_image(means.shape[1:]):
                title = "Means of p(x|z), for 64 draws of z from the prior"
                plots.samples_picture(path / "samples.png", plots.in_ink(means, fit.transform), title=title)
            else:
                names = fit.transform.columns if fit.transform else ()
                plots.samples_picture(path / "samples.png", _one_site(fit.sample(1000)), names=names)
        except Exception as error:
            self.note(f"a picture could not be drawn: {type(error).__name__}: {error}")

    def status(self, run: RunLike, state: str, now: Progress | None = None) -> None:
        """Write the state of the run."""
        if not self.folder:
            return
        latest = lambda name: _number(now.metrics.get(name) if now else _recent(run.parts, name))
        watched = run.validation if run.validation and run.validation.values else None
        validation = None
        if watched:  # of the parameters that the run returns
            validation = _number(watched.best if self.recipe.training.keep_best else watched.values[-1])
        self.folder.write_status(
            state=state,
            step=run.step,
            steps=run.total,
            elbo=latest("elbo"),
            objective=latest("objective"),
            criterion=watched.criterion.name if watched else None,
            validation=validation,
            validation_elbo=validation if watched and watched.criterion.of is None else None,
            skipped=len(run.skipped),
            dimensions=self.facts.get("dimensions"),
        )
        self._status_at = time.monotonic()

    def page(self, run: RunLike) -> dict[str, object]:
        """The contents of a checkpoint besides its arrays."""
        return {
            **self.facts,
            "recipe": self.recipe.table(),
            "versions": versions(),
            "step": run.step,
            "steps": run.total,
            "stopped": "running" if run.stopped == "done" and run.step < run.total else run.stopped,
            "compile": run.trainer.compiled,
            "skipped": run.skipped,
            "in_a_row": run.in_a_row,
            "seconds": run.seconds,
            # The keys "director", "watch" and "live" are older than the names of the classes: files keep them.
            "director": run.controller.page() if run.controller is not None else None,
            "watch": run.validation.page() if run.validation else None,
            "live": run.monitor.page() if run.monitor else None,
            **coding_tables(self.codings),
        }

    def _common(self, run: RunLike) -> dict[str, np.ndarray]:
        return grouped("history", run.history()) | coding_arrays(self.codings)


def _recent(parts: Sequence[Mapping[str, np.ndarray]], name: str) -> float | None:
    """The mean of the last steps."""
    last = parts[-1][name][-100:] if parts and name in parts[-1] else np.empty(0)
    last = last[np.isfinite(last)]
    return float(last.mean()) if len(last) else None


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _one_site(sites: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
    found: np.ndarray = sites.get("x", next(iter(sites.values()))) if isinstance(sites, dict) else sites
    return found
