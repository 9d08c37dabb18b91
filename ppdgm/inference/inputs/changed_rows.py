"""Whether an augmentation's results are data that a program can be trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ppdgm.data import Stream, take
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.errors import DataError, PpdgmError, ProgramError, TrainingError
from ppdgm.inference.inputs.feed import LOOKED
from ppdgm.language.augmenting import Augment
from ppdgm.language.tracer import Tracer

Fields = dict[str, np.ndarray]


def check_changes(tracer: Tracer, fields: Mapping[str, object]) -> None:
    """Refuse an augmentation where there are no rows of x in a step.

    Raises:
        DataError: there is no field x.
        TrainingError: the program takes its own minibatch.
    """
    if "x" not in fields:
        raise DataError(f"augment: changes the field 'x', but got fields {sorted(fields)}. Name the field 'x'.")
    if tracer.subsamples:
        raise TrainingError(
            "augment: the pair takes its minibatch itself, from all rows. Use a plate of the rows that it is given, or "
            "leave augment out."
        )


def changed_rows(
    augment_rows: Callable[[Augment, np.ndarray], np.ndarray],
    augment: Augment,
    fields: Mapping[str, np.ndarray | Stream],
) -> Fields:
    """At most 500 random rows as a training step changes them.

    Raises:
        ProgramError: the augmentation fails.
        DataError: its results are not finite.
    """
    size = len(next(iter(fields.values())))
    rows = {n: np.asarray(v) for n, v in take(fields, some_rows(size, LOOKED)).items()}
    try:
        x = augment_rows(augment, rows["x"])
    except PpdgmError as error:
        raise type(error)(str(error)) from None  # without JAX's note on its traces
    except Exception as error:
        told = (str(error) or "no message").splitlines()[0].rstrip(".")
        hint = " To mirror x, use P.xp.flip(x, axis=-1): torch has no x[:, ::-1]." if "step must be" in told else ""
        raise ProgramError(f"augment: {type(error).__name__}: {told}.{hint}") from error
    if not np.isfinite(x).all():
        raise DataError("augment: got numbers that are not finite, such as NaN. Return finite ones.")
    return {**rows, "x": x}
