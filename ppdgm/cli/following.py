"""A run from beginning to end, as `fit` and `resume` show it."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ppdgm.cli import failures
from ppdgm.cli.output import emit, say, tell

if TYPE_CHECKING:
    import numpy as np

    from ppdgm.callbacks import Callback
    from ppdgm.data import Dataset
    from ppdgm.data.aliases import Data
    from ppdgm.inference import Criterion, Estimate, Fit
    from ppdgm.inference.runs.progress import Progress
    from ppdgm.program import AnyProgram
    from ppdgm.specs import Table

_DIVERGED = (
    "Training diverged: the {what} ended far below where it began. The run is in {out}. Try a smaller "
    "--learning-rate, or --set training.clip_norm=1."
)
_NOT_FINITE = (
    "Training stopped, because numbers were not finite in too many steps in a row. {out}/log.txt shows where. The "
    "last finite parameters are kept. Try a smaller --learning-rate, or --set training.clip_norm=1."
)


@dataclass(frozen=True)
class Flags:
    """Options that are not in a recipe: the run's folder, what is shown, and the command line itself."""

    out: str | None
    overwrite: bool
    tensorboard: bool
    wandb: str | None
    quiet: bool
    as_json: bool
    command: list[str]

    @property
    def progress(self) -> bool | None:
        """The same as for `ppdgm.fit`."""
        return False if self.quiet else None


class Begins:
    """A callback that reports the start of a run, once everything is known to be right."""

    def __init__(self, text: str):
        self.text = text

    def __enter__(self) -> None:
        if self.text:
            tell(self.text)

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, now: Progress) -> None:
        pass


def loggers(flags: Flags, out: Path) -> list[Callback]:
    """The callbacks that flags ask for."""
    if not (flags.tensorboard or flags.wandb):
        return []
    from ppdgm.callbacks import TensorBoard, WandB

    board = [TensorBoard(out / "tensorboard")] if flags.tensorboard else []
    return board + ([WandB(flags.wandb, name=out.name)] if flags.wandb else [])


def follow(run: Callable[[], Fit], data: Dataset, out: Path, flags: Flags) -> int:
    """Run a training, report how it ended, and return the exit code.

    Args:
        run: trains.
        data: the data set; its test data are evaluated at the end.
        out: the run's folder.
        flags: of the command line.
    """
    from ppdgm.program import has_model

    began = time.monotonic()
    try:
        fit = run()
    except KeyboardInterrupt:
        if not any(out.glob("checkpoints/step-*")):
            raise
        _tell_interrupted(out)
        return failures.INTERRUPTED
    result = _result(fit, out, time.monotonic() - began)
    if fit.info["process"]:  # one of several processes, of which the first reports
        ended = {"not finite": failures.TRAINING, "diverged": failures.TRAINING, "interrupted": failures.INTERRUPTED}
        return ended.get(fit.stopped, 0)
    if fit.stopped in ("not finite", "diverged"):
        what = "ELBO" if "elbo" in fit.history else "objective"
        message = (_NOT_FINITE if fit.stopped == "not finite" else _DIVERGED).format(out=out, what=what)
        tell(f"ppdgm: {message}")
        if flags.as_json:
            emit({**result, "error": {"type": "TrainingError", "message": message}})
        return failures.TRAINING
    criterion, model = _criterion(fit), has_model(fit.program)
    computed = criterion is not None and (model or criterion.of is not None)
    if fit.stopped != "interrupted" and data.test is not None and criterion is not None and computed:
        try:
            test = _test(fit, data.test, criterion, data.weights.get("test"))
        except KeyboardInterrupt:
            tell(f"ppdgm: interrupted, but the run is done. To evaluate it: ppdgm evaluate {shlex.quote(str(out))}")
            return failures.INTERRUPTED
        result["test"] = test
    if flags.as_json:
        emit(result)
    elif flags.quiet:
        say(str(out))
    if fit.stopped == "interrupted":
        _tell_interrupted(out)
        return failures.INTERRUPTED
    if not (flags.as_json or flags.quiet):
        _say_summary(result, shlex.quote(str(out)), criterion, model)
    return 0


def as_plain(found: Estimate) -> dict[str, object]:
    """An estimate as plain values."""
    names = ("mean", "standard_error", "monte_carlo_error", "k", "exact") + (() if found.biases is None else ("bias",))
    names += () if found.dimensions is None else ("bits_per_dimension",)
    return {n: getattr(found, n) for n in names}


def bits(nats: float, dimensions: int | None) -> str:
    """The same in bits per dimension, for whole numbers, after a comma; else nothing."""
    from ppdgm.diagnostics.bits import bits_per_dimension

    return f", {bits_per_dimension(nats, dimensions):.4f} bits/dim" if dimensions else ""


def name_of(program: AnyProgram) -> str:
    """The name of a program in a line of text, or in a folder's name."""
    return "pair" if hasattr(program, "data_plate") else type(program).__name__


def _criterion(fit: Fit) -> Criterion | None:
    return None if fit.engine is None else fit.engine.criterion()


def _test(fit: Fit, rows: Data, criterion: Criterion, weights: np.ndarray | None) -> dict[str, object]:
    """The ELBO of test data, or the mean of the engine's own criterion; with their weights, if they have some."""
    from ppdgm.inference.evaluation.estimates import with_weights
    from ppdgm.inference.evaluation.weighted import weighted_error, weighted_mean

    weights = None if weights is None or not weights.any() else weights
    if criterion.of is None:
        found = fit.elbo(rows)
        weights = weights if found.common is None else None  # rows that share a latent are no terms of a sum
        elbo = as_plain(with_weights(found, weights))
        return {"elbo": elbo, "n": len(found.values), "weighted": weights is not None}
    values = fit.criterion(rows)
    found_here = {"mean": weighted_mean(values, weights), "standard_error": weighted_error(values, weights)}
    return {criterion.name: found_here, "n": len(values), "weighted": weights is not None}


def _result(fit: Fit, out: Path, seconds: float) -> dict[str, object]:
    criterion = _criterion(fit)
    held = fit.history.get(criterion.key, ()) if criterion else ()
    validations = [float(v) for v in held if math.isfinite(v)]
    best = (min if criterion and criterion.smaller else max)(validations, default=None)
    return {
        "out": str(out),
        "program": name_of(fit.program),
        "engine": type(fit.engine).__name__,
        "backend": fit.backend,
        "data": fit.data.name if fit.data else None,
        "steps": fit.info["steps"],
        "skipped": fit.info["skipped"],
        "stopped": fit.stopped,
        "seconds": round(seconds, 3),
        "criterion": criterion.name if criterion else None,
        "validation": best,
        "validation_elbo": best if criterion and criterion.of is None else None,
        "dimensions": fit.info.get("dimensions"),
    }


def _tell_interrupted(out: Path) -> None:
    tell(f"ppdgm: interrupted. The progress so far is in {out}. To continue: ppdgm resume {shlex.quote(str(out))}")


def _say_summary(result: Table, place: str, criterion: Criterion | None, model: bool) -> None:
    ended = "" if result["stopped"] == "done" else f" ({result['stopped']})"
    say(f"Trained {result['program']} for {result['steps']} steps in {result['seconds']:.0f} s{ended}.")
    if result["validation_elbo"] is not None:
        value = result["validation_elbo"]
        say(f"Best validation ELBO  {value:.2f} nats per row{bits(value, result['dimensions'])}")
    elif result["validation"] is not None:
        say(f"Best validation {result['criterion']}  {result['validation']:.4g}")
    if "test" in result:
        rows = f"over {result['test']['n']} test rows{' by weight' if result['test']['weighted'] else ''}"
    if "test" in result and criterion is not None and criterion.of is not None:
        found = result["test"][criterion.name]
        error = f" ± {found['standard_error']:.2g}" if math.isfinite(found["standard_error"]) else ""
        better = "Lower" if criterion.smaller else "Higher"
        say(f"Test {criterion.name}  {found['mean']:.4g}{error}, {rows}")
        say(f"  {better} is better.")
    elif "test" in result:
        elbo = result["test"]["elbo"]
        error = f" ± {elbo['standard_error']:.2f}" if math.isfinite(elbo["standard_error"]) else ""
        also = bits(elbo["mean"], result["dimensions"])
        say(f"Test ELBO             {elbo['mean']:.2f}{error} nats per row{also}, {rows}")
        say("  The mean of log p(x) is at least this number. Higher is better.")
    say(f"The run is in {result['out']}. Next:")
    if model:
        say(f"  ppdgm evaluate {place}                  estimate its likelihood")
        say(f"  ppdgm sample {place} --out samples.png  draw from it")
    say(f"  ppdgm resume {place} --epochs N         train for longer")
