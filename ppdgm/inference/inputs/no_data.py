"""Engines that read no data, because they draw: the rows that stand for what they draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.data import Dataset
from ppdgm.errors import DataError, ProgramError, shown
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.engines.targets import ProgramTarget
from ppdgm.models.likelihoods.base import BadData

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data
    from ppdgm.program import AnyProgram


def reads_data(engine: Engine) -> bool:
    """Whether a phase of the engine needs data."""
    phases = engine.phases()
    return not phases or any(phase.engine.reads_data for phase in phases)


def rows_for(program: AnyProgram, engine: Engine, data: Data | Dataset | None, batch_size: int | None) -> Any:
    """The data; for an engine that reads none, the fields of a condition and rows in the place of x, which is drawn.

    Args:
        program, engine: of the run.
        data: that were given, or None.
        batch_size: of the run; the number of rows, if no field of a condition says it.

    Raises:
        DataError: there are data, and the engine reads none.
        ProgramError: x is not real.
    """
    if reads_data(engine):
        return data  # None is refused as other wrong data are
    kind = type(engine).__name__
    shape = getattr(program, "event_shape", None)
    if not isinstance(shape, tuple):
        raise DataError(
            f"data: {kind} draws x from the program, but {type(program).__name__} does not say its shape. Give the "
            "program a field event_shape: tuple[int, ...]."
        )
    fields = {} if data is None else data
    if not isinstance(fields, Mapping) or "x" in fields:
        raise DataError(
            f"data: got {shown(data) if not isinstance(fields, Mapping) else 'x'}, but {kind} draws x from the "
            "program, and reads no data. Leave data out; or give only the fields of its condition, by name."
        )
    size = len(next(iter(fields.values()))) if fields else batch_size or 100
    rows = {**fields, "x": np.random.default_rng(0).normal(size=(size, *shape)).astype("float32")}
    try:
        program.check(rows)
    except BadData as error:
        if error.name != "x":
            raise
        raise ProgramError(
            f"{kind} draws x with a gradient, which only real numbers have, but {type(program).__name__} draws x that "
            f"are {error.expected}. Use a density of real numbers, such as FlowModel."
        ) from None
    for phase in engine.phases():
        _check_teacher(program, getattr(phase.engine, "target", None), rows)
    return rows


def _check_teacher(program: AnyProgram, target: object, rows: Mapping[str, Any]) -> None:
    """Refuse a trained program as the target if it has no density of all real numbers.

    Raises:
        ProgramError: with what its density is of.
    """
    if not isinstance(target, ProgramTarget):
        return
    try:
        target.program.check(dict(rows))
    except BadData as error:
        if error.name != "x":
            raise
        raise ProgramError(
            f"target: {type(target.program).__name__} has a density of {error.expected}, but {type(program).__name__} "
            "draws any real numbers, also where that density is 0 or has no meaning. Use a teacher over real numbers, "
            "or a function of P and x that is −∞ elsewhere."
        ) from None
    except DataError as error:  # of a condition that the student does not have
        raise ProgramError(f"target: {type(target.program).__name__}, the teacher: {error}") from None
