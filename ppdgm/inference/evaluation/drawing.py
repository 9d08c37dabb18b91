"""Arrays for a report's pictures: samples, reconstructions, traversals, interpolations, codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ppdgm.data import take
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.diagnostics.diagnosis import Pictures
from ppdgm.errors import PpdgmError
from ppdgm.inference.evaluation.codes import REACH, STEPS, Codes, codes_of, on_scale
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites, flat
from ppdgm.inference.evaluation.means import plain_means
from ppdgm.inference.evaluation.terms import Terms

if TYPE_CHECKING:
    from ppdgm.diagnostics.latents import LatentUse
    from ppdgm.diagnostics.weights import WeightQuality

SHOWN, WORST, PRIOR, ALONG, PAIRS = 64, 12, 2000, 10, 6
Value = TypeVar("Value")
Other = TypeVar("Other")


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
        if values := _or(lambda: codes_of(evaluator, every, shown), None):
            if use is not None:
                found |= _or(lambda: _along(values, prior, use, name), {})
            found["interpolations"] = _or(lambda: _interpolations(values, name), None)
    return Pictures(**found)


def _along(codes: Codes, prior: Sites, use: LatentUse, name: str) -> dict[str, np.ndarray | tuple[str, ...]]:
    """Decoded values along each of the most informative dimensions, from the first code."""
    ranked = sorted(
        ((by[d], s.name, int(d), unit) for s in use.sites
         if codes.movable(s.name) and s.name in prior and len(s.used) == codes.values[s.name][0].size
         for by, unit in [(s.kl, "nats") if s.kl is not None else (cast(np.ndarray, s.variance), "variance of means")]
         for d in s.by_kl[:ALONG]),
        reverse=True,
    )[:ALONG]  # fmt: skip
    steps = np.linspace(-REACH, REACH, STEPS)
    found = [codes.along(0, site, d, on_scale(prior[site], d, steps))[name] for _, site, d, _ in ranked]
    told = tuple(f"{site}[{d}] ({value:.2f} {unit})" for value, site, d, unit in ranked)
    return {"traversals": np.stack(found), "traversed": told, "steps": steps} if found else {}


def _interpolations(codes: Codes, name: str) -> np.ndarray:
    """Decoded values between codes 2i and 2i + 1."""
    share = np.linspace(0.0, 1.0, STEPS)
    found = [codes.between(2 * i, 2 * i + 1, share)[name] for i in range(min(PAIRS, len(codes.rows) // 2))]
    if not found:
        raise PpdgmError("interpolation needs the codes of two rows.")
    return np.stack(found)


def _or(function: Callable[[], Value], other: Other) -> Value | Other:
    """The function's result, or `other` if the program or the backend does not support it."""
    try:
        return function()
    except (PpdgmError, NotImplementedError):  # the libraries' sign for what a distribution does not have
        return other
