"""A plain pair with enumerated sites: their posterior, and whether the pair's dimensions are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ppdgm.language.elimination import Sums, at_values, check_read
from ppdgm.language.pair_sites import Layout, Site
from ppdgm.language.vocabulary import Array

Sites = Mapping[str, Site]
Sizes = Mapping[str, int]


def sums_of(layout: Layout, guide: Sizes, every: Sizes) -> Sums:
    """Sums over enumerated sites; `guide` and `every` are those of the guide and of both, with their sizes."""
    return Sums.over(guide, every, layout.width, layout.xp, layout.logsumexp)


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
    xp, sums = layout.xp, sums_of(layout, {}, sizes)
    terms = {n: layout.in_run(s, sizes) for n, s in model.items() if layout.local(s)}
    total = lambda moved: sum(layout.per_datum(t).sum() for t in sums.log_total(terms, moved))
    shapes = {n: layout.shape(model[n], sizes[n], sums.own[n]) for n in sizes}
    slopes = layout.slopes(total, {n: layout.array(np.zeros(s), terms[n].log_prob) for n, s in shapes.items()})
    probabilities, best = {}, {}
    for n, p in slopes.items():
        site = model[n]
        p = xp.moveaxis(p, 0, -1).reshape((*shapes[n][-layout.width :], sizes[n]))
        probabilities[n] = layout.gather(site, p, 1)
        values = site.value.reshape((sizes[n], *site.fn.event_shape))
        at = values[xp.argmax(p, axis=-1)]
        spare = layout.width - min(layout.width, len(site.fn.batch_shape))
        best[n] = replace(site, value=at.reshape(at.shape[spare:]))
    return probabilities, best


def at_chosen(runs: Sites, layout: Layout, sizes: Sizes) -> tuple[dict[str, Site], dict[int, Array]]:
    """Latents at one value of each enumerated site, a different one in each place; and which values these are.

    Args:
        runs: all sites.
        layout: of the run.
        sizes: the enumerated sites, with their number of values.
    """
    rng, chosen = np.random.default_rng(0), dict[int, Array]()
    for n, axis in sums_of(layout, {}, sizes).own.items():
        shape = layout.shape(runs[n], sizes[n], axis)
        pick = rng.integers(sizes[n], size=shape[1:])
        chosen[axis] = layout.array(np.arange(sizes[n]).reshape(-1, *(1,) * (len(shape) - 1)) == pick, runs[n].value)
    held = {}
    for n, s in runs.items():
        if s.observed:
            continue
        events = len(s.fn.event_shape)
        value = at_values(s.value, chosen, layout.xp, events)
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
        one, other = (layout.in_run(site, sizes).log_prob for site in (s, alone[n]))
        one = at_values(one, chosen, layout.xp)
        check_read(n, *(layout.numbers(x.reshape(x.shape[-layout.width :])) for x in (one, other)))
