"""Arrays for a report's pictures: samples, reconstructions, traversals, interpolations, codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ppdgm.data import take
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.diagnostics.diagnosis import Pictures
from ppdgm.errors import PpdgmError, ProgramError
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites, flat
from ppdgm.inference.evaluation.means import plain_means
from ppdgm.inference.evaluation.terms import Terms
from ppdgm.language import questions
from ppdgm.language.tracer import Params, ProgramTracer
from ppdgm.language.vocabulary import Array, Noise
from ppdgm.program import PlainPair

if TYPE_CHECKING:
    from ppdgm.diagnostics.latents import LatentUse
    from ppdgm.diagnostics.weights import WeightQuality
    from ppdgm.language.runtime import Native, Runtime

SHOWN, WORST, PRIOR, ALONG, STEPS, PAIRS = 64, 12, 2000, 10, 9, 6
Value = TypeVar("Value")
Other = TypeVar("Other")
REACH = 2.5  # standard deviations of the prior that a traversal extends to each side


def pictures(
    evaluator: Evaluator,
    terms: Terms | None,
    use: LatentUse | None,
    weights: WeightQuality | None,
    labels: np.ndarray | None,
) -> Pictures:
    """The arrays that a report draws; those that are not available for the program are left out."""
    every, observed = plain_means(evaluator)
    latents = {n: v for n, v in every.items() if len(v) == evaluator.size}  # without those that all rows share
    shown = some_rows(evaluator.size, SHOWN, evaluator.stream("shown"))
    field, name = _or(lambda: evaluator.shown(observed), (None, next(iter(observed), None)))
    odd = evaluator.without_meaning if latents else ()
    codes = {n: v for n, v in flat(latents).items() if n not in odd}
    found: dict[str, Any] = {"codes": codes, "labels": labels, "shown": shown}
    if name is not None:
        found["reconstructions"] = observed[name][shown]
        if field is not None:
            found["data"] = take(evaluator.feed.fields, shown)[field]
        if weights is not None and field is not None:
            worst = weights.worst(min(WORST, evaluator.size))
            found["worst"] = worst
            found["worst_data"] = take(evaluator.feed.fields, worst)[field]
            found["worst_reconstructions"] = observed[name][worst]
    if terms is not None:
        found["aggregated"] = {n: v[0] for n, v in flat(terms.latents, 2).items() if n not in odd}
    prior: Sites = _or(lambda: evaluator.simulated(PRIOR, evaluator.stream("prior codes"))[0], {})
    found["prior"] = flat(prior)
    if name is not None:
        found["samples"] = _or(lambda: evaluator.simulated(SHOWN, evaluator.stream("samples"), True)[1][name], None)
        if values := _or(lambda: _codes(evaluator, every, shown), None):
            if use is not None:
                found |= _or(lambda: _traversals(values, prior, use, name), {})
            found["interpolations"] = _or(lambda: _interpolations(values, name), None)
    return Pictures(**found)


@dataclass(frozen=True)
class _Codes:
    """Values of latents from which the observed sites of some rows can be decoded.

    Attributes:
        evaluator: of the program and its data.
        rows: indices, [n].
        values: by site, [n, *event], or [1, *event] for a latent that all rows share: means of the guide, and the most
            probable values of `discrete` sites.
        discrete: sites that have no values between theirs.
    """

    evaluator: Evaluator
    rows: np.ndarray
    values: Sites
    discrete: frozenset[str]

    def own(self, name: str) -> bool:
        """Whether each row has its own."""
        return len(self.values[name]) == len(self.rows)

    def at(self, j: int, count: int) -> Sites:
        """The code of the j-th row, `count` times."""
        return {n: np.repeat(v[j : j + 1], count, axis=0) if self.own(n) else v for n, v in self.values.items()}

    def decoded(self, sites: Sites, rows: np.ndarray, name: str) -> np.ndarray:
        """The mean of an observed site at latents, with the fields of these rows."""
        data, index = self.evaluator.feed.rows(rows)
        found: np.ndarray = self.evaluator.runtime.decoded(self.evaluator.params, data, index, self._given(sites))[name]
        return found[0]

    def scores(self, sites: Sites, rows: np.ndarray) -> Sites:
        """log p of each site of the model at latents, [n], with the fields of these rows."""
        runtime, (data, index) = self.evaluator.runtime, self.evaluator.feed.rows(rows)
        at = data, runtime.index(index), runtime.put(self._given(sites))
        found: Sites = runtime.ask(_scored, self.evaluator.params, None, *at)
        return {n: v[0] for n, v in found.items()}

    def _given(self, sites: Sites) -> Sites:
        to = self.evaluator.dtype
        return {n: v[None].astype(to if v.dtype.kind == "f" else v.dtype) for n, v in sites.items()}


def _codes(evaluator: Evaluator, latents: Sites, shown: np.ndarray) -> _Codes:
    """The codes of the rows that are shown.

    Raises:
        ProgramError: the values of discrete latents are not known: those of a plain pair, or beside a flow.
    """
    values = {n: v[shown] if len(v) == evaluator.size else v for n, v in latents.items()}
    data, index = evaluator.feed.rows(shown)
    drawn = evaluator.runtime.draws(evaluator.params, data, index, 4, evaluator.stream("codes"))
    discrete = frozenset(n for n, v in drawn.items() if n in values and (v == np.round(v)).all())
    if discrete and isinstance(evaluator.program, PlainPair):
        raise ProgramError("the means of a plain pair's discrete latents are none of their values.")
    if discrete:
        runtime = evaluator.runtime
        seen: Sites = runtime.ask(_seen, evaluator.params, None, data, runtime.index(index))
        values |= {n: seen[n][0] for n in discrete}
    return _Codes(evaluator, shown, values, discrete)


def _seen(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array) -> Native:
    tracer = cast(ProgramTracer, runtime.tracer)
    return questions.seen(tracer.ask(params, None, runtime.select(data, index), index.shape[0]))


def _scored(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native) -> Native:
    return runtime.tracer.model(params, runtime.select(data, index), index, given)


def _traversals(codes: _Codes, prior: Sites, use: LatentUse, name: str) -> dict[str, np.ndarray | tuple[str, ...]]:
    """Decoded values along each of the most informative dimensions, from the first code.

    The model's latents that depend on the dimension are at their means given it; the others stay as they are.
    """
    first, same = codes.at(0, STEPS), np.repeat(codes.rows[:1], STEPS)
    ranked = sorted(
        ((by[d], s.name, int(d), unit) for s in use.sites
         if s.name in prior and s.name in first and codes.own(s.name) and s.name not in codes.discrete
         and len(s.used) == first[s.name][0].size
         for by, unit in [(s.kl, "nats") if s.kl is not None else (cast(np.ndarray, s.variance), "variance of means")]
         for d in s.by_kl[:ALONG]),
        reverse=True,
    )[:ALONG]  # fmt: skip
    steps = np.linspace(-REACH, REACH, STEPS)
    found, told = [], []
    for value, site, d, unit in ranked:
        moved = first[site].reshape(STEPS, -1).copy()
        draws = prior[site].reshape(len(prior[site]), -1)[:, d]
        moved[:, d] = draws.mean() + steps * draws.std()
        sites = {**first, site: moved.reshape(first[site].shape)}
        scores = codes.scores(sites, same)
        follows = [n for n, v in scores.items() if n in sites and n != site and np.ptp(v) > 1e-6 * np.abs(v).max()]
        found.append(codes.decoded({n: v for n, v in sites.items() if n not in follows}, same, name))
        told.append(f"{site}[{d}] ({value:.2f} {unit})")
    return {"traversals": np.stack(found), "traversed": tuple(told), "steps": steps} if found else {}


def _interpolations(codes: _Codes, name: str) -> np.ndarray:
    """Decoded values on straight lines between codes 2i and 2i + 1; fields and classes are those of the nearer code."""
    share, found = np.linspace(0.0, 1.0, STEPS), []
    near = share <= 0.5
    if not any(codes.own(n) and n not in codes.discrete for n in codes.values):
        raise PpdgmError("there are no values between the codes of two rows.")
    for i in range(min(PAIRS, len(codes.rows) // 2)):
        one, other, between = codes.at(2 * i, STEPS), codes.at(2 * i + 1, STEPS), Sites()
        for n, v in one.items():
            weight = np.reshape(np.where(near, 0, 1) if n in codes.discrete else share, (-1, *(1,) * (v.ndim - 1)))
            between[n] = ((1 - weight) * v + weight * other[n]).astype(v.dtype) if codes.own(n) else v
        found.append(codes.decoded(between, np.where(near, codes.rows[2 * i], codes.rows[2 * i + 1]), name))
    if not found:
        raise PpdgmError("interpolation needs the codes of two rows.")
    return np.stack(found)


def _or(function: Callable[[], Value], other: Other) -> Value | Other:
    """The function's result, or `other` if the program or the backend does not support it."""
    try:
        return function()
    except (PpdgmError, NotImplementedError):  # the libraries' sign for what a distribution does not have
        return other
