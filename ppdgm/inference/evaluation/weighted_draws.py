"""What is missing in rows, given what is there: draws of x from the model at weighted draws of the guide's latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.inference.engines import bounds
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.language import questions
from ppdgm.language.interpreter import Ask
from ppdgm.language.terms import terms
from ppdgm.language.tracer import ProgramTracer
from ppdgm.language.vocabulary import Array, Noise
from ppdgm.models.likelihoods import Table

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Runtime
    from ppdgm.language.tracer import Params

NUMBERS = 2**22  # of the draws that are made at a time


def completed(evaluator: Evaluator, likelihood: Table, k: int, draws: int, level: float) -> dict[str, np.ndarray]:
    """x at each entry, given the observed entries of its row, by self-normalised importance sampling.

    z_k ~ q(z|x_o), x_k ~ p(x|z_k), w_k ∝ p(x_o, z_k) / q(z_k|x_o). Mattei & Frellsen 2019, arXiv:1812.02633, eq. 12.

    Args:
        evaluator: of the program, at data with NaN for what is missing.
        likelihood: its likelihood.
        k: K.
        draws: S, the number of draws that are chosen among the K by their weights.
        level: of the intervals.

    Returns:
        "mean" Σ w_k E[x|z_k] [N, D], of a categorical column the class with the most weight; "draws" [S, N, D]; "low"
        and "high" [N, D], quantiles of x_k, NaN for categorical and binary columns.
    """
    width = len(likelihood.columns)

    def each(data: Native, index: np.ndarray, i: int) -> dict[str, np.ndarray]:
        seed = (evaluator.stream("impute", i), 0)
        at = evaluator.runtime.index(index)
        log_w, x, mean = evaluator.runtime.ask(_weighted, evaluator.params, seed, data, at, k=k)
        rng = np.random.default_rng(seed)
        return _summary(likelihood, np.asarray(log_w, np.float64), x, mean, draws, level, rng)

    found = evaluator.over(each, int(np.clip(NUMBERS // (k * width), 8, 512)))
    return {n: v if n == "draws" else v[0] for n, v in found.items()}


def _weighted(
    runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, k: int
) -> tuple[Array, Array, Array]:
    """log w [K, B], and draws and means of x at the latents, [K, B, D]."""
    tracer = cast(ProgramTracer, runtime.tracer)  # a plain pair has no likelihood
    ask = tracer.ask(params, noise, runtime.select(data, index), index.shape[0])
    guide = ask.run("guide", k, axes=None)
    trace = terms(guide, ask.run("model", k, guide.values, axes={}), False)
    drawn = questions.predictive(ask, guide.values) if guide.values else _alone(ask, k)
    at = ask.run("model", k, guide.values, choose="mean", generate=True)
    log_w, x = bounds.log_weights(trace, runtime.xp), drawn["x"]
    mean = x if at.summed else at.values["x"]
    wide = runtime.xp.broadcast_to
    return wide(log_w, x.shape[:2]), x, wide(mean, x.shape)


def _alone(ask: Ask, k: int) -> dict[str, Array]:
    """x drawn from a model without latents, such as an autoencoder's."""
    run = ask.run("model", k, generate=True)
    return {n: run.values[n] for n in run.observed}


def _summary(
    likelihood: Table,
    log_w: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    draws: int,
    level: float,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The mean, draws and quantiles of weighted draws [K, B, D]."""
    w = np.exp(log_w - log_w.max(0))
    w /= w.sum(0)
    centre = (w[..., None] * mean).sum(0)
    low, high = (np.empty_like(centre) for _ in range(2))
    for d, kind in enumerate(likelihood.kinds):
        if kind.kind == "categorical":
            votes = [(w * (x[..., d] == level)).sum(0) for level in range(kind.levels)]
            centre[:, d] = np.argmax(votes, axis=0)
        if kind.kind in ("categorical", "binary"):
            low[:, d] = high[:, d] = np.nan
            continue
        low[:, d], high[:, d] = _quantiles(x[..., d], w, ((1 - level) / 2, (1 + level) / 2))
    chosen = [rng.choice(len(w), draws, p=w[:, b]) for b in range(w.shape[1])]
    drawn = np.stack([x[index, b] for b, index in enumerate(chosen)], 1)
    return {"mean": centre[None], "low": low[None], "high": high[None], "draws": drawn}


def _quantiles(x: np.ndarray, w: np.ndarray, at: tuple[float, float]) -> list[np.ndarray]:
    """Quantiles of weighted draws [K, B], [B] each: the first draw below which at least this share of the weight is."""
    order = np.argsort(x, axis=0)
    total = np.cumsum(np.take_along_axis(w, order, 0), axis=0)
    index = [np.minimum((total < q).sum(0), len(x) - 1) for q in at]
    return [np.take_along_axis(np.take_along_axis(x, order, 0), i[None], 0)[0] for i in index]
