"""Checks of what validation watches, and of settings that need it, before a run starts."""

from __future__ import annotations

import numpy as np

from ppdgm.errors import ProgramError, TrainingError
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.criteria import Criterion, of_rows
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.evaluation.watched import check_of_each_row
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.row_independence import stirred
from ppdgm.language.runtime import Runtime
from ppdgm.language.tracer import Params
from ppdgm.language.vocabulary import Trace
from ppdgm.program import has_model


def criterion_of(engine: Engine) -> Criterion | None:
    """What the engine's validation watches.

    Raises:
        ProgramError: its `criterion` returned something else.
    """
    found = engine.criterion()
    if not isinstance(found, Criterion | None):
        raise ProgramError(
            f"{type(engine).__name__}.criterion: got {type(found).__name__}, expected a Criterion, or None for none."
        )
    return found


def check_wanted(engine: Engine, criterion: Criterion | None, validation: object, early_stopping: int | None) -> None:
    """Refuse validation data and early stopping for an engine without a criterion, and early stopping without data.

    Args:
        engine: with the criterion.
        criterion: of the engine.
        validation: data, or None.
        early_stopping: patience, or None.

    Raises:
        TrainingError: with the argument.
    """
    if criterion is None and (validation is not None or early_stopping is not None):
        name = "early_stopping" if early_stopping is not None else "validation"
        raise TrainingError(
            f"{name}: got {early_stopping if early_stopping is not None else 'data'}, but {type(engine).__name__} has "
            "no criterion, so no number says which parameters are better. Leave it out; or give an engine of your own "
            "a method criterion()."
        )
    if early_stopping is not None and validation is None:
        raise TrainingError("early_stopping needs validation data. Give validation=…, or leave early_stopping out.")


def check_watchable(
    engine: Engine, criterion: Criterion, runtime: Runtime, params: Params, feed: Feed, rows: int, reading: Trace | None
) -> None:
    """Refuse a criterion that can't be computed for a program.

    Args:
        engine, criterion: what is watched.
        runtime: of the program.
        params: from `runtime.put`.
        feed: of the validation data.
        rows: number of rows to try.
        reading: of the program's model; None if it was not read.

    Raises:
        ProgramError: with the reason.
    """
    if criterion.of is not None:
        data, index = feed.rows(np.arange(rows) % feed.size)
        runtime.look(of_rows, params, data, runtime.index(index), criterion=criterion)
        first = stirred(runtime.fetch(params), runtime.tracer.labels)
        check_of_each_row(runtime, runtime.put(first), feed, criterion)
        return
    program = runtime.tracer.program
    if not has_model(program):
        raise ProgramError(
            f"validation: {type(engine).__name__} watches the ELBO, but {type(program).__name__} has no model. Leave "
            "validation data out; or give the engine a method criterion() that returns a Criterion, or None."
        )
    if reading is not None:
        bounds.reconstruction(reading, runtime.xp)  # refuses a model without observations
