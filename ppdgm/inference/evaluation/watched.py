"""An engine's criterion of each row, as validation computes it."""

from __future__ import annotations

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.inference.engines.criteria import Criterion, of_rows
from ppdgm.inference.evaluation.estimates import elbo_of_rows
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.row_independence import mixes_rows
from ppdgm.language.runtime import Runtime
from ppdgm.language.tracer import Params


def watched(evaluator: Evaluator, criterion: Criterion) -> np.ndarray:
    """The criterion of each row, [N]; the ELBO with one particle."""
    if criterion.of is None:
        return elbo_of_rows(evaluator, 1).values
    return evaluator.each_row(of_rows, criterion=criterion)


def check_of_each_row(runtime: Runtime, params: Params, feed: Feed, criterion: Criterion) -> None:
    """Refuse a criterion whose number of a row depends on the other rows: it would depend on where chunks end.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        feed: of the data.
        criterion: what is watched, other than the ELBO.

    Raises:
        ProgramError: with the criterion.
    """
    if mixes_rows(runtime, params, feed, of_rows, criterion=criterion):
        raise ProgramError(
            f"Criterion {criterion.name!r}: the number of a row changes when the other rows change, but rows are "
            "evaluated in chunks of any size, and the last chunk is filled up with other rows. Give evaluations a "
            "value of their own (P.batch_mean(…, otherwise=P.param(…))), or a criterion of each row; or leave "
            "validation data out."
        )
