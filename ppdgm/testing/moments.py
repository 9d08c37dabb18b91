"""Invariants of what a part gives in addition to its density: a closed-form KL, a mean, a most probable value."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from ppdgm.errors import ProgramError
from ppdgm.models import Likelihood, Posterior
from ppdgm.models.posteriors.base import CONTINUOUS
from ppdgm.testing.alone import LEVEL
from ppdgm.testing.broken import Broken, NotHere
from ppdgm.testing.part_case import PARTICLES, PartCase
from ppdgm.testing.wrappers import Alone, ObservedSite, Shown

KL_DRAWS = 20_000  #: number of draws for each row
LOC, SCALE = 0.3, 1.7  #: of the prior that a posterior is compared with
ROUNDING = 1e-8  #: relative error that counts as rounding
SCORED = 1_000  #: number of draws that must not be more probable than the mode


def kl_agrees(case: PartCase) -> str:
    """A closed-form KL agrees with the mean of log q − log p over draws (`parity` checks that backends agree on it)."""
    if case.one_way and case.alone is not None:
        raise NotHere("its draws alone can be scored")
    bench, data = case.bench(case.program, case.quick), case.data
    if isinstance(case.part, Posterior) and isinstance(case.alone, Alone) and case.alone.standard:
        # A prior without parameters that are 0 or 1, so that every term matters.
        bench = case.bench(case.alone.replace(loc=LOC, scale=SCALE), case.quick)
        data = {"x": case.heads}
    few = bench.trace(data, PARTICLES, None, True)
    if not few.kl or few.marginal is not None:
        raise NotHere("no closed form" if not few.kl else "sites are enumerated")
    terms, told = bench.trace(data, KL_DRAWS, None, True), []
    for name, form in terms.kl.items():
        apart = terms.log_q[name] - terms.log_p[name] - form.sum(-1)  # has mean 0, [K, B]
        size = 1.0 + np.abs(terms.log_q[name]).max()
        each, all_data = (
            _errors(apart, size),
            _errors(apart.mean(1), size),
        )  # rows are independent: their mean is more precise
        worst = max(float(each.max()), float(all_data))
        told.append(f"{worst:.1f} errors")
        if not worst <= norm.isf(LEVEL / 2 / (apart.shape[1] + 1)):
            raise Broken(
                f"closed-form KL of {name!r}: {form.sum(-1).mean():.4f} nats, but log q − log p has a mean of "
                f"{(apart + form.sum(-1)).mean():.4f} over draws, {worst:.1f} Monte Carlo errors away. Look at kl=… "
                "for a constant, or a term of p that is left out."
            )
    return f"within {', '.join(told)}"


def mean_agrees(case: PartCase, backend: str) -> str:
    """The mean agrees with the mean of draws."""
    part = case.part
    if getattr(part, "family", "real") not in CONTINUOUS:
        raise NotHere("what is discrete stands at its most probable value: see `mode`")
    if getattr(part, "mean_is_a_point", False):
        raise NotHere("what it gives for its mean is a point that stands for it")
    try:
        found, _ = _shown(case, backend)
    except ProgramError as error:
        if "has no mean" not in str(error):
            raise
        raise NotHere(str(error)) from None
    z, _ = case.draws(backend)
    errors = _errors(z - found, 1.0 + np.abs(found))
    allowed = norm.isf(LEVEL / 2 / errors.size)
    if not errors.max() <= allowed:
        worst = np.unravel_index(np.argmax(np.where(np.isfinite(errors), errors, np.inf)), errors.shape)
        raise Broken(
            f"the mean is {found[worst]:.4g}, but that of draws {z.mean(0)[worst]:.4g}, {errors[worst]:.1f} Monte "
            "Carlo errors away. Look at mean=…; where it is only a point that stands for the mean, the class says "
            "mean_is_a_point = True."
        )
    return f"within {errors.max():.1f} errors, of {allowed:.1f}"


def mode(case: PartCase, backend: str) -> str:
    """The mode of a discrete latent is its most probable value."""
    if isinstance(case.part, Likelihood) or getattr(case.part, "family", "real") in CONTINUOUS:
        raise NotHere("what is not discrete stands at its mean: see `mean`")
    assert case.alone is not None
    _, seen = _shown(case, backend)
    bench, heads = case.bench(case.alone, backend), {"x": case.heads}
    own, others = bench.score(heads, seen[None])[0], case.draws(backend)[1][:SCORED].max(0)
    if not (own >= others - ROUNDING * (1 + np.abs(others))).all():
        i = int(np.argmin(own - others))
        raise Broken(
            f"the mode has a log-probability of {own[i]:.4f}, but a draw one of {others[i]:.4f}. Look at mode=… (or, "
            "where there is none, mean=…), which stands for the latent wherever one value does."
        )
    return "as probable as any draw"


def _shown(case: PartCase, backend: str) -> tuple[np.ndarray, np.ndarray]:
    """The part's mean, and the value that other variables see, at each head: [HEADS, *shape]."""
    alone = case.alone
    assert alone is not None

    def look() -> tuple[np.ndarray, np.ndarray]:
        if isinstance(case.part, Likelihood) and isinstance(alone, Alone):
            seen = case.bench(ObservedSite(of=alone), backend).both({"x": case.heads})[1]["z"]
            return seen, seen
        found = case.bench(Shown(of=alone), backend).both({"x": case.heads})
        return found[0]["z"], found[1]["seen"]

    found: tuple[np.ndarray, np.ndarray] = case.once(("shown", backend), look)
    return found


def _errors(apart: np.ndarray, size: np.ndarray | float) -> np.ndarray:
    """By how many standard errors means over the first axis differ from 0: 0 for rounding, infinitely many for NaN."""
    off, error = np.abs(apart.mean(0)), apart.std(0, ddof=1) / len(apart) ** 0.5
    found: np.ndarray = np.where(off <= ROUNDING * size, 0.0, off / np.maximum(error, 1e-300))
    return np.where(np.isnan(found), np.inf, found)
