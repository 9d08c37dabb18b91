"""Per-row terms of a plain Pyro pair with enumerated sites: exact sums over their values (`language.elimination`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import array_api_compat.torch as xp
import numpy as np
import torch

from ppdgm.backends.pyro.sites import PARTICLES, Layout, Site, latents
from ppdgm.language import pair_terms
from ppdgm.language.elimination import Sums, Term, at_values, check_read
from ppdgm.language.terms import closed_forms
from ppdgm.language.vocabulary import Array, Trace

Sites = Mapping[str, Site]
Sizes = Mapping[str, int]


def summed_terms(
    guide: Sites, model: Sites, layout: Layout, sizes: tuple[Sizes, Sizes], kl: bool, judged: bool = False
) -> Trace:
    """The result of `terms`, with enumerated sites summed out of the model, or averaged with the guide's probabilities.

    Args:
        guide, model: the runs' sites.
        layout: of the runs.
        sizes: sites that the guide enumerates, with their number of values, in order; and those of both functions,
            the guide's first.
        kl, judged: the same as for `terms`.
    """
    sums = _sums(layout, *sizes)
    latent, drawn = latents(guide, model, sums.own)
    reads = pair_terms.SiteReads(
        layout.local,
        lambda s: _term(s, layout, sizes[1], judged),
        lambda s: _term(s, layout, sizes[0]),
        lambda s: layout.value(s, len(sizes[0])),
    )
    values = [n for n, s in guide.items() if not s.observed]
    forms = lambda sums: _forms(drawn, model, latent, layout, sums) if kl else {}
    outside = lambda term: layout.per_datum(term)[:, 0]
    return pair_terms.summed_trace(guide, model, latent, values, reads, forms, judged, sums, layout.per_datum, outside)


def _term(site: Site, layout: Layout, sizes: Sizes, judged: bool = False) -> Term:
    """A site's term as in the run, expanded over all its plates."""
    found = layout.log_prob(site, judged)
    plates = {n: f.dim for n, f in site.frames.items() if n != PARTICLES and f.dim is not None}
    layout.check_axes(site, tuple(found.shape), sizes)
    full = [1] * layout.width
    for n, dim in plates.items():
        full[dim] = site.frames[n].size
    return Term(found.broadcast_to(torch.broadcast_shapes(found.shape, full)), plates)


def _forms(drawn: Sites, model: Sites, latent: list[str], layout: Layout, sums: Sums) -> dict[str, Array]:
    """Closed-form KLs, averaged over the guide's enumerated sites; none if p depends on a site that is summed out."""

    def form(q: Site, p: Site) -> Array | None:
        found = layout.form(q, p)
        if found is None or sums.depends_on_own(found, 1):
            return None
        plates = {n: f.dim for n, f in q.frames.items() if n != PARTICLES}
        found = sums.expect(q.name, Term(found, plates), 1).log_prob
        return layout.gather(q, found.reshape(found.shape[-1 - layout.width :]), 1)

    return closed_forms(drawn, model, latent, form, sums.guide)


def posteriors(model: Sites, layout: Layout, sizes: Sizes) -> tuple[dict[str, Array], dict[str, Site]]:
    """For the model's enumerated sites: probabilities of their values given all else, and the most probable values.

    A probability is the derivative of log Σ p by a value's log p.

    Args:
        model: its run's sites, at values of the guide's sites; these are not enumerated.
        layout: of the run.
        sizes: the enumerated sites, with their number of values.

    Returns:
        Probabilities, [1, B, *inner, S]; and the sites at their most probable values.
    """
    sums, terms = _sums(layout, {}, sizes), {n: _term(s, layout, sizes) for n, s in model.items() if layout.local(s)}
    moved = {n: terms[n].log_prob.new_zeros(_shape(n, model, layout, sums), requires_grad=True) for n in sizes}
    with torch.enable_grad():
        total = sum(layout.per_datum(t).sum() for t in sums.log_total(terms, moved))
        slopes = dict(zip(sizes, torch.autograd.grad(total, list(moved.values())), strict=True))
    probabilities, best = {}, {}
    for n, p in slopes.items():
        p = p.movedim(sums.own[n], -1).reshape(*moved[n].shape[-layout.width :], sizes[n])
        probabilities[n] = layout.gather(model[n], p, 1)
        values = model[n].value.reshape(sizes[n], *model[n].fn.event_shape)
        spare = layout.width - min(layout.width, len(model[n].fn.batch_shape))
        at = values[p.argmax(-1)]
        best[n] = replace(model[n], value=at.reshape(at.shape[spare:]))
    return probabilities, best


def at_chosen(runs: Sites, layout: Layout, sizes: Sizes) -> tuple[dict[str, Site], dict[int, Array]]:
    """Latents at one value of each enumerated site, a different one in each place; and which values these are.

    Args:
        runs: all sites.
        layout: of the run.
        sizes: the enumerated sites, with their number of values.
    """
    rng, sums, chosen = np.random.default_rng(0), _sums(layout, {}, sizes), dict[int, Array]()
    for n, axis in sums.own.items():
        shape = _shape(n, runs, layout, sums)
        pick = torch.as_tensor(rng.integers(sizes[n], size=shape[1:]), device=runs[n].value.device)
        chosen[axis] = torch.arange(sizes[n], device=pick.device).reshape(-1, *(1,) * (len(shape) - 1)) == pick
    held = {}
    for n, s in runs.items():
        if s.observed:
            continue
        events = len(s.fn.event_shape)
        value = at_values(s.value, chosen, xp, events)
        native = min(layout.width, len(s.fn.batch_shape))
        held[n] = replace(s, value=value.reshape(value.shape[max(0, value.ndim - events - native) :]))
    return held, chosen


def check_terms(enumerated: Sites, alone: Sites, layout: Layout, sizes: Sizes, chosen: Mapping[int, Array]) -> None:
    """Refuse a program that confuses the dimension of an enumerated site with another.

    Args:
        enumerated: sites of a run with all values at once.
        alone: the same sites of a run that is given the chosen values.
        layout, sizes, chosen: the same as for `at_chosen`.
    """
    for n, s in enumerated.items():
        one, other = (_term(site, layout, sizes).log_prob for site in (s, alone[n]))
        one = at_values(one, chosen, xp)
        check_read(n, *(x.detach().reshape(x.shape[-layout.width :]).cpu().numpy() for x in (one, other)))


def _sums(layout: Layout, guide: Sizes, every: Sizes) -> Sums:
    return Sums.over(guide, every, layout.width, xp, torch.logsumexp)


def _shape(name: str, model: Sites, layout: Layout, sums: Sums) -> list[int]:
    """The shape of an array with a number for each value of an enumerated site, in its plates."""
    shape = [1] * -sums.own[name]
    shape[0] = len(model[name].value)
    for n, frame in model[name].frames.items():
        if n != PARTICLES and frame.dim is not None:
            shape[frame.dim] = frame.size
    return shape
