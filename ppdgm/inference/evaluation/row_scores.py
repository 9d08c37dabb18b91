"""Codes and scores of each row, as the columns of a table."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from ppdgm.data.frames import by_number
from ppdgm.errors import ProgramError
from ppdgm.inference.evaluation.estimates import log_likelihood_of_rows
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.inference.evaluation.means import means_of_rows
from ppdgm.models.likelihoods import Table


def scores_of_rows(evaluator: Evaluator, k: int) -> dict[str, np.ndarray]:
    """Columns [N]: codes such as "z[0]", "log_p" and its Monte Carlo "log_p_error", "rank", "reconstruction_error".

    Args:
        evaluator: of the program and its data.
        k: particles of log p(x).
    """
    latents, observed = means_of_rows(evaluator, numbers=True)
    found: dict[str, np.ndarray] = {}
    for name, value in latents.items():
        if len(value) == evaluator.size:
            found |= by_number(name, value)
    estimate = log_likelihood_of_rows(evaluator, k)
    order = np.argsort(estimate.values, kind="stable")
    rank = np.empty(evaluator.size, int)
    rank[order] = np.arange(1, evaluator.size + 1)
    found |= {"log_p": estimate.values, "log_p_error": estimate.errors, "rank": rank}
    if not latents:
        return found  # nothing is reconstructed
    with suppress(ProgramError):  # it is not known which site draws the data
        field, name = evaluator.shown(observed)
        if name in evaluator.masked or isinstance(evaluator.program.independent(), Table):
            return found  # numbers that are only filled in would count; or euros, days and numbers of classes add up
        both = observed[name], evaluator.feed.fields[field][:]
        seen, data = (np.asarray(a, float).reshape(evaluator.size, -1) for a in both)
        there = ~np.isnan(data)  # a row without any has no error: NaN
        squares = np.where(there, (seen - np.where(there, data, 0.0)) ** 2, 0.0).sum(1)
        with np.errstate(invalid="ignore"):
            found["reconstruction_error"] = squares / there.sum(1)
    return found
