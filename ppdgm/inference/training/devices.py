"""Whether a run can be divided among several devices: a step must be the step of one device."""

from __future__ import annotations

from ppdgm.errors import TrainingError
from ppdgm.inference.runs.settings import Training
from ppdgm.language.runtime import Runtime


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
    if batch_size % (unit := devices * pieces):
        each = f" and accumulate={pieces} pieces" if pieces > 1 else ""
        raise TrainingError(
            f"batch_size: got {batch_size}, expected a multiple of {unit}, because it is the number of "
            f"rows of all {devices} devices{each} together. Give "
            f"batch_size={-(-batch_size // unit) * unit}, or another multiple."
        )
