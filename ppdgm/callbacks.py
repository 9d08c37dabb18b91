"""Callbacks of `fit`: a run's progress for TensorBoard and Weights & Biases, and pruning by Optuna."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from ppdgm.errors import PackageMissing, TrainingError, shown
from ppdgm.inference.runs.progress import Display, Progress


class Callback(ABC):
    """Passes each `Progress` on to a library. If this fails, there is one warning, and the run goes on.

    A subclass opens its output at the first call, writes to it, and closes it.
    """

    def __init__(self) -> None:
        self._opened, self._failed = False, False
        self._validation: float | None = None

    @abstractmethod
    def open(self, step: int) -> None:
        """Get ready to write from this step on."""

    @abstractmethod
    def write(self, values: dict[str, float], step: int) -> None:
        """Write named values at a step."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is left."""

    def __call__(self, now: Progress) -> None:
        """Write the metrics under `train/`, the validation if it is new, such as `validation/elbo`, and the rate."""
        values = {**{f"train/{n}": v for n, v in now.metrics.items()}, "rate": now.rate}
        values |= {f"live/{n.removeprefix('live_')}": v for n, v in now.live.items()}
        if now.validation is not None and now.validation != self._validation:
            name = "elbo" if now.criterion == "ELBO" else now.criterion
            values[f"validation/{name}"] = self._validation = now.validation
        if not self._opened:
            self._opened = self._try(lambda: self.open(now.step))
        self._try(lambda: self.write(values, now.step))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._opened:
            self._try(self.close)
        self._opened, self._validation = False, None

    def _try(self, action: Callable[[], object]) -> bool:
        if self._failed:
            return False
        try:
            action()
        except Exception as error:
            self._failed = True
            Display().warn(
                f"{type(self).__name__} failed, and is not used for the rest of the run: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}"
            )
        return not self._failed


class TensorBoard(Callback):
    """Writes scalars for TensorBoard, with tensorboardX or torch: `fit(…, callbacks=TensorBoard("runs/vae"))`.

    In a resumed run, they replace the scalars that a killed run had written after the step it is resumed from.

    Args:
        folder: of the event files.

    Raises:
        PackageMissing: neither package is installed.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.folder = Path(folder)
        self._writer: Any = None
        self._make = _first_of(
            ("tensorboardX", "torch.utils.tensorboard"), "TensorBoard", "pip install tensorboardX"
        ).SummaryWriter

    def open(self, step: int) -> None:
        # Without a suffix, two files of one second would have one name.
        self._writer = self._make(str(self.folder), purge_step=step, flush_secs=10, filename_suffix=f".{step}")

    def write(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB(Callback):
    """Logs to Weights & Biases: `fit(…, callbacks=WandB("digits", id="vae-1"))`.

    Args:
        project: its name there.
        id: of the run; with the id of an earlier run, that run is continued.
        settings: further arguments of `wandb.init`, such as name, dir, config or mode.

    Raises:
        PackageMissing: wandb is not installed.
    """

    def __init__(self, project: str, id: str | None = None, **settings: Any):
        super().__init__()
        self._settings = {"project": project, "id": id, "resume": "allow", **settings}
        self._library = _first_of(("wandb",), "WandB", "pip install wandb")
        self._run: Any = None

    def open(self, step: int) -> None:
        self._run = self._library.init(**self._settings)

    def write(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class OptunaPruning:
    """Ends a trial that Optuna finds unpromising: `fit(…, callbacks=OptunaPruning(trial))` in an objective.

    Each validation is reported to the trial, at its epoch, so that runs with different batch sizes can be compared. If
    Optuna prunes the trial, training ends, the run is completed and saved, and then `fit` raises Optuna's
    `TrialPruned`, which ends the objective as Optuna expects.

    Args:
        trial: of a study with one direction; or Optuna's `FixedTrial`, which never prunes.
        metric: what is reported, by its name in the history: "validation_elbo", or another criterion of the engine's,
            such as "validation_loss". By default, what validation watches.

    Raises:
        PackageMissing: Optuna is not installed.
        TrainingError: `trial` is not a trial; in training: validation watches something else, there is no validation,
            or the study has the wrong direction for it.
    """

    def __init__(self, trial: Any, metric: str | None = None):
        self._pruned = _first_of(("optuna",), "OptunaPruning", "pip install 'ppdgm[sweep]'").TrialPruned
        if not all(callable(getattr(trial, n, None)) for n in ("report", "should_prune")):
            raise TrainingError(f"trial: got {shown(trial)}, expected the trial that Optuna gives to an objective.")
        directions = getattr(getattr(trial, "study", None), "directions", [])
        if len(directions) > 1:
            raise TrainingError(
                f"trial: its study has {len(directions)} directions, and Optuna prunes only studies with one. Leave "
                "OptunaPruning out."
            )
        if metric is not None and not (isinstance(metric, str) and metric.startswith("validation_")):
            raise TrainingError(
                f"metric: got {shown(metric)}, expected 'validation_NAME', such as 'validation_elbo'. Numbers of "
                "training are means over stretches, whose lengths depend on the machine, so trials can't be compared "
                "by them."
            )
        self.trial, self.metric = trial, metric
        self._smaller = directions[0].name == "MINIMIZE" if directions else None
        self._reported: set[int] = set()
        self._at: int | None = None

    def __call__(self, now: Progress) -> bool:
        """Report a new validation; True if the trial is pruned."""
        epoch = math.ceil(now.epoch - 1e-6)
        looks = abs(now.epoch - epoch) < 1e-6 or now.step == now.steps  # as the validation does
        if looks and epoch not in self._reported:
            self.trial.report(self._value(now), epoch)
            self._reported.add(epoch)
            if self._at is None and self.trial.should_prune():
                self._at = epoch
        return self._at is not None

    def _value(self, now: Progress) -> float:
        if now.validation is None:
            raise TrainingError(
                "OptunaPruning: this run has no validation, so there is nothing to report. Give fit validation=…."
            )
        name = f"validation_{'elbo' if now.criterion == 'ELBO' else now.criterion}"
        if self.metric not in (None, name):
            raise TrainingError(f"metric: got {self.metric!r}, but validation watches {name!r} in this run.")
        if self._smaller not in (None, now.smaller):
            better, right = ("smaller", "minimize") if now.smaller else ("larger", "maximize")
            raise TrainingError(f"trial: a {better} {name} is better, so the study needs direction={right!r}.")
        return now.validation

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None and self._at is not None:  # the run is saved by now
            raise self._pruned(f"pruned after epoch {self._at}")


def _first_of(names: tuple[str, ...], what: str, install: str) -> ModuleType:
    """The first of some modules that can be imported."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise PackageMissing(f"{what} needs {' or '.join(names)}, which can't be imported: {install}")
