"""The terms of each site: from a run of the guide and a run of the model to a `Trace`."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from ppdgm.language import enumeration, mistakes
from ppdgm.language.implicit import check_densities
from ppdgm.language.interpreter import DirectInterpreter
from ppdgm.language.points import point_masses
from ppdgm.language.scan import closed_form_over_time
from ppdgm.language.steps import check_masks, valid_order
from ppdgm.language.vocabulary import Array, Dist, Trace


def terms(guide: DirectInterpreter, model: DirectInterpreter, kl: bool) -> Trace:
    """The terms of a run of the guide, and a run of the model at the guide's values.

    Raises:
        ProgramError: the two do not draw the same latent sites.
    """
    P, reader, own = model.P, guide.reader, [n for n in model.axes if n not in guide.axes]
    latent = [n for n in model.dists if n not in model.observed and n not in own]
    mistakes.check_sites(list(guide.dists), latent)
    check_densities(guide.dists, latent)
    check_densities(model.dists, model.dists)
    check_masks(guide.dists, model.dists, reader.same)
    local = [n for n in latent if n not in model.shared]
    for name in latent:  # with one row their shapes show nothing
        if (name in guide.shared) != (name in model.shared):
            raise mistakes.apart(name, "guide" if name in model.shared else "model")
    if reader.gradients and not kl:
        mistakes.check_relaxed(guide.dists)
    log_p = {n: v for n, v in model.log_prob.items() if n not in model.shared}
    log_q = {n: guide.log_prob[n] for n in local}
    form = lambda q, p: closed_form_over_time(q, p, reader)
    forms = closed_forms(guide.dists, model.dists, local, form, guide.axes) if kl else {}
    for name in local:
        if (estimate := _of_codes(name, guide, model, kl)) is not None:
            forms[name] = estimate
    for name, value in model.penalties.items():
        mistakes.check_new_penalty(name, value, guide.penalties)
    penalties, marginal = {**guide.penalties, **model.penalties}, None
    if own:
        mistakes.check_penalties({n: v.ndim for n, v in penalties.items()}, 2 + len(guide.axes), own)
        log_p = enumeration.sum_out(log_p, model.observed, own, len(guide.axes), P.xp, P.logsumexp)
        forms = {n: f for n, f in forms.items() if f.ndim <= 3 + len(guide.axes)}  # p depends on a summed-out site
    if guide.axes:
        log_p, log_q, forms, penalties, marginal = enumeration.average(
            log_p, log_q, forms, penalties, list(guide.axes), P.xp, P.logsumexp
        )
    masses = point_masses(guide.dists, model.dists) if reader.gradients is None else []
    shared = {n: _shared_term(n, guide, model) for n in model.shared}
    return Trace(
        values={n: guide.values[n] for n in latent},
        log_p=log_p,
        log_q=log_q,
        kl=forms,
        shared=shared,
        marginal=marginal,
        penalties=penalties or None,
        points={n: {**log_q, **shared}[n] for n in masses} or None,
    )


def _shared_term(name: str, guide: DirectInterpreter, model: DirectInterpreter) -> Array:
    return (model.log_prob[name] - guide.log_prob.get(name, 0.0))[:, 0]


def _of_codes(name: str, guide: DirectInterpreter, model: DirectInterpreter, kl: bool) -> Array | None:
    """−H(q) − log p(c) at the draw's codes c, [K or 1, B, 1], of relaxed codes under a prior of whole grids of codes.

    The prior scores codes, and the guide's density is that of a relaxation: their difference would be no KL.

    Raises:
        ProgramError: the engine weighs draws, or the posterior wants the KL of relaxations.
    """
    q, p = guide.dists[name], model.dists[name]
    if getattr(q, "discrete", None) is None or "of_codes" not in (getattr(p, "about", None) or {}):
        return None
    if not kl or q.closed_form is None:
        raise mistakes.relaxed_codes(name)
    log_probs, xp = q.discrete.about["log_probs"], guide.P.xp
    entropy = -xp.sum(xp.exp(log_probs) * log_probs, axis=tuple(range(-len(q.event_shape), 0)))
    return (-entropy - model.log_prob[name])[..., None]


def split(log_p: Mapping[str, Array], latents: Container[str]) -> tuple[Array, Array]:
    """log p(z), the sum over latents, and log p(x|z), the sum over the rest."""
    prior: Array = sum(v for n, v in log_p.items() if n in latents)
    seen: Array = sum(v for n, v in log_p.items() if n not in latents)
    return prior, seen


def by_name(trace: Trace) -> dict[str, Array]:
    """log p, log q, closed forms and shared terms of a trace, each under a name of its own."""
    return {f"{i}{n}": v for i, part in enumerate(trace[1:5]) for n, v in part.items()}


def closed_forms(
    q: Mapping[str, Dist],
    p: Mapping[str, Dist],
    latent: list[str],
    kl: Callable[[Dist, Dist], Array | None],
    enumerated: Container[str] = (),
) -> dict[str, Array]:
    """The closed-form KL of each latent site if it is valid; enumerated ones need none.

    KL(q(z_i|·) ‖ p(z_i|·)) may replace log q − log p only if every latent that precedes z_i in the model precedes
    it in the guide: otherwise p's parents depend on the draw of z_i.
    """
    forms = {}
    for name in latent:
        if name not in enumerated and valid_order(name, latent, q, p):
            form = kl(q[name], p[name])
            if form is not None:
                forms[name] = form
    return forms
