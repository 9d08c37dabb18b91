"""Whether a run can be divided among several devices: a step must be the step of one device."""

from __future__ import annotations

import numpy as np

from ppdgm.errors import PpdgmError, TrainingError, explain, out_of_memory
from ppdgm.inference.engines.engine import Engine, hyperparameters_of
from ppdgm.inference.inputs.batches import Plan
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.runs.settings import Training
from ppdgm.language.runtime import Runtime
from ppdgm.language.shares import TRIED
from ppdgm.language.trainer import Trainer
from ppdgm.program import AnyProgram


def check_devices(training: Training, runtime: Runtime, batch_size: int) -> None:
    """Refuse devices that could not each have the same number of a minibatch's rows, or would have all of them.

    Args:
        training: the run's settings.
        runtime: of the program.
        batch_size: B, of all devices together.

    Raises:
        TrainingError: with the reason.
    """
    devices, pieces = runtime.share.devices, training.accumulate
    if devices == 1:
        return
    if runtime.tracer.subsamples:
        raise TrainingError(
            f"devices: got {training.devices!r}, but the program takes its minibatch out of all data by itself, so its "
            "rows can't be divided. Leave devices out, or write the plate over the rows that the program receives."
        )
    if runtime.share.processes == devices and batch_size == devices:
        raise TrainingError(
            f"batch_size: got {batch_size}, one row for each of the {devices} processes, expected at least two. Give "
            f"batch_size={2 * devices} or more."
        )
    if batch_size % (unit := devices * pieces):
        each = f" and accumulate={pieces} pieces" if pieces > 1 else ""
        raise TrainingError(
            f"batch_size: got {batch_size}, expected a multiple of {unit}, because it is the number of "
            f"rows of all {devices} devices{each} together. Give "
            f"batch_size={-(-batch_size // unit) * unit}, or another multiple."
        )


def check_divided(trainer: Trainer, feed: Feed, engine: Engine, program: AnyProgram) -> None:
    """Take a step of each phase on a few rows, divided and not; refuse a run whose steps differ.

    Args:
        trainer: at first values without zeros, which would hide what a step depends on.
        feed: of the data.
        engine: with the phases.
        program: for messages.

    Raises:
        PpdgmError: with the reason.
    """
    count, one = max(TRIED) * trainer.runtime.share.processes, np.zeros(1)
    data, index = feed.rows(np.arange(count) % feed.size)
    moved = {n: s(one).astype(np.float32) for n, s in trainer.runtime.tracer.schedules.items()}
    now, phase, weight = hyperparameters_of(engine, one), np.zeros(1, np.int32), np.ones((1, count), np.float32)
    try:
        trainer.check_divided(Plan(index[None], weight, one, now, 0, 1, phase, moved), data)
    except PpdgmError:
        raise
    except Exception as error:
        raise (out_of_memory(error) or explain(program, error)) from error


def check_resumed(runtime: Runtime) -> None:
    """Refuse to go on with a compiled run in several processes, which take their steps eagerly.

    Raises:
        TrainingError: there are several.
    """
    if runtime.share.processes > 1 and runtime.share.devices == runtime.share.processes and runtime.name == "pyro":
        raise TrainingError(
            "devices: the run was compiled with torch.compile, which several processes can't go on with, because its "
            "draws differ. Resume it on one device; a run that may move starts with compile=False."
        )
