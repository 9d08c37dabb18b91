"""Latents at their means, and observed sites at their means given these; by draws if a mean is not known."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.errors import NoMean, ProgramError
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites
from ppdgm.inference.evaluation.numbered import code_numbers
from ppdgm.language.turns import TURN

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native

DRAWS, DRAWN_ROWS = 1000, 50


def means_of_rows(evaluator: Evaluator, decode: bool = True, numbers: bool = False) -> tuple[Sites, Sites]:
    """Latents [N, *event] at their means under the guide, and observed sites at theirs given these, [N, *event].

    If the mean of a latent of the guide is not known (a flow, a bounded latent), all latents are the means of `DRAWS`
    draws of the guide, and a warning shows their error.

    Args:
        evaluator: of the program and its data.
        decode: whether observed sites are wanted.
        numbers: whether latents that the program says are `numbered` are returned as numbers of codes.

    Raises:
        ProgramError: the means of draws are not finite; or the site is of whole numbers, and the mean is none of them.
    """

    def exact(data: Native, index: np.ndarray, i: int) -> Sites:
        latents, observed = evaluator.runtime.means(evaluator.params, data, index)
        return _named("q", code_numbers(evaluator.program, latents) if numbers else latents) | _named("p", observed)

    try:
        found = evaluator.over(exact)
    except NoMean as error:
        found = _drawn(evaluator, decode, error)
    pick = lambda role: {n[2:]: v[0] for n, v in found.items() if n[0] == role}
    return pick("q"), pick("p")


def plain_means(evaluator: Evaluator) -> tuple[Sites, Sites]:
    """The same without a warning: the means of draws are good enough for pictures and variances."""
    with TURN, warnings.catch_warnings():  # filters are those of all threads
        warnings.simplefilter("ignore", UserWarning)
        return means_of_rows(evaluator)


def _drawn(evaluator: Evaluator, decode: bool, reason: NoMean) -> Sites:
    draw = evaluator.drawing(DRAWS)

    def of_chunk(data: Native, index: np.ndarray, i: int) -> Sites:
        drawn = draw(data, index, i * len(index))
        latents = {n: v.mean(0, keepdims=True, dtype=np.float64).astype(v.dtype) for n, v in drawn.items()}
        errors = {n: v.std(0, ddof=1, dtype=np.float64) / DRAWS**0.5 for n, v in drawn.items()}
        worst = {n: v.max(tuple(range(1, v.ndim)), initial=0.0)[None] for n, v in errors.items()}
        if decode:
            for n, v in drawn.items():
                _check_between(n, v)
        seen = evaluator.runtime.seen_at(evaluator.params, data, index, latents) if decode else {}
        return _named("q", latents) | _named("p", seen) | _named("e", worst)

    found = evaluator.over(of_chunk, DRAWN_ROWS)
    errors = {n[2:]: float(v.max()) for n, v in found.items() if n[0] == "e"}
    if bad := [n for n, e in errors.items() if not np.isfinite(e)]:
        raise ProgramError(f"{reason} The mean of {DRAWS:,} draws of {bad[0]!r} is not finite either.")
    told = ", ".join(f"{e:.2g} for {n!r}" for n, e in errors.items())
    warnings.warn(
        f"{reason} The latents are Monte Carlo means of {DRAWS:,} draws of the guide, with standard errors of at "
        f"most {told}.",
        stacklevel=4,
    )
    return found


def _check_between(name: str, draws: np.ndarray) -> None:
    """Refuse the mean of whole numbers: it is none of the site's values."""
    if np.isfinite(draws).all() and (draws == np.round(draws)).all():
        raise ProgramError(
            f"Site {name!r} has whole numbers, so the mean of draws is not one of its values, and another latent has "
            "no known mean. Decode draws of the guide instead: fit.posterior(x)."
        )


def _named(role: str, sites: Sites) -> Sites:
    return {f"{role}/{n}": v for n, v in sites.items()}
