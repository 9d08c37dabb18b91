"""Whether a minibatch can be split into pieces: a step of the pieces must be the step of the whole."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppdgm.errors import TrainingError
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.row_independence import mixing_function, mixing_penalty, stirred
from ppdgm.inference.inputs.stray_noise import noise_of
from ppdgm.language.runtime import Native, Runtime


def check_pieces(engine: Engine, fixed: int | None) -> None:
    """Refuse pieces if the engine moves the whole minibatch together, or the program fixes its size.

    Args:
        engine: of the run.
        fixed: B, if the program's own plate fixes it.

    Raises:
        TrainingError: with the reason.
    """
    together = [p.together for p in engine.phases() if p.together]
    if together:
        raise TrainingError(
            f"accumulate: {together[0]}, so pieces give another step than the whole minibatch. Leave accumulate out, "
            "and give a smaller batch_size."
        )
    if fixed is not None:
        raise TrainingError(
            f"accumulate: the program's own plate fixes the minibatch at {fixed} rows, so it can't be cut into "
            "pieces. Leave accumulate out, or give the plate a smaller subsample_size."
        )


def check_rows_apart(
    runtime: Runtime, first: Mapping[str, np.ndarray], feed: Feed, roles: list[str], data: Native, rows: int, read: bool
) -> None:
    """Refuse pieces if something of a row depends on the whole minibatch.

    Args:
        runtime: of the program.
        first: first values of the parameters.
        feed: of the data.
        roles: the functions of the program that the engine runs.
        data: on the device, of at least `rows` rows.
        rows: the number of rows to read.
        read: whether guide and model are among what is trained.

    Raises:
        TrainingError: with what depends on it.
    """
    native, tried = runtime.put(first), runtime.put(stirred(first, runtime.tracer.labels))
    if read:
        _check_state(runtime.batch_statistics(native, data, rows))
        mixed = mixing_penalty(runtime, first, feed)
        if mixed is not None and not noise_of(runtime, tried, feed):
            raise _in_pieces(f"penalty {mixed!r} of a row")
    elif runtime.tracer.state_names:
        _check_state(f"a module may change its buffer {min(runtime.tracer.state_names)!r} in each forward pass")
    others = [r for r in roles if r not in ("model", "guide")]
    if (role := mixing_function(runtime, tried, feed, others)) is not None:
        raise _in_pieces(f"what {role!r} returns for a row")


def check_whole(reasons: list[str]) -> None:
    """Refuse pieces if something needs the whole minibatch.

    Raises:
        TrainingError: with the first reason.
    """
    if reasons:
        raise TrainingError(
            f"accumulate: {reasons[0]}, which needs the whole minibatch, and would see one piece at a time, so pieces "
            "give another step. Leave accumulate out, and give a smaller batch_size."
        )


def _check_state(statistics: str | None) -> None:
    if statistics is not None:
        raise TrainingError(
            f"accumulate: {statistics}, and would see one piece at a time, so pieces give another step than the "
            "whole minibatch. Leave accumulate out, or use layer or group norm."
        )


def _in_pieces(what: str) -> TrainingError:
    return TrainingError(
        f"accumulate: {what} depends on the other rows of the minibatch, and would see one piece at a time: a step of "
        "pieces is not that of the whole. Leave accumulate out, or compute it from that row only."
    )
