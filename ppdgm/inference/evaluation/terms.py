"""Draws of the guide with their densities, and the aggregated posterior q(z) of all data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics import log_aggregated_of
from ppdgm.errors import ProgramError
from ppdgm.inference.evaluation.estimates import check_density
from ppdgm.inference.evaluation.evaluator import ROWS, Evaluator, Sites, memory_told
from ppdgm.inference.inputs.row_independence import ALIKE

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native


@dataclass(frozen=True)
class Terms:
    """Draws of the guide with their densities.

    Attributes:
        latents: [S, N, *event] by site.
        kl: closed forms, or log q − log p, of each site: [N, D], or [N].
        log_p, log_q: of the latents, [S, N].
        seen: log p(x|z), [S, N].
    """

    latents: Sites
    kl: Sites
    log_p: np.ndarray
    log_q: np.ndarray
    seen: np.ndarray


def read_terms(evaluator: Evaluator, draws: int) -> Terms:
    """Draws of the guide for all data, with their densities.

    Raises:
        ProgramError: latents that all rows share, enumerated ones, or none.
    """

    def read(data: Native, index: np.ndarray, i: int) -> Sites:
        trace = evaluator.runtime.trace(evaluator.params, data, index, draws, evaluator.stream("terms", i), None, True)
        check_density(trace)
        if trace.shared or trace.marginal is not None or not trace.log_q:
            raise ProgramError(
                "it needs a latent for each row, drawn by the guide, but this program has "
                + ("latents that all rows share." if trace.shared else "enumerated ones, or none.")
            )
        sites = list(trace.log_q)
        apart = {n: trace.log_q[n] - trace.log_p.get(n, 0.0) for n in sites}
        forms = {n: f.mean(0) if f.ndim == 3 else f for n, f in trace.kl.items()}
        each = {n: _rows(forms[n], len(index)) if n in forms else apart[n].mean(0) for n in sites}
        return {
            **{f"z/{n}": trace.values[n] for n in sites if n in trace.values},
            **{f"kl/{n}": v[None] for n, v in each.items()},
            "p": sum(trace.log_p.get(n, 0.0) for n in sites) + np.zeros_like(trace.log_q[sites[0]]),
            "q": sum(trace.log_q.values()),
            "x": sum((v for n, v in trace.log_p.items() if n not in sites), np.zeros_like(trace.log_q[sites[0]])),
        }

    found = evaluator.over(read, min(ROWS, max(1, ROWS * 4 // draws)))
    part = lambda name: {n.partition("/")[2]: v for n, v in found.items() if n.startswith(f"{name}/")}
    return Terms(part("z"), {n: v[0] for n, v in part("kl").items()}, found["p"], found["q"], found["x"])


def aggregated_log_density(evaluator: Evaluator, latents: Sites) -> np.ndarray:
    """log q(z) = log 1/N Σ_n q(z|x_n) at draws [S, N, *event], [S, N]."""
    first = next(iter(latents.values()))
    width = sum(int(np.prod(v.shape[2:])) for v in latents.values())
    chunk = int(np.clip(np.sqrt(evaluator.memory / (32 * max(width, 4))), 64, 1024))
    chunk = min(chunk, max(evaluator.size, 64))
    if fixed := evaluator.runtime.tracer.batch_size:
        chunk = fixed
    flat = {n: v.reshape(-1, *v.shape[2:]) for n, v in latents.items()}

    def log_density(draws: Mapping[str, np.ndarray], where: slice) -> np.ndarray:
        index = np.arange(where.start, where.start + chunk) % evaluator.size
        data, rows = evaluator.feed.rows(index)
        short = chunk - len(next(iter(draws.values())))  # one shape, so that nothing is compiled twice
        padded = {n: np.concatenate([v, np.repeat(v[:1], short, 0)]) for n, v in draws.items()}
        given = {n: v[:, None] for n, v in padded.items()}
        with memory_told():
            found: np.ndarray = evaluator.runtime.guide(evaluator.params, data, rows, given)
        return found[: chunk - short, : where.stop - where.start]

    def of_block(i: int) -> np.ndarray:
        block = {n: v[i * chunk : (i + 1) * chunk] for n, v in flat.items()}
        return log_aggregated_of(log_density, block, evaluator.size, chunk)

    about = "aggregated", evaluator.seed, evaluator.size
    blocks = evaluator.runtime.share.each(-(-first.shape[0] * first.shape[1] // chunk), of_block, about)
    return np.concatenate([*blocks]).reshape(first.shape[:2])


def prior_moves(evaluator: Evaluator, terms: Terms) -> bool:
    """Whether log p(z) depends on a row's other fields, as that of p(z|y) does; checked with other rows' fields."""
    if len(evaluator.fields) == 1 or not terms.latents:
        return False
    other = np.random.default_rng(evaluator.stream("other")).permutation(evaluator.size)
    for index in evaluator.indices(ROWS):
        data, rows = evaluator.feed.rows(other[index])
        given = {n: v[:1, index] for n, v in terms.latents.items()}
        with memory_told():
            trace = evaluator.runtime.trace(evaluator.params, data, rows, 1, 0, given, False)
        own, there = terms.log_p[0, index], sum(trace.log_p.get(n, 0.0) for n in trace.log_q)
        if (np.abs(there - own) > ALIKE * (1 + np.abs(own))).any():
            return True
    return False


def _rows(form: np.ndarray, size: int) -> np.ndarray:
    """[B, D], if a closed form has one row for all."""
    return np.broadcast_to(form, (size, *form.shape[1:]))
