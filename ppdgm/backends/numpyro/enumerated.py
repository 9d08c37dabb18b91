"""Per-row terms of a plain NumPyro pair with enumerated sites: exact sums over values (`language.elimination`)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ppdgm.backends.numpyro.sites import Axes, PairRun, Site, is_local
from ppdgm.backends.numpyro.vocabulary import closed_form_kl
from ppdgm.language import pair_terms
from ppdgm.language.elimination import Sums, Term, at_values, check_read
from ppdgm.language.pair_terms import SiteReads
from ppdgm.language.terms import closed_forms
from ppdgm.language.vocabulary import Array, Trace


def summed_terms(guide: PairRun, model: PairRun, kl: bool, judged: bool = False) -> Trace:
    """The result of `terms`, with enumerated sites summed out of the model, or averaged with the guide's probabilities.

    Values are [B, *axes of the guide's enumerated sites, *inner, *event].
    """
    latent, sums = model.drawn(), _sums(guide.axes, model.axes)

    def per_datum(term: Term) -> Array:
        """A term without the dimensions of enumerated sites, [B]."""
        x = term.log_prob
        return jnp.sum(x, [a for a in range(x.ndim) if a != x.ndim + term.plates[model.axes.plate]])

    reads = SiteReads(is_local, lambda s: _term(s, judged), _term, lambda s: s.rows(guide.axes))
    forms = lambda sums: _forms(guide, model, latent, sums) if kl else {}
    outside = lambda term: term.log_prob
    sites = guide.sites, model.sites
    return pair_terms.summed_trace(*sites, latent, latent, reads, forms, judged, sums, per_datum, outside)


def posteriors(model: PairRun) -> tuple[dict[str, Array], dict[str, Array]]:
    """For the model's enumerated sites: probabilities of their values given all else, and the most probable values.

    A probability is the derivative of log Σ p by a value's log p.

    Args:
        model: read at values of the guide's sites; these are not enumerated.

    Returns:
        Probabilities, [B, *inner, S]; and the most probable values, as draws.
    """
    plate, width, sizes = model.axes.plate, model.axes.width, model.axes.sizes
    sums, inside = _sums(Axes(plate), model.axes), {n: s for n, s in model.sites.items() if s.axis is not None}
    terms = {n: _term(s, False) for n, s in inside.items()}
    zeros = lambda n, axis: jnp.zeros(_shape(inside[n], sizes[n], -axis), terms[n].log_prob.dtype)
    moved = {n: zeros(n, axis) for n, axis in sums.own.items()}
    slopes = jax.grad(lambda x: sum(jnp.sum(t.log_prob) for t in sums.log_total(terms, x)))(moved)
    probabilities, best = {}, {}
    for n, p in slopes.items():
        site = inside[n]
        p = jnp.moveaxis(p, 0, -1).reshape(*p.shape[p.ndim - width :], -1)
        values = jnp.reshape(site.value, (sizes[n], *site.fn.event_shape))
        at = values[jnp.argmax(p, -1)]
        best[n] = jnp.reshape(at, at.shape[width - len(site.batch_shape) :])
        probabilities[n] = jnp.squeeze(site.laid_out(p, Axes(plate, width, {n: 1}), 1), 1)
    return probabilities, best


def at_chosen(guide: PairRun, model: PairRun) -> tuple[dict[str, Array], dict[int, Array]]:
    """Latents at one value of each enumerated site, a different one in each place; and which values these are."""
    axes, rng, chosen = model.axes, np.random.default_rng(0), dict[int, Array]()
    latent = {n: s for n, s in {**model.sites, **guide.sites}.items() if not s.observed}
    for n, axis in _sums(Axes(axes.plate), axes).own.items():
        shape = _shape(latent[n], axes.sizes[n], -axis)
        pick = rng.integers(axes.sizes[n], size=shape[1:])
        chosen[axis] = jnp.arange(axes.sizes[n]).reshape(-1, *(1,) * (len(shape) - 1)) == pick
    held = {}
    for n, s in latent.items():
        value = at_values(s.value, chosen, jnp, len(s.fn.event_shape)) if s.axis is not None else s.value
        spare = value.ndim - len(s.fn.event_shape) - len(s.batch_shape)
        held[n] = jnp.reshape(value, value.shape[max(0, spare) :])
    return held, chosen


def check_terms(enumerated: PairRun, alone: PairRun, width: int, chosen: Mapping[int, Array]) -> None:
    """Refuse a run whose terms at the chosen values differ from those of a run that is given these values."""
    for n, s in enumerated.sites.items():
        if s.axis is not None:
            one, other = at_values(_term(s).log_prob, chosen, jnp), _term(alone.sites[n]).log_prob
            check_read(n, *(np.asarray(x).reshape(x.shape[-width:]) for x in (one, other)))


def _sums(guide: Axes, every: Axes) -> Sums:
    return Sums.over(guide.sizes, every.sizes, every.width, jnp, jax.nn.logsumexp)


def _term(site: Site, judged: bool = False) -> Term:
    """A site's term as in the run, expanded over all its plates."""
    found = site.each(judged)
    if site.axis is None:  # it depends on nothing that is enumerated
        return Term(jnp.sum(found), {})
    return Term(jnp.broadcast_to(found, jnp.broadcast_shapes(jnp.shape(found), site.batch_shape)), site.plates)


def _forms(guide: PairRun, model: PairRun, latent: list[str], sums: Sums) -> dict[str, Array]:
    """Closed-form KLs, averaged over the guide's enumerated sites; none if p depends on a site that is summed out."""

    def form(q: Site, p: Site) -> Array | None:
        if q.axis is None or q.inner or p.inner:
            return None
        found = closed_form_kl(q.fn, p.fn)
        if found is None or sums.depends_on_own(found, 1):
            return None
        found = sums.expect(q.name, Term(found, q.plates), 1).log_prob
        return jnp.reshape(found, (q.size, -1))

    return closed_forms(guide.sites, model.sites, latent, form, sums.guide)


def _shape(site: Site, size: int, ndim: int) -> tuple[int, ...]:
    """The shape of an array with a number for each value of an enumerated site, in its plates."""
    shape = (size, *(1,) * (ndim - 1))
    return (*shape[: ndim - len(site.batch_shape)], *site.batch_shape)
