"""Latents at their means, and observed sites at their means given these; by draws if a mean is not known."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ppdgm.errors import NoMean, ProgramError
from ppdgm.inference.evaluation.chunks import SharedDraws

Sites = dict[str, np.ndarray]
Over = Callable[[Callable[[Any, np.ndarray, int], Sites], int], Sites]  # (of a chunk, rows) -> joined over data
DRAWS = 1000
ROWS, DRAWN_ROWS = 512, 50


def means_of_rows(runtime: Any, params: Any, over: Over, decode: bool = True) -> tuple[Sites, Sites]:
    """Latents [N, *event] at their means under the guide, and observed sites at theirs given these, [N, *event].

    If the mean of a latent of the guide is not known (a flow, a bounded latent), all latents are the means of `DRAWS`
    draws of the guide, and a warning shows their error.

    Args:
        runtime, params: of the program.
        over: joins the results for chunks of data.
        decode: whether observed sites are wanted.

    Raises:
        ProgramError: the means of draws are not finite; or the site is of whole numbers, and the mean is none of them.
    """

    def exact(data: Any, index: np.ndarray, i: int) -> Sites:
        latents, observed = runtime.means(params, data, index)
        return _named("q", latents) | _named("p", observed)

    try:
        found = over(exact, ROWS)
    except NoMean as error:
        found = _drawn(runtime, params, over, decode, error)
    pick = lambda role: {n[2:]: v[0] for n, v in found.items() if n[0] == role}
    return pick("q"), pick("p")


def _drawn(runtime: Any, params: Any, over: Over, decode: bool, reason: NoMean) -> Sites:
    draw = SharedDraws(runtime, params, DRAWS)
    errors: dict[str, float] = {}

    def of_chunk(data: Any, index: np.ndarray, i: int) -> Sites:
        drawn = draw(data, index, i * len(index))
        latents = {n: v.mean(0, keepdims=True, dtype=np.float64).astype(v.dtype) for n, v in drawn.items()}
        for n, v in drawn.items():
            worst = float(v.std(0, ddof=1, dtype=np.float64).max(initial=0.0)) / DRAWS**0.5
            errors[n] = max(errors.get(n, 0.0), worst)
            if decode:
                _check_between(n, v)
        return _named("q", latents) | (_named("p", runtime.seen_at(params, data, index, latents)) if decode else {})

    found = over(of_chunk, DRAWN_ROWS)
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
