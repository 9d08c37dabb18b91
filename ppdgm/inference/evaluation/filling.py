"""Missing entries filled in: by the weighted draws of a program with latents, or by a program's own `impute`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ppdgm.data import Prepared, enter
from ppdgm.data.frames import Frame, is_frame, without_column
from ppdgm.data.kinds import numbers
from ppdgm.errors import DataError
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.inference.evaluation.framed import framed
from ppdgm.inference.evaluation.gaps_in_data import without_gaps
from ppdgm.inference.evaluation.impute import imputed
from ppdgm.inference.evaluation.weighted_draws import completed
from ppdgm.inference.inputs.tables import table_of

if TYPE_CHECKING:
    from ppdgm.data import Transform
    from ppdgm.data.aliases import Codings, Data, Outward
    from ppdgm.language.vocabulary import Array
    from ppdgm.program import AnyProgram

K, OWN_DRAWS, LEVEL = 1000, 100, 0.9


@dataclass(frozen=True)
class Filling:
    """What `Fit.impute` is asked for: one draw, the mean, several draws, or an interval."""

    mean: bool = False
    draws: int | None = None
    interval: float | None = None
    k: int | None = None


class Filler(Protocol):
    """A `Fit`, whose file imports this one."""

    program: AnyProgram
    codings: Codings

    @property
    def transform(self) -> Transform | None: ...
    @property
    def _columns(self) -> tuple[str, ...]: ...
    @property
    def _row_names(self) -> str: ...
    def _evaluator(self, data: Data, seed: int = 0, memory: int | str = "auto", model: bool = True) -> Evaluator: ...
    def _outward(self, data: Data, evaluator: Evaluator) -> Outward: ...


def fill(fit: Filler, data: Data, missing: Array | Frame | None, seed: int, asked: Filling) -> list[Any]:
    """Data sets in which nothing is missing, in the units of the data: one, two ends of intervals, or several draws."""
    likelihood = table_of(fit.program)
    if likelihood is None:
        filled, where = without_gaps(data, missing, fit._columns, fit._row_names)
        evaluator = fit._evaluator(filled, seed)
        outward, many = fit._outward(filled, evaluator), OWN_DRAWS if asked.k is None else asked.k
        count = asked.draws or (many if asked.mean or asked.interval else 1)
        # seeds of draws are apart from those of other calls
        drawn = [imputed(replace(evaluator, seed=seed if not i else seed + 1_000_003 * i), where) for i in range(count)]
        whole = [framed(data, outward({"x": x}), fit._columns, fit._row_names) for x in _of_draws(drawn, asked)]
        return whole
    fields = dict(enter(fit.codings, data))
    if "x" not in fields:
        fit._evaluator(data)  # refuses them
    coding = getattr(fields["x"], "coding", None)
    x, where = with_gaps(np.asarray(numbers("x", fields["x"]), np.float64), missing, fit._columns, fit._row_names)
    evaluator = fit._evaluator({**fields, "x": Prepared(x, coding)} if coding is not None else {**fields, "x": x}, seed)
    level = LEVEL if asked.interval is None else asked.interval
    found = completed(evaluator, likelihood, asked.k or K, asked.draws or 1, level)
    chosen = (
        [found["low"], found["high"]]
        if asked.interval is not None
        else [found["mean"]]
        if asked.mean
        else list(found["draws"])
    )
    outward, table = fit._outward(data, evaluator), fit.transform.table if fit.transform else ()
    own = [outward({"x": np.where(where, value, x)}) for value in chosen]
    return [framed(data, each, fit._columns, fit._row_names, table) for each in own]


def with_gaps(
    x: np.ndarray, missing: Array | Frame | None, columns: tuple[str, ...], index: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Rows with NaN at all missing entries, and where these are, [N, D].

    Raises:
        DataError: nothing is missing, or `missing` has another type or shape.
    """
    gaps = np.isnan(x)
    if missing is None:
        if not gaps.any():
            raise DataError(
                "missing: got nothing, and x has no NaN. Say which entries are to be filled in: booleans, True for "
                "each, of the shape of a row or of x; or NaN in x."
            )
        return x, gaps
    if is_frame(missing):
        missing = numbers("missing", without_column(missing, index), columns).astype(bool)
    where = np.asarray(missing)
    if where.dtype != bool or where.shape not in (x.shape, x.shape[1:]):
        raise DataError(
            f"missing: got an array of {where.dtype} of shape {where.shape}, expected booleans of shape {x.shape[1:]} "
            f"for all rows, or {x.shape}: True for each entry that is to be filled in."
        )
    where = gaps | np.broadcast_to(where, x.shape)
    return np.where(where, np.nan, x), where


def _of_draws(drawn: list[np.ndarray], asked: Filling) -> list[np.ndarray]:
    """What was asked for, of draws [N, *event] each."""
    if asked.mean:
        return [np.mean(drawn, axis=0, dtype=np.float64).astype(drawn[0].dtype)]
    if asked.interval is not None:
        ends = (1 - asked.interval) / 2, (1 + asked.interval) / 2
        return [np.quantile(drawn, q, axis=0).astype(drawn[0].dtype) for q in ends]
    return drawn
