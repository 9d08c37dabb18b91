"""From a guide and a model that were read to the terms of a trace; and from named data to their arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

import jax.numpy as jnp

from ppdgm.backends.numpyro.enumerated import summed_terms
from ppdgm.backends.numpyro.sites import Message, PairRun, Site, is_local, without_plate
from ppdgm.backends.numpyro.vocabulary import as_draw, closed_form_kl
from ppdgm.errors import ProgramError, nearest
from ppdgm.language import mistakes, pair_terms
from ppdgm.language.mistakes import apart, check_sites, not_pathwise, scored_outside
from ppdgm.language.pair_terms import SiteReads
from ppdgm.language.points import is_discrete, points
from ppdgm.language.reader import Gradients
from ppdgm.language.terms import closed_forms
from ppdgm.language.vocabulary import Array, Batch, Trace


def arguments(what: str, fn: Callable[..., object], data: Batch) -> tuple[tuple[Array, ...], dict[str, Array]]:
    """How `fn` is called: with the array itself if x is the only field, else with the fields that it names."""
    signature = inspect.signature(fn)
    kinds = [p.kind for p in signature.parameters.values()]
    anything = inspect.Parameter.VAR_KEYWORD in kinds
    args, kwargs = (data["x"],) if list(data) == ["x"] else (), {}
    if not args:
        kwargs = {n: a for n, a in data.items() if anything or n in signature.parameters}
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ProgramError(
            f"The {what} is {getattr(fn, '__name__', what)}{signature}, but the data have the fields {', '.join(data)} "
            f"({error}). Give the fields the names of its arguments."
        ) from None
    return args, kwargs


def check_field_names(pair: Iterable[Callable[..., object]], data: Batch) -> None:
    """Refuse a field that neither function takes: most likely a mistake in its name."""
    signatures = [inspect.signature(fn).parameters for fn in pair]
    if list(data) == ["x"] or any(p.kind is p.VAR_KEYWORD for s in signatures for p in s.values()):
        return
    known = {n for s in signatures for n in s}
    if unknown := [n for n in data if n not in known]:
        raise ProgramError(
            f"Data field {unknown[0]!r}: neither the model nor the guide has an argument of this name. "
            f"{nearest(unknown[0], known)}"
        )


def check_pair(guide: PairRun, model: PairRun) -> None:
    """Refuse a guide and a model that do not draw the same sites."""
    latent = model.drawn()
    check_sites([n for n in guide.drawn() if n in latent or not guide.sites[n].auxiliary], latent)


def check_place(msg: Message, guide: Site, plate: str, others: list[str]) -> None:
    """Refuse a latent that is in one place in the model, and in another in the guide."""
    inside = any(f.name == plate for f in msg["cond_indep_stack"])
    if inside != (guide.axis is not None):
        raise apart(msg["name"], "model" if inside else "guide", f"numpyro.plate({plate!r}, x.shape[0])", others)
    there, here = tuple(guide.fn.batch_shape), tuple(msg["fn"].batch_shape)
    if not inside and there != here and len(there) > len(here):  # most likely without a plate
        raise without_plate(msg["name"], there, plate, others)


def check_pathwise(guide: PairRun, given: Iterable[str], gradients: Gradients) -> None:
    """Refuse, or note, draws through which no gradient flows."""
    scored = gradients.scored
    for name in guide.drawn():
        fn, site = guide.sites[name].fn, guide.sites[name]
        if gradients.walked and name not in given:
            mistakes.check_walked(name, fn, site.axis is not None)
        if name in given or name in guide.axes.sizes or fn.has_rsample:
            continue
        if scored is None:
            raise not_pathwise(name, fn)
        if site.axis is None:
            raise scored_outside(name, fn)
        scored.append(name)


def terms(guide: PairRun, model: PairRun, kl: bool, judged: bool = False) -> Trace:
    """The terms of one particle: per row [B], KL [B, D], shared []; `judged` as for `Site.log_prob`."""
    if model.axes.sizes:
        return summed_terms(guide, model, kl, judged)
    latent, forms = model.drawn(), _closed_forms(guide, model) if kl else {}
    reads = SiteReads(is_local, lambda s: s.log_prob(judged), Site.log_prob, Site.rows)
    return pair_terms.pair_trace(guide.sites, model.sites, latent, latent, reads, forms, judged, jnp)


def points_of(msg: Message, latent: bool) -> tuple[Array, Array]:
    """What is reported of a site at its mean, and what other sites see of it, in the shape of a draw."""
    fn = msg["fn"]
    told, seen = points(msg["name"], fn, latent)
    shape = fn.batch_shape + fn.event_shape
    told = jnp.broadcast_to(told, shape)
    return told, jnp.broadcast_to(as_draw(fn, seen), shape) if latent and is_discrete(fn) else told


def _closed_forms(guide: PairRun, model: PairRun) -> dict[str, Array]:
    q = {n: guide.sites[n].fn for n in guide.drawn()}
    p = {n: s.fn for n, s in model.sites.items()}
    sites, forms = guide.sites, closed_forms(q, p, model.drawn(), closed_form_kl)
    alone = {n: f for n, f in forms.items() if is_local(sites[n]) and not sites[n].inner}
    return {n: jnp.reshape(f, (sites[n].size, -1)) for n, f in alone.items()}
