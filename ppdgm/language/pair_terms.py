"""The rule for the terms of a plain pair: which of its sites' densities count in log p, in log q, and for all data."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ppdgm.language.elimination import Sums, Term
from ppdgm.language.points import point_masses
from ppdgm.language.vocabulary import Array, Dist, Namespace, Trace


class SiteLike(Protocol):
    """A backend's site."""

    @property
    def fn(self) -> Dist: ...
    @property
    def observed(self) -> bool: ...


Site = TypeVar("Site", bound=SiteLike)


@dataclass(frozen=True)
class SiteReads(Generic[Site]):
    """How a backend reads one site of a plain pair.

    Attributes:
        local: whether a site is inside the data plate.
        of_model, of_guide: a site's term in a run of the model, and of the guide.
        value: a site's value.
    """

    local: Callable[[Site], bool]
    of_model: Callable[[Site], Array]
    of_guide: Callable[[Site], Array]
    value: Callable[[Site], Array]


def pair_trace(
    guide: Mapping[str, Site],
    model: Mapping[str, Site],
    latent: Container[str],
    values: Iterable[str],
    reads: SiteReads[Site],
    forms: Mapping[str, Array],
    judged: bool,
    xp: Namespace,
) -> Trace:
    """The terms of a run of the guide, and of a run of the model at the guide's values.

    Args:
        guide, model: the runs' sites.
        latent: sites of the model that the guide draws.
        values: sites of the guide whose values are wanted.
        reads: reads a site.
        forms: closed-form KLs.
        judged: whether points of the guide are looked for.
        xp: array-API namespace.
    """
    log_p, log_q, p, q = _sorted(guide, model, latent, reads)
    log_p |= {n: xp.zeros_like(term) for n, term in log_q.items() if n not in log_p}
    shared = {n: p.get(n, 0.0) - q.get(n, 0.0) for n in {**p, **q}}
    points = _points(guide, model, {**log_q, **shared}) if judged else None
    return Trace({n: reads.value(guide[n]) for n in values}, log_p, log_q, dict(forms), shared, points=points)


def summed_trace(
    guide: Mapping[str, Site],
    model: Mapping[str, Site],
    latent: Container[str],
    values: Iterable[str],
    reads: SiteReads[Site],
    forms: Callable[[Sums], Mapping[str, Array]],
    judged: bool,
    sums: Sums,
    per_datum: Callable[[Term], Array],
    outside: Callable[[Term], Array],
) -> Trace:
    """The same, with enumerated sites summed out of the model, or averaged with the guide's probabilities.

    Args:
        guide, model, latent, values, judged: the same as for `pair_trace`.
        reads: the same, with terms as `Term`s.
        forms: closed-form KLs, averaged.
        sums: over the enumerated sites.
        per_datum: a term without the dimensions of enumerated sites.
        outside: the same for a term outside the data plate.
    """
    log_p, log_q, p, q = _sorted(guide, model, latent, reads)
    shared = dict(p)
    for n, term in q.items():
        shared[n] = Term((p[n].log_prob if n in p else 0.0) - term.log_prob, term.plates)
    sums.check_shared(shared)
    sums, log_p, log_q, marginal = sums.terms(log_p, log_q, [n for n, s in model.items() if s.observed])
    inside, around = {n: per_datum(t) for n, t in log_q.items()}, {n: outside(t) for n, t in shared.items()}
    return Trace(
        values={n: reads.value(guide[n]) for n in values},
        log_p={n: per_datum(t) for n, t in log_p.items()},
        log_q=inside,
        kl=dict(forms(sums)),
        shared=around,
        marginal=None if marginal is None else sum(per_datum(t) for t in marginal),
        points=_points(guide, model, {**inside, **around}) if judged else None,
    )


def _sorted(
    guide: Mapping[str, Site], model: Mapping[str, Site], latent: Container[str], reads: SiteReads[Site]
) -> tuple[dict[str, Array], ...]:
    """log p and log q of sites inside the data plate, and then of those outside.

    Whatever the guide scores besides the model's latents (auxiliary draws, factors) is part of log q: its own site with
    log p = 0.
    """
    log_p, log_q, outside_p, outside_q = dict[str, Array](), dict[str, Array](), dict[str, Array](), dict[str, Array]()
    for n, s in model.items():
        (log_p if reads.local(s) else outside_p)[n] = reads.of_model(s)
    for n, s in guide.items():
        own = n if n in latent or n not in model else f"{n} (guide)"
        (log_q if reads.local(s) else outside_q)[own] = reads.of_guide(s)
    return log_p, log_q, outside_p, outside_q


def _points(
    guide: Mapping[str, Site], model: Mapping[str, Site], found: Mapping[str, Array]
) -> dict[str, Array] | None:
    masses = point_masses(*({n: s.fn for n, s in sites.items()} for sites in (guide, model)))
    return {n: found[n] for n in masses} or None
