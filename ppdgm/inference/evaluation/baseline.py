"""The baseline for a model with latents: independent columns of the same likelihood, fitted to the other folds."""

from __future__ import annotations

from typing import cast

import numpy as np

from ppdgm.data import take
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.diagnostics.diagnosis import Baseline
from ppdgm.errors import PpdgmError, ProgramError
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.models.likelihoods import Bernoulli, Gaussian, Likelihood, NegativeBinomial
from ppdgm.models.likelihoods.columns import held_out

MOST_NUMBERS, DRAWN = 20_000_000, 200


def baseline_log_likelihood(evaluator: Evaluator) -> Baseline:
    """log p of data under independent columns, by folds.

    Raises:
        ProgramError: the likelihood isn't known, or has more than one field.
    """
    free = [n for n in evaluator.fields if n not in evaluator.conditions]
    if len(free) != 1 or free[0] not in evaluator.drawn_as:
        of = " and ".join(free) or "what the model computes from its fields"
        raise ProgramError(f"log p is the density of {of}; independent columns need one field that the model draws.")
    field = free[0]
    if evaluator.drawn_as[field] in evaluator.masked:
        raise ProgramError(
            f"site {evaluator.drawn_as[field]!r} is masked: log p covers only a part of the numbers in {field!r}."
        )
    own = evaluator.program.independent()
    if isinstance(own, Likelihood) and own.reads_exposure and "exposure" in evaluator.fields:
        raise ProgramError("independent columns of counts have no exposure.")
    width = max(1, int(np.prod(evaluator.feed.fields[field].shape[1:])))
    index = some_rows(evaluator.size, max(2, MOST_NUMBERS // width), evaluator.stream("baseline"))
    x = take(evaluator.feed.fields, index)[field]
    likelihood = cast(Likelihood | None, evaluator.program.independent()) or _like(evaluator, field, x)  # of parts, one
    values = held_out(likelihood, x.reshape(len(x), *x.shape[1:]), evaluator.seed) if len(x) > 1 else None
    if values is None:
        raise ProgramError(f"there is no model of independent columns for {type(likelihood).__name__}.")
    return Baseline(index, values)


def _like(evaluator: Evaluator, field: str, x: np.ndarray) -> Likelihood:
    """A likelihood for the same kind of numbers as the model draws: bits, counts or real numbers."""
    try:
        drawn = evaluator.simulated(DRAWN, evaluator.stream("kind"))[1][evaluator.drawn_as[field]]
    except PpdgmError:
        drawn = x  # of a plain pair, which whole numbers leave open: they may have a density too
        if (x == np.rint(x)).all():
            raise ProgramError("ppdgm does not know whether this pair's likelihood has a density.") from None
    if (drawn != np.rint(drawn)).any():
        return Gaussian(scale="per_dimension")
    if ((drawn == 0) | (drawn == 1)).all():
        return Bernoulli()
    if drawn.min() >= 0:
        return NegativeBinomial()
    raise ProgramError("ppdgm does not know the family of this program's likelihood.")
