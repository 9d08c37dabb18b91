"""Missing numbers of x, drawn given the others, by a program's own function `impute`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.data import take
from ppdgm.errors import DataError, ProgramError, shown
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.language.tracer import ProgramTracer
from ppdgm.language.vocabulary import Array, Noise

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Runtime
    from ppdgm.language.tracer import Params


def imputed(evaluator: Evaluator, missing: object) -> np.ndarray:
    """x [N, *event] with missing numbers drawn.

    Args:
        evaluator: of the program, and of data whose missing numbers may be anything in the likelihood's support.
        missing: booleans, [*event] for all rows or [N, *event].

    Raises:
        ProgramError: the program has no `impute`.
        DataError: `missing` has another type or shape, or the program can't draw these numbers given the others.
    """
    program = evaluator.program
    if not callable(getattr(program, "impute", None)):
        raise ProgramError(
            f"{type(program).__name__} has no impute(self, P, x, missing), and its likelihood takes no missing "
            "entries. Use a program with likelihood=Table(), or AutoregressiveModel with a net of many orders, "
            "OrderAgnosticMADE."
        )
    x = evaluator.feed.fields["x"]
    found = np.array(x)
    where = np.asarray(missing)
    if where.dtype != bool or where.shape not in (x.shape, x.shape[1:]):
        got = f"an array of {where.dtype} of shape {where.shape}" if where.ndim else shown(missing)
        raise DataError(
            f"missing: got {got}, expected booleans of shape {x.shape[1:]} for all rows, or {x.shape}: True for each "
            "number that is to be drawn."
        )
    patterns, which = np.unique(np.broadcast_to(where, x.shape), axis=0, return_inverse=True)
    if check := getattr(program, "check_missing", None):
        for pattern in patterns:
            check(pattern)
    for i, pattern in enumerate(patterns):
        if pattern.any():
            rows = np.flatnonzero(which.reshape(-1) == i)
            padded = np.resize(rows, 1 << (len(rows) - 1).bit_length())  # each number of rows is compiled for
            part = evaluator.of(take(evaluator.feed.fields, padded))
            found[rows] = _of_pattern(part, pattern, evaluator.stream("impute", i))[: len(rows)]
    return found


def _of_pattern(evaluator: Evaluator, missing: np.ndarray, seed: int) -> np.ndarray:
    """x of rows in which the same numbers are missing."""
    runtime = evaluator.runtime
    at = runtime.put({"missing": missing})["missing"]

    def each(data: Native, index: np.ndarray, i: int) -> dict[str, np.ndarray]:
        return {"x": runtime.ask(_drawn, evaluator.params, (seed, i), data, runtime.index(index), at)[None]}

    return evaluator.over(each)["x"][0]


def _drawn(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, missing: Array) -> Array:
    tracer = cast(ProgramTracer, runtime.tracer)  # a plain pair has no such function
    rows = runtime.select(data, index)
    ask = tracer.ask(params, noise, rows, index.shape[0])
    return ask.run("impute", data={**rows, "missing": missing}).returned
