"""Arrays for a report's pictures: samples, reconstructions, traversals, interpolations, codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ppdgm.data import take
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.diagnostics.diagnosis import Pictures
from ppdgm.errors import PpdgmError
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites, flat
from ppdgm.inference.evaluation.means import plain_means
from ppdgm.inference.evaluation.terms import Terms

if TYPE_CHECKING:
    from ppdgm.diagnostics.latents import LatentUse
    from ppdgm.diagnostics.weights import WeightQuality

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
    latents, observed = plain_means(evaluator)
    latents = {n: v for n, v in latents.items() if len(v) == evaluator.size}  # without those that all rows share
    shown = some_rows(evaluator.size, SHOWN, evaluator.stream("shown"))
    field, name = _or(lambda: evaluator.shown(observed), (None, next(iter(observed), None)))
    found: dict[str, Any] = {"codes": flat(latents), "labels": labels, "shown": shown}
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
        found["aggregated"] = {n: v[0] for n, v in flat(terms.latents, 2).items()}
    prior: Sites = _or(lambda: evaluator.simulated(PRIOR, evaluator.stream("prior codes"))[0], {})
    found["prior"] = flat(prior)
    if name is not None:
        some = {n: v[shown] for n, v in latents.items()}
        found["samples"] = _or(lambda: evaluator.simulated(SHOWN, evaluator.stream("samples"), True)[1][name], None)
        if use is not None:
            found |= _or(lambda: _traversals(evaluator, some, prior, use, name), {})
        found["interpolations"] = _or(lambda: _interpolations(evaluator, some, name), None)
    return Pictures(**found)


def _traversals(
    evaluator: Evaluator, latents: Sites, prior: Sites, use: LatentUse, name: str
) -> dict[str, np.ndarray | tuple[str, ...]]:
    """Decoded values along each of the most informative dimensions, from the first code; sites above are left out."""
    ranked = sorted(
        ((by[d], s.name, int(d), unit) for s in use.sites
         if s.name in prior and s.name in latents and len(s.used) == latents[s.name][0].size  # and not classes
         for by, unit in [(s.kl, "nats") if s.kl is not None else (cast(np.ndarray, s.variance), "variance of means")]
         for d in s.by_kl[:ALONG]),
        reverse=True,
    )[:ALONG]  # fmt: skip
    steps = np.linspace(-REACH, REACH, STEPS)
    rows, told = [], []
    for value, site, d, unit in ranked:
        codes = np.repeat(latents[site][:1], STEPS, axis=0)
        every = codes.reshape(STEPS, -1).copy()
        draws = prior[site].reshape(len(prior[site]), -1)[:, d]
        every[:, d] = draws.mean() + steps * draws.std()
        rows.append(_decoded(evaluator, {site: every.reshape(codes.shape)}, name))
        told.append(f"{site}[{d}] ({value:.2f} {unit})")
    return {"traversals": np.stack(rows), "traversed": tuple(told), "steps": steps} if rows else {}


def _interpolations(evaluator: Evaluator, latents: Sites, name: str) -> np.ndarray:
    """Decoded values on straight lines between codes 2i and 2i + 1."""
    share, rows = np.linspace(0.0, 1.0, STEPS), []
    for i in range(min(PAIRS, len(next(iter(latents.values()))) // 2) if latents else 0):
        between = {}
        for n, v in latents.items():
            weight = share.reshape(-1, *(1,) * (v.ndim - 1))
            between[n] = ((1 - weight) * v[2 * i] + weight * v[2 * i + 1]).astype(v.dtype)
        rows.append(_decoded(evaluator, between, name))
    if not rows or not latents:
        raise PpdgmError("interpolation needs the codes of two rows.")
    return np.stack(rows)


def _decoded(evaluator: Evaluator, sites: Sites, name: str) -> np.ndarray:
    data, index = evaluator.feed.rows(np.zeros(len(next(iter(sites.values()))), int))
    given = {n: v[None].astype(evaluator.dtype) for n, v in sites.items()}
    found: np.ndarray = evaluator.runtime.decoded(evaluator.params, data, index, given)[name][0]
    return found


def _or(function: Callable[[], Value], other: Other) -> Value | Other:
    """The function's result, or `other` if the program or the backend does not support it."""
    try:
        return function()
    except (PpdgmError, NotImplementedError):  # the libraries' sign for what a distribution does not have
        return other
