"""Arrays for a report's pictures: samples, reconstructions, traversals, interpolations, codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ppdgm.data import take
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.diagnostics.diagnosis import Pictures
from ppdgm.errors import PpdgmError
from ppdgm.inference.evaluation.evaluator import Sites, Subject, Terms, flat

SHOWN, WORST, PRIOR, ALONG, STEPS, PAIRS = 64, 12, 2000, 10, 9, 6
REACH = 2.5  # standard deviations of the prior that a traversal extends to each side


def pictures(subject: Subject, terms: Terms | None, use: Any, weights: Any, labels: np.ndarray | None) -> Pictures:
    """The arrays that a report draws; those that are not available for the program are left out."""
    latents, observed = subject.means()
    latents = {n: v for n, v in latents.items() if len(v) == subject.size}  # without those that all rows share
    shown = some_rows(subject.size, SHOWN, subject.stream("shown"))
    field, name = _or(lambda: subject.shown(observed), (None, next(iter(observed), None)))
    found: dict[str, Any] = {"codes": flat(latents), "labels": labels, "shown": shown}
    if name is not None:
        found["reconstructions"] = observed[name][shown]
        if field is not None:
            found["data"] = take(subject.feed.fields, shown)[field]
        if weights is not None and field is not None:
            worst = weights.worst(min(WORST, subject.size))
            found["worst"] = worst
            found["worst_data"] = take(subject.feed.fields, worst)[field]
            found["worst_reconstructions"] = observed[name][worst]
    if terms is not None:
        found["aggregated"] = {n: v[0] for n, v in flat(terms.latents, 2).items()}
    prior: Sites = _or(lambda: subject.simulated(PRIOR, subject.stream("prior codes"))[0], {})
    found["prior"] = flat(prior)
    if name is not None:
        some = {n: v[shown] for n, v in latents.items()}
        found["samples"] = _or(lambda: subject.simulated(SHOWN, subject.stream("samples"), True)[1][name], None)
        if use is not None:
            found |= _or(lambda: _traversals(subject, some, prior, use, name), {})
        found["interpolations"] = _or(lambda: _interpolations(subject, some, name), None)
    return Pictures(**found)


def _traversals(subject: Subject, latents: Sites, prior: Sites, use: Any, name: str) -> dict[str, Any]:
    """Decoded values along each of the most informative dimensions, from the first code; sites above are left out."""
    ranked = sorted(
        ((by[d], s.name, int(d), unit) for s in use.sites
         if s.name in prior and s.name in latents and len(s.used) == latents[s.name][0].size  # and not classes
         for by, unit in [(s.kl, "nats") if s.kl is not None else (s.variance, "variance of means")]
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
        rows.append(_decoded(subject, {site: every.reshape(codes.shape)}, name))
        told.append(f"{site}[{d}] ({value:.2f} {unit})")
    return {"traversals": np.stack(rows), "traversed": tuple(told), "steps": steps} if rows else {}


def _interpolations(subject: Subject, latents: Sites, name: str) -> np.ndarray:
    """Decoded values on straight lines between codes 2i and 2i + 1."""
    share, rows = np.linspace(0.0, 1.0, STEPS), []
    for i in range(min(PAIRS, len(next(iter(latents.values()))) // 2) if latents else 0):
        between = {}
        for n, v in latents.items():
            weight = share.reshape(-1, *(1,) * (v.ndim - 1))
            between[n] = ((1 - weight) * v[2 * i] + weight * v[2 * i + 1]).astype(v.dtype)
        rows.append(_decoded(subject, between, name))
    if not rows or not latents:
        raise PpdgmError("interpolation needs the codes of two rows.")
    return np.stack(rows)


def _decoded(subject: Subject, sites: Sites, name: str) -> np.ndarray:
    data, index = subject.feed.rows(np.zeros(len(next(iter(sites.values()))), int))
    given = {n: v[None].astype(subject.dtype) for n, v in sites.items()}
    found: np.ndarray = subject.runtime.decoded(subject.params, data, index, given)[name][0]
    return found


def _or(function: Callable[[], Any], other: Any) -> Any:
    """The function's result, or `other` if the program or the backend does not support it."""
    try:
        return function()
    except (PpdgmError, NotImplementedError):
        return other
