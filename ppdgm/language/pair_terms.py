"""The rule for the terms of a plain pair: which of its sites' densities count in log p, in log q, and for all data."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TypeVar

from ppdgm.language import mistakes, pair_mistakes
from ppdgm.language.elimination import Sums, Term
from ppdgm.language.pair_sites import Layout, Site
from ppdgm.language.pair_sums import Sites, Sizes, sums_of
from ppdgm.language.points import point_masses
from ppdgm.language.scales import constant_scales
from ppdgm.language.terms import closed_forms
from ppdgm.language.vocabulary import Array, Trace

Read = TypeVar("Read")  # an array, or a `Term`
_MISSING = "_unobserved"  # what obs_mask= makes of missing data ends so


def terms_of_pair(
    guide: Sites,
    model: Sites,
    layout: Layout,
    sizes: tuple[Sizes, Sizes] = ({}, {}),
    kl: bool = False,
    judged: bool = False,
) -> Trace:
    """The per-row terms of a run of the guide, and of a run of the model at the guide's values.

    Enumerated sites are summed out of the model, or averaged with the guide's probabilities.

    Args:
        guide, model: the runs' sites.
        layout: of the runs.
        sizes: sites that the guide enumerates, with their number of values, in order; and those of both functions,
            the guide's first.
        kl: whether to add closed-form KLs.
        judged: whether the log p of a latent is −∞ outside its support, and points of the guide are looked for.

    Returns:
        With the values of all latents of the guide, [K, B, *axes of its enumerated sites, *inner, *event].

    Raises:
        ProgramError: the two do not draw the same latent sites, or a site's dimensions do not fit its plates.
    """
    if sizes[1]:
        return _summed(guide, model, layout, sizes, kl, judged)
    latent, drawn = latents_of(guide, model)

    def term(site: Site, judged: bool = False) -> Array:
        found = layout.term(site, judged)
        return found if layout.local(site) else found[:, 0]

    forms = closed_forms(drawn, model, latent, layout.kl) if kl else {}
    log_p, log_q, p, q = _sorted(guide, model, latent, layout, lambda s: term(s, judged), term)
    log_p |= {n: layout.xp.zeros_like(t) for n, t in log_q.items() if n not in log_p}
    shared = {n: p.get(n, 0.0) - q.get(n, 0.0) for n in {**p, **q}}
    points = _points(guide, model, {**log_q, **shared}) if judged else None
    return Trace(_values(guide, layout, 0), log_p, log_q, forms, shared, points=points)


def _summed(guide: Sites, model: Sites, layout: Layout, sizes: tuple[Sizes, Sizes], kl: bool, judged: bool) -> Trace:
    sums = sums_of(layout, *sizes)
    latent, drawn = latents_of(guide, model, sums.own)
    of_model, of_guide = lambda s: layout.in_run(s, sizes[1], judged), lambda s: layout.in_run(s, sizes[0])
    log_p, log_q, p, q = _sorted(guide, model, latent, layout, of_model, of_guide)
    shared = dict(p)
    for n, term in q.items():
        shared[n] = Term((p[n].log_prob if n in p else 0.0) - term.log_prob, term.plates)
    sums.check_shared(shared)
    sums, log_p, log_q, marginal = sums.terms(log_p, log_q, [n for n, s in model.items() if s.observed])
    inside = {n: layout.per_datum(t) for n, t in log_q.items()}
    outside = {n: layout.per_datum(t)[:, 0] for n, t in shared.items()}
    return Trace(
        values=_values(guide, layout, len(sizes[0])),
        log_p={n: layout.per_datum(t) for n, t in log_p.items()},
        log_q=inside,
        kl=_averaged_forms(drawn, model, latent, layout, sums) if kl else {},
        shared=outside,
        marginal=None if marginal is None else sum(layout.per_datum(t) for t in marginal),
        points=_points(guide, model, {**inside, **outside}) if judged else None,
    )


def latents_of(guide: Sites, model: Sites, summed: Container[str] = ()) -> tuple[list[str], dict[str, Site]]:
    """The latent sites of the model that are not summed out of it; and the sites of the guide that draw them.

    Raises:
        ProgramError: the two do not draw the same sites; or the guide has a density where `obs_mask` leaves the model
            without one.
    """
    latent = [n for n, s in model.items() if not s.observed and n not in summed]
    drawn = {n: s for n, s in guide.items() if n in latent or not s.auxiliary}
    check_observes_nothing(guide)
    mistakes.check_sites(list(drawn), latent)
    for n in latent:
        if n.endswith(_MISSING) and model[n].masked and not drawn[n].masked:
            raise pair_mistakes.unmasked(n)
    return latent, drawn


def scales_of(
    guide: Sites, model: Sites, scale: Callable[[Site], float], enumerated: Iterable[str]
) -> dict[str, float]:
    """Constant scales of the user's own, without the part that plates explain; see `constant_scales`."""
    of_guide, of_model = ({n: scale(s) for n, s in sites.items()} for sites in (guide, model))
    latent = [n for n, s in model.items() if not s.observed and n in guide]
    return constant_scales(of_guide, of_model, latent, enumerated)


def check_observes_nothing(guide: Sites) -> None:
    """Refuse a guide that observes something; factors are allowed."""
    mistakes.check_unobserved(n for n, s in guide.items() if s.observed and not is_factor(s))


def is_factor(site: Site) -> bool:
    """Whether a site is a factor, which has no value."""
    return type(site.fn).__name__ == "Unit"


def _values(guide: Sites, layout: Layout, axes: int) -> dict[str, Array]:
    return {n: layout.value(s, axes) for n, s in guide.items() if not s.observed}


def _averaged_forms(drawn: Sites, model: Sites, latent: list[str], layout: Layout, sums: Sums) -> dict[str, Array]:
    """Closed-form KLs, averaged over the guide's enumerated sites; none if p depends on a site that is summed out."""

    def form(q: Site, p: Site) -> Array | None:
        found = layout.form(q, p)
        if found is None or sums.depends_on_own(found, 1):
            return None
        found = sums.expect(q.name, Term(found, q.plates), 1).log_prob
        return layout.gather(q, found.reshape(found.shape[-1 - layout.width :]), 1)

    return closed_forms(drawn, model, latent, form, sums.guide)


def _sorted(
    guide: Sites,
    model: Sites,
    latent: Container[str],
    layout: Layout,
    of_model: Callable[[Site], Read],
    of_guide: Callable[[Site], Read],
) -> tuple[dict[str, Read], ...]:
    """log p and log q of sites inside the data plate, and then of those outside.

    Whatever the guide scores besides the model's latents (auxiliary draws, factors) is part of log q: its own site with
    log p = 0.
    """
    log_p, log_q, outside_p, outside_q = dict[str, Read](), dict[str, Read](), dict[str, Read](), dict[str, Read]()
    for n, s in model.items():
        (log_p if layout.local(s) else outside_p)[n] = of_model(s)
    for n, s in guide.items():
        own = n if n in latent or n not in model else f"{n} (guide)"
        (log_q if layout.local(s) else outside_q)[own] = of_guide(s)
    return log_p, log_q, outside_p, outside_q


def _points(guide: Sites, model: Sites, found: Mapping[str, Array]) -> dict[str, Array] | None:
    masses = point_masses(*({n: s.fn for n, s in sites.items()} for sites in (guide, model)))
    return {n: found[n] for n in masses} or None
