"""The inference gap of a few rows and its parts: what the guide loses, and what no guide of its family could gain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ppdgm.diagnostics.arrays import rounding
from ppdgm.diagnostics.diagnosis import Gaps
from ppdgm.errors import PpdgmError
from ppdgm.inference.evaluation.estimates import elbo_of_rows, log_weights_of_rows
from ppdgm.inference.evaluation.evaluator import Evaluator, quiet
from ppdgm.inference.evaluation.evidence import Evidence, evidence
from ppdgm.inference.evaluation.joint import ONCE, Joint, joint_of
from ppdgm.inference.evaluation.refit import TOGETHER, Family, refit

Score = Callable[[np.ndarray], np.ndarray]
DRAWS = 1000  # of the guide, for its ELBO, and of guide and prior, each, among those for log p(x)
WIDEST = 128  # number of latents, up to which a full covariance is fitted for log p(x)
MOST = 2**14  # numbers of a draw of all rows; above it there are fewer draws


def measure_gaps(
    few: Evaluator,
    index: np.ndarray,
    family: Family = "diagonal",
    steps: int = 400,
    temperatures: int = 200,
    num_leapfrog: int = 10,
) -> Gaps:
    """log p(x), the guide's ELBO, and that of the best Gaussian, row by row.

    Args:
        few: a program at the rows.
        index: of these among all rows.
        family: of the refitted Gaussian.
        steps: of its fit.
        temperatures: T of annealed importance sampling, if nothing else reaches log p(x): half of them are used,
            because it begins near the posterior.
        num_leapfrog: leapfrog steps at each.

    Raises:
        ProgramError: latents are not of each row, or not real.
    """
    joint, sites = joint_of(few)
    drawn, seed = joint.latents.flat(sites), few.seed
    best = refit(joint, drawn, family, steps, seed=seed)
    scored, log_guide = _scored(few, joint)
    guide, exact = _guide(few, joint, scored, log_guide)
    if exact.all():  # every log-weight is log p(x)
        found = Evidence(guide, np.zeros(few.size), exact)
    else:
        whole = best
        if family == "diagonal" and 1 < drawn.shape[2] <= WIDEST:
            whole = refit(joint, drawn, "full", steps, seed=seed + 1)
        half = max(1, temperatures // 2)
        found = evidence(
            joint, whole.posterior, scored, _dreamt(few, joint), log_guide, 2 * DRAWS, half, num_leapfrog, seed + 5
        )
    log_likelihood = np.where(exact, guide, found.values)
    errors = np.where(exact, 0.0, found.errors)
    return Gaps(index, log_likelihood, guide, best.elbo, family, errors, exact | found.known)


def _guide(few: Evaluator, joint: Joint, scored: np.ndarray | None, log_guide: Score) -> tuple[np.ndarray, np.ndarray]:
    """The guide's ELBO, by closed-form KLs or log-weights, whichever varies less, and where weights are constant."""
    closed = elbo_of_rows(replace(few, seed=few.seed + 4), DRAWS)
    if scored is None:
        weights = log_weights_of_rows(replace(few, seed=few.seed + 3), DRAWS)
    else:  # nothing more is compiled
        weights = np.concatenate([sum(joint(z)[:2]) - log_guide(z) for z in np.split(scored, len(scored) // TOGETHER)])
    with quiet():
        errors = weights.std(0, ddof=1) / np.sqrt(len(weights))
        exact = np.ptp(weights, axis=0) <= rounding(weights.astype(joint.dtype))  # in which they were computed
    return np.where(exact | (errors < closed.errors), weights.mean(0), closed.values), exact


def _scored(few: Evaluator, joint: Joint) -> tuple[np.ndarray | None, Score]:
    """Draws of the guide, and its log-density at any z; no draws if they can't be scored or are points."""

    def log_density(z: np.ndarray) -> np.ndarray:
        sites = joint.latents.sites(z, joint.dtype)
        found = few.runtime.guide(few.params, joint.data, joint.index, sites)
        return np.asarray(found, np.float64)

    number = _number(few, joint) // ONCE
    parts = [few.drawing(ONCE)(joint.data, joint.index, few.stream("scored", i)) for i in range(number)]
    drawn = np.concatenate([joint.latents.flat(part) for part in parts])
    try:
        log_density(drawn[:TOGETHER])
    except (PpdgmError, NotImplementedError):  # a flow that scores only its own draws
        return None, log_density
    return (drawn if (drawn.std(0) > 0).all() else None), log_density  # a point has no density


def _number(few: Evaluator, joint: Joint) -> int:
    return DRAWS if few.size * joint.latents.width <= MOST else ONCE


def _dreamt(few: Evaluator, joint: Joint) -> np.ndarray | None:
    """Draws of the prior for each row; None if it depends on other fields, or can't be drawn from."""
    if set(few.fields) != {"x"}:
        return None
    number = _number(few, joint)
    try:
        z, _ = few.simulated(number * few.size, few.stream("evidence"))
    except (PpdgmError, NotImplementedError):  # a plain pair
        return None
    return joint.latents.flat({n: v.reshape(number, few.size, *v.shape[1:]) for n, v in z.items()})
