"""An engine's criterion of each row, as validation computes it."""

from __future__ import annotations

import numpy as np

from ppdgm.inference.engines.criteria import Criterion, of_rows
from ppdgm.inference.evaluation.estimates import elbo_of_rows
from ppdgm.inference.evaluation.evaluator import Evaluator


def watched(evaluator: Evaluator, criterion: Criterion) -> np.ndarray:
    """The criterion of each row, [N]; the ELBO with one particle."""
    if criterion.of is None:
        return elbo_of_rows(evaluator, 1).values
    return evaluator.each_row(of_rows, criterion=criterion)
