"""Draws of the posterior: the guide's, resampled by their weights or not, or Markov chains that begin there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ppdgm.diagnostics import resample
from ppdgm.errors import DataError, ProgramError
from ppdgm.inference.evaluation.estimates import check_density
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites
from ppdgm.inference.evaluation.whole_set import draw_whole_set
from ppdgm.language.vocabulary import Array

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native

How = Literal["guide", "importance", "mcmc"]
HOW: tuple[str, ...] = get_args(How)
_OF_ROWS = "Draws of the posterior need a latent for each row, but this program has "
MOST_CHAINED = 1000  # rows for which chains are run, one row after another


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws of the posterior for each row.

    Attributes:
        latents: by site, [S, N, *event].
        statistics: of each draw, [S, N]: log-density of latents and data "lp", and other statistics of the sampler.
        chains: number of Markov chains that the S draws come from, chain after chain; 1 for independent draws.
        shared: latents that all rows share, [S, 1, *event]; then the statistics are of the whole set, [S].
        seen: log p(x|z), [S, N], if it is known.
    """

    latents: Sites
    statistics: Sites
    chains: int = 1
    shared: tuple[str, ...] = ()
    seen: np.ndarray | None = None


def draw_posterior(evaluator: Evaluator, draws: int, how: How, k: int, warmup: int, chains: int) -> PosteriorDraws:
    """Draws of the posterior.

    Args:
        evaluator: program and data.
        draws: S, per row; with chains, the draws of each chain.
        how: "guide", "importance" (q_IW, Cremer et al. 2017, arXiv:1704.02916), or "mcmc" (NUTS, Hoffman & Gelman
            2014, arXiv:1111.4246).
        k: K, draws of the guide that are resampled.
        warmup: of a chain.
        chains: per row.

    Raises:
        ProgramError: latents that all rows share, or that chains can't move.
    """
    if how == "mcmc":
        return _chained(evaluator, draws, warmup, chains)
    if shared := tuple(n for n in evaluator.one.shared if n in evaluator.one.values):
        return _of_all(evaluator, draws, k if how == "importance" else None, shared)
    if how == "importance":
        return _resampled(evaluator, draws, k)
    return _weighed(evaluator, draws)


def _of_all(evaluator: Evaluator, draws: int, k: int | None, shared: tuple[str, ...]) -> PosteriorDraws:
    """Draws of shared latents, and of each row's latents given these; resampled from K draws by the set's weights."""
    found = draw_whole_set(evaluator, k or draws, "posterior")
    if k is None:
        return PosteriorDraws(found.latents, {"log_weight": found.log_weight}, 1, shared, found.seen)
    taken = resample(found.log_weight[:, None], draws, evaluator.seed, 0)[:, 0]
    return PosteriorDraws({n: v[taken] for n, v in found.latents.items()}, {}, 1, shared, found.seen[taken])


def _trace(
    evaluator: Evaluator, data: Native, index: np.ndarray, k: int, seed: int
) -> tuple[Sites, np.ndarray, np.ndarray]:
    """Latents [K, B, *event], log p(x, z) and log q(z|x) [K, B]."""
    trace = evaluator.runtime.trace(evaluator.params, data, index, k, seed, None, False)
    check_density(trace)
    if trace.shared or trace.marginal is not None or not trace.log_q:
        raise ProgramError(_OF_ROWS + ("one that all rows share." if trace.shared else "enumerated ones, or none."))
    latents = {n: trace.values[n] for n in trace.log_q if n in trace.values}
    log_p: Array = sum(trace.log_p.values())
    log_q: Array = sum(trace.log_q.values())
    return latents, log_p, log_q


def _weighed(evaluator: Evaluator, draws: int) -> PosteriorDraws:
    def each(data: Native, index: np.ndarray, i: int) -> Sites:
        latents, p, q = _trace(evaluator, data, index, draws, evaluator.stream("posterior", i))
        return {f"z/{n}": v for n, v in latents.items()} | {"lp": p, "log_weight": p - q}

    return _parts(evaluator.over(each, max(1, 20_000 // draws)))


def _resampled(evaluator: Evaluator, draws: int, k: int) -> PosteriorDraws:
    rows = max(1, min(256, 200_000 // k))

    def each(data: Native, index: np.ndarray, i: int) -> Sites:
        latents, p, q = _trace(evaluator, data, index, k, evaluator.stream("posterior", i))
        taken = resample(p - q, draws, evaluator.seed, i * len(index))  # [S, B]
        column = np.arange(taken.shape[1])
        return {f"z/{n}": v[taken, column] for n, v in latents.items()} | {"lp": p[taken, column]}

    return _parts(evaluator.over(each, rows))


def _chained(evaluator: Evaluator, draws: int, warmup: int, chains: int) -> PosteriorDraws:
    if evaluator.size > MOST_CHAINED:
        raise DataError(
            f"how='mcmc' runs Markov chains for one row after another: got {evaluator.size} rows, expected at most "
            f"{MOST_CHAINED}. Give fewer rows, or use how='importance'."
        )
    names = list(evaluator.feed.fields)
    starts: list[tuple[Native, Sites]] = []
    for n in range(evaluator.size):
        one = evaluator.of({name: np.asarray(evaluator.feed.fields[name][n : n + 1]) for name in names})
        data, index = one.feed.rows(np.zeros(1, int))
        if n == 0:
            evaluator.runtime.check_walked(evaluator.params, data, index)
        start = evaluator.runtime.draws(evaluator.params, data, index, chains, evaluator.stream("starts", n))
        if not start:
            raise ProgramError(_OF_ROWS + "enumerated ones, or none.")
        _check_proper(evaluator, data, index, start, n)
        starts.append((data, {name: v[:, 0] for name, v in start.items()}))
    found: list[Sites] = []
    for n, (data, first) in enumerate(starts):
        got, about = evaluator.runtime.refine(
            evaluator.params, data, first, draws, warmup, evaluator.stream("chains", n)
        )
        joined = {f"z/{name}": v for name, v in got.items()} | dict(about)
        found.append({name: v.reshape(chains * draws, *v.shape[2:]) for name, v in joined.items()})
    return _parts({name: np.stack([f[name] for f in found], axis=1) for name in found[0]}, chains)


def _check_proper(evaluator: Evaluator, data: Native, index: np.ndarray, start: Sites, row: int) -> None:
    """Refuse a latent that log p(x, z) does not depend on: there a chain never turns, and its trees do not end.

    Args:
        evaluator: program and data.
        data, index: of the row.
        start: latents [chains, 1, *event].
        row: its number.

    Raises:
        ProgramError: with the site.
    """
    slopes = evaluator.runtime.joint(evaluator.params, data, index, start, np.asarray(1.0, evaluator.dtype))[2]
    for name, slope in slopes.items():
        if (slope == 0).all(axis=0).any():
            raise ProgramError(
                f"Site {name!r}: log p(x, z) does not depend on it for row {row}, perhaps because it is masked there "
                "(obs_mask= makes a latent of missing values, and masks it in rows that have a value). Markov chains "
                "would not end. Use how='importance', or give rows in which nothing is masked."
            )


def _parts(found: Sites, chains: int = 1) -> PosteriorDraws:
    latents = {n.removeprefix("z/"): v for n, v in found.items() if n.startswith("z/")}
    return PosteriorDraws(latents, {n: v for n, v in found.items() if not n.startswith("z/")}, chains)
