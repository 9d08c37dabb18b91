"""A likelihood without latents: independent columns, each with its own parameters, in closed form or by moments.

A decoder may start from it, and a model with latents has to beat it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from math import log, pi, sqrt

import numpy as np
from scipy.special import expit, gammaln, logit

from ppdgm.models.likelihoods.base import Likelihood
from ppdgm.models.likelihoods.bernoulli import Bernoulli
from ppdgm.models.likelihoods.categorical import Categorical
from ppdgm.models.likelihoods.continuous_bernoulli import ContinuousBernoulli
from ppdgm.models.likelihoods.counts import Counts, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from ppdgm.models.likelihoods.coupled import CoupledDiscretisedLogistics
from ppdgm.models.likelihoods.discretised import Discretised
from ppdgm.models.likelihoods.gaussian import Gaussian
from ppdgm.models.likelihoods.laplace import Laplace
from ppdgm.models.likelihoods.logistic import DiscretisedLogistic, MixtureOfDiscretisedLogistics
from ppdgm.models.likelihoods.rounding import Rounding
from ppdgm.models.likelihoods.table import Table
from ppdgm.models.likelihoods.table_columns import ColumnKind, outputs_of
from ppdgm.models.likelihoods.table_start import entries_there

FOLDS = 10
MOST = 10_000  #: the largest number of rows that a first output is computed from
_EDGE = 0.01  # how near to 0 and 1 a decoder's probabilities start: at 0 and 1 themselves a sigmoid has no gradient
_MOST_SLOPE = 500.0  # bound on the logit of a continuous Bernoulli


@dataclass(frozen=True)
class Columns:
    """Independent columns of one family.

    Attributes:
        log_prob: x [N, *event] -> log p of each number, [N, *event].
        head: the decoder's output that gives them, [*head].
    """

    log_prob: Callable[[np.ndarray], np.ndarray]
    head: np.ndarray


@singledispatch
def columns(likelihood: Likelihood, x: np.ndarray) -> Columns | None:
    """Independent columns of the likelihood's family, fitted to data [N, *event]; None if the family is not known."""
    return None


def held_out(likelihood: Likelihood, x: np.ndarray, seed: int = 0, folds: int = FOLDS) -> np.ndarray | None:
    """log p of each row under independent columns fitted to other folds, [N]; None if the family is not known."""
    x = np.asarray(x, np.float64)
    fold = np.random.default_rng(seed).permutation(len(x)) % min(folds, len(x))
    found = np.empty(len(x))
    for i in range(fold.max() + 1):
        mine = fold == i
        fitted = columns(likelihood, x[~mine]) if not mine.all() else None
        if fitted is None:
            return None
        found[mine] = fitted.log_prob(x[mine]).reshape(int(mine.sum()), -1).sum(1)
    return found


def first_output(likelihood: Likelihood, x: np.ndarray) -> np.ndarray | None:
    """The decoder's output that gives the data's columns, [*head], where gradients are not 0; None if not known."""
    rows = np.sort(np.random.default_rng(0).permutation(len(x))[:MOST])  # enough, whatever the order of the rows
    fitted = columns(likelihood, np.asarray(x[rows], np.float64))
    return None if fitted is None else fitted.head


@columns.register
def _(likelihood: Bernoulli, x: np.ndarray) -> Columns:
    p = (x.sum(0) + 0.5) / (len(x) + 1)
    return Columns(lambda x: x * np.log(p) + (1 - x) * np.log1p(-p), logit(np.clip(p, _EDGE, 1 - _EDGE)))


@columns.register
def _(likelihood: ContinuousBernoulli, x: np.ndarray) -> Columns:
    mean = np.clip(x.mean(0), 1e-6, 1 - 1e-6)
    low, high = np.full(mean.shape, -_MOST_SLOPE), np.full(mean.shape, _MOST_SLOPE)
    for _ in range(60):  # the mean rises with h
        h = 0.5 * (low + high)
        low, high = np.where(_mean_of(h) < mean, h, low), np.where(_mean_of(h) < mean, high, h)
    log_c = np.log(_stable(h) / np.tanh(0.5 * _stable(h)))
    log_p = lambda x: log_c - x * np.logaddexp(0, -h) - (1 - x) * np.logaddexp(0, h)
    return Columns(log_p, np.clip(h, logit(_EDGE), -logit(_EDGE)))


@columns.register
def _(likelihood: Gaussian, x: np.ndarray) -> Columns:
    loc = x.mean(0)
    scale = _scale(likelihood.scale, likelihood.min_scale, np.sqrt(np.mean((x - loc) ** 2, axis=0)), np.square, np.sqrt)
    return Columns(
        lambda x: -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * log(2 * pi), _rows(likelihood.scale, loc)
    )


@columns.register
def _(likelihood: Laplace, x: np.ndarray) -> Columns:
    loc = np.median(x, axis=0)
    same = lambda each: each
    scale = _scale(likelihood.scale, likelihood.min_scale, np.mean(np.abs(x - loc), axis=0), same, same)
    return Columns(lambda x: -np.abs(x - loc) / scale - np.log(2 * scale), _rows(likelihood.scale, loc))


@columns.register
def _(likelihood: Poisson, x: np.ndarray) -> Columns:
    mean = _mean_count(x)
    return Columns(lambda x: x * np.log(mean) - mean - gammaln(x + 1), _link(likelihood, mean))


@columns.register
def _(likelihood: NegativeBinomial, x: np.ndarray) -> Columns:
    """θ by moments, if it isn't fixed: μ + μ²/θ is the variance."""
    mean, kind = _mean_count(x), likelihood.inverse_dispersion
    over = np.maximum(x.var(0) - mean, 1e-6 * mean**2)
    each = np.maximum(mean**2 / over, max(likelihood.min_inverse_dispersion, 1e-3))
    size = _scale(kind, 0.0, each, np.log, np.exp)
    h, zero = _link(likelihood, mean), np.zeros(mean.shape)
    inflated = isinstance(likelihood, ZeroInflatedNegativeBinomial)
    rows = [h, *([zero - 4.0] if inflated else []), *([zero] if kind == "network" else [])]

    def log_p(x: np.ndarray) -> np.ndarray:
        chosen = gammaln(x + size) - gammaln(size) - gammaln(x + 1)
        return chosen - size * np.log1p(mean / size) - x * np.log1p(size / mean)

    return Columns(log_p, np.stack(rows) if len(rows) > 1 else h)


@columns.register
def _(likelihood: Categorical, x: np.ndarray) -> Columns:
    log_p = _level_shares(x, likelihood.levels)
    of = lambda x: np.take_along_axis(log_p, np.rint(x).astype(int), axis=0)
    return Columns(of, np.maximum(log_p, log(_EDGE / likelihood.levels)))


@columns.register
def _(likelihood: Rounding, x: np.ndarray) -> Columns:
    """Any distribution over the levels; the head is the middle of the mean's cell."""
    log_p = _level_shares(x, likelihood.levels)
    of = lambda x: np.take_along_axis(log_p, np.rint(x).astype(int), axis=0)
    return Columns(of, (x.mean(0) + 0.5) / likelihood.levels)


@columns.register
def _(likelihood: DiscretisedLogistic, x: np.ndarray) -> Columns:
    loc, scale = _logistic(x, likelihood.levels)
    scale = _scale(likelihood.scale, likelihood.min_scale, scale, np.square, np.sqrt)
    return Columns(lambda x: _log_mass(x, loc, scale, likelihood.levels), _rows(likelihood.scale, loc))


@columns.register
def _(likelihood: Discretised, x: np.ndarray) -> Columns | None:
    """Any distribution over the levels; the head is that of real numbers at the levels."""
    real = columns(likelihood.of, 2 * x / (likelihood.levels - 1) - 1)
    log_p = _level_shares(x, likelihood.levels)
    of = lambda x: np.take_along_axis(log_p, np.rint(x).astype(int), axis=0)
    return None if real is None else Columns(of, real.head)


@columns.register
def _(likelihood: MixtureOfDiscretisedLogistics, x: np.ndarray) -> Columns:
    """A single logistic, because it is a mixture too."""
    loc, scale = _logistic(x, likelihood.levels)
    scale, wide = np.maximum(scale, likelihood.min_scale), (likelihood.components, *loc.shape)
    head = np.stack([np.zeros(wide), np.broadcast_to(loc, wide), np.zeros(wide)])
    return Columns(lambda x: _log_mass(x, loc, scale, likelihood.levels), head)


@columns.register
def _(likelihood: CoupledDiscretisedLogistics, x: np.ndarray) -> Columns:
    """A single logistic for each number, without the coupling."""
    loc, scale = _logistic(x, likelihood.levels)
    scale = np.maximum(scale, np.exp(likelihood.min_log_scale))
    head = np.zeros(likelihood.head_shape(loc.shape))
    head[1], head[2] = loc, np.log(np.maximum(scale, 0.1))
    return Columns(lambda x: _log_mass(x, loc, scale, likelihood.levels), head)


@columns.register
def _(likelihood: Table, x: np.ndarray) -> Columns:
    """Each column by its own kind, from the entries that are there; a missing entry has the term 0."""
    parts = [_of_column(kind, x[:, d]) for d, kind in enumerate(likelihood.kinds)]

    def log_prob(x: np.ndarray) -> np.ndarray:
        found = np.zeros(x.shape)
        for d, part in enumerate(parts):
            there = ~np.isnan(x[:, d])
            found[there, d] = part.log_prob(x[there, d][:, None])[:, 0]
        return found

    widths = [outputs_of(k, likelihood.scale == "network") for k in likelihood.kinds]
    heads = [np.append(p.head.ravel(), np.zeros(w - p.head.size)) for p, w in zip(parts, widths, strict=True)]
    return Columns(log_prob, np.concatenate(heads))


def _of_column(kind: ColumnKind, values: np.ndarray) -> Columns:
    """One column [N] and its outputs: 0 for numbers, whose location is that of the data, and for ordered levels."""
    x = entries_there(values[:, None], 0, kind)[:, None]
    if kind.kind == "positive":
        of_log = columns(Gaussian(scale="per_dimension", min_scale=1e-6), np.log(x))
        assert of_log is not None
        return Columns(lambda x: of_log.log_prob(np.log(x)) - np.log(x), np.zeros(1))
    plain = {
        "binary": Bernoulli(),
        "count": NegativeBinomial(),
        "poisson": Poisson(),
        "ordinal": Categorical(levels=max(kind.levels, 2)),
        "categorical": Categorical(levels=max(kind.levels, 2)),
    }.get(kind.kind, Gaussian(scale="per_dimension", min_scale=1e-6))
    found = columns(plain, x)
    assert found is not None
    head = found.head.ravel() if kind.kind in ("binary", "categorical") else np.zeros(1)
    return Columns(found.log_prob, head)


def _level_shares(x: np.ndarray, levels: int) -> np.ndarray:
    """The log of each level's share of the rows, [levels, *event]."""
    counts = np.stack([(x == level).sum(0) for level in range(levels)])
    found: np.ndarray = np.log((counts + 0.5) / (len(x) + 0.5 * levels))
    return found


def _scale(
    kind: float | str, floor: float, each: np.ndarray, power: Callable[..., np.ndarray], root: Callable[..., np.ndarray]
) -> np.ndarray:
    """The scales of the columns: one for each, one for all, or the fixed number."""
    if not isinstance(kind, str):
        return np.full(each.shape, kind)
    return np.maximum(np.full(each.shape, root(power(each).mean())) if kind == "learned" else each, max(floor, 1e-6))


def _rows(kind: float | str, loc: np.ndarray) -> np.ndarray:
    """The head: locations, and with scale="network" a second row, zeros, for the scales."""
    return np.stack([loc, np.zeros(loc.shape)]) if kind == "network" else loc


def _mean_count(x: np.ndarray) -> np.ndarray:
    return (x.sum(0) + 0.5) / (len(x) + 1)  # not 0 even for a column of zeros


def _link(likelihood: Counts, mean: np.ndarray) -> np.ndarray:
    return np.log(mean) if likelihood.link == "exp" else mean + np.log(-np.expm1(-mean))


def _logistic(x: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale by moments, in units in which the levels span [−1, 1]."""
    c = 2 * x / (levels - 1) - 1
    return c.mean(0), np.maximum(c.std(0), 0.5 / (levels - 1)) * sqrt(3) / pi


def _log_mass(x: np.ndarray, loc: np.ndarray, scale: np.ndarray, levels: int) -> np.ndarray:
    half, c = 1 / (levels - 1), 2 * x / (levels - 1) - 1
    low = np.where(x == 0, -np.inf, (c - half - loc) / scale)
    high = np.where(x == levels - 1, np.inf, (c + half - loc) / scale)
    left = expit(high) - expit(low)
    return np.log(np.maximum(np.where(low > 0, expit(-low) - expit(-high), left), 1e-300))


def _stable(h: np.ndarray) -> np.ndarray:
    return np.where(np.abs(h) < 1e-4, 1e-4, h)


def _mean_of(h: np.ndarray) -> np.ndarray:
    """The mean of a continuous Bernoulli: 1/(1 − exp(−h)) − 1/h."""
    s = _stable(h)
    return np.where(np.abs(h) < 1e-4, 0.5, 0.5 / np.tanh(0.5 * s) + 0.5 - 1 / s)
