"""What a program is asked: each question is a few runs of its functions; see `ppdgm.language.interpreter`."""

from __future__ import annotations

from collections.abc import Mapping

from ppdgm.language import enumeration, mistakes
from ppdgm.language.interpreter import Ask
from ppdgm.language.masks import has_mask
from ppdgm.language.steps import Steps
from ppdgm.language.supports import Seen
from ppdgm.language.terms import terms
from ppdgm.language.unseen import is_given
from ppdgm.language.vocabulary import Array, Trace

Sites = dict[str, Array]
Given = Mapping[str, Array] | None


def trace(ask: Ask, k: int, given: Given = None, kl: bool = False, stopped: bool = False) -> Trace:
    """The terms of the guide, then of the model at the guide's values.

    Args:
        stopped: whether the guide's densities have no gradient to parameters, and only one to values.
    """
    guide = ask.run("guide", k, given, stopped=stopped)
    mistakes.check_unobserved(guide.observed)
    return terms(guide, ask.run("model", k, guide.values, axes=guide.axes), kl)


def observed(ask: Ask) -> list[Seen]:
    """The observed sites of one particle, each with its distribution given a draw of the guide.

    A row is right if it is right for one value of an enumerated site: the other values have probability 0.
    """
    guide = ask.run("guide")
    model, reader = ask.run("model", given=guide.values, axes=guide.axes, looks=True), ask.reader

    def rows(inside: Array) -> Array:
        inside = reader.broadcast(inside, (*inside.shape[:-1], ask.size))
        return ask.words.xp.any(reader.reshape(inside, (-1, ask.size)), axis=0)

    inner = [n for n in model.observed if n not in model.shared]
    return [Seen(n, model.dists[n], model.values[n], None, rows) for n in inner]


def draws(ask: Ask, k: int, given: Given = None) -> Sites:
    """The latents drawn from the guide, [K, B, *event], also discrete ones; and given latents, as they are."""
    guide = ask.run("guide", k, given, axes=None)
    return {n: guide.values[n] for n in guide.dists}


def without_meaning(ask: Ask) -> Sites:
    """Latents of the guide under a mask, [1, B, *event]: where it is off, they have no term, and any value."""
    run = ask.run("guide", axes=None)
    masked = lambda d: (isinstance(d, Steps) and d.mask is not None) or has_mask(d)
    return {n: run.values[n] for n, d in run.dists.items() if masked(d)}


def guide(ask: Ask, given: Mapping[str, Array]) -> Sites:
    """log q of the guide's sites at given latents, [K, B]; the model is not run."""
    run = ask.run("guide", _particles(given), given, axes=None)
    return {n: v for n, v in run.log_prob.items() if n not in run.shared}


def model(ask: Ask, given: Mapping[str, Array]) -> Sites:
    """log p of the model's sites at given latents, [K, B]; the guide is not run. Enumerated sites are summed out.

    Nothing is drawn: Markov chains move on one density.
    """
    run = ask.run("model", _particles(given), given, full=True)
    own = list(run.axes)
    mistakes.check_sites(list(given), [n for n in run.dists if n not in run.observed and n not in own])
    log_p = {n: v for n, v in run.log_prob.items() if n not in run.shared}
    return enumeration.sum_out(log_p, run.observed, own, 0, run.P.xp, run.P.logsumexp) if own else log_p


def predictive(ask: Ask, given: Mapping[str, Array]) -> Sites:
    """Observed sites drawn from the model at given latents of the data, [K, B, *event].

    Sites that the model sums out are drawn from their posterior given these and the data.
    """
    k = _particles(given)
    run = ask.run("model", k, given, generate=True)
    if run.summed:
        run = ask.run("model", k, {**given, **_summed(ask, k, given, drawn=True)}, generate=True)
    return {n: run.values[n] for n in run.observed}


def _summed(ask: Ask, k: int, given: Mapping[str, Array], drawn: bool) -> Sites:
    """Sites that only the model has and that it sums out, given the data and all other latents, [K, B, *event].

    They are `drawn` from p(c|x, z), or each is at its most probable value.
    """
    run, reader, shape = ask.run("model", k, given), ask.reader, (k, ask.size)
    P, sizes = run.P, [*run.axes.values()]
    total = sum(v for n, v in run.log_prob.items() if n not in run.shared)
    if drawn:
        flat = P.xp.permute_dims(reader.reshape(total, (-1, *shape)), (1, 2, 0))
        joint, _ = reader.draw(P.dist.Categorical(logits=flat), shape)
        at = enumeration.places(joint, sizes)
    else:
        at = enumeration.most_probable(total, sizes, P.xp, P.logsumexp)
    events = {n: tuple(run.dists[n].event_shape) for n in run.axes}
    values = {n: reader.reshape(run.values[n], (s, *events[n])) for n, s in run.axes.items()}
    return {n: v[at[i]] for i, (n, v) in enumerate(values.items())}


def decoded(ask: Ask, given: Mapping[str, Array]) -> Sites:
    """Observed sites at their means given some latents, [1, B, *event]; other latents at their means given those."""
    run = ask.run("model", given=given, choose="mean", generate=True)
    return {n: run.values[n] for n in run.observed}


def sleep(ask: Ask) -> Sites:
    """log q(z|x) of the guide's sites, [1, B], for latents and data drawn from the model; the draws have no gradient.

    Raises:
        ProgramError: an observed site and its field have different names, so the guide can't be given the draw.
    """
    run = ask.run("model", generate=True)
    drawn = {n: ask.stop(run.values[n]) for n in run.dists}
    if missing := [n for n in run.observed if n not in ask.data]:
        raise mistakes.no_field(missing[0], list(ask.data))
    data = {**ask.data, **{n: _with_gaps(ask, n, drawn[n][0]) for n in run.observed}}
    latents = {n: v for n, v in drawn.items() if n not in run.observed}
    guide = ask.run("guide", given=latents, data=data, axes=None)
    mistakes.check_sites(list(guide.dists), list(latents))
    return {n: guide.log_prob[n] for n in guide.dists}


def _with_gaps(ask: Ask, name: str, drawn: Array) -> Array:
    """A drawn field with the gaps of the batch's rows, if its entries may be missing: the guide has to learn them."""
    if name not in getattr(ask.program, "may_miss", ()):
        return drawn
    rows = ask.data[name]
    return ask.words.xp.where(ask.words.xp.isnan(rows), rows, drawn)


def means(ask: Ask, given: Given = None) -> tuple[Sites, Sites]:
    """Each latent at its mean given the means before it, and each observed site's mean given those; [1, B, *event].

    What comes after an observed site sees its data.

    Or all latents of the guide as they are `given`, [1, B, *event].
    If there are no latents, the model's deterministic values [B, …] are used as latents: an autoencoder's code. Sites
    that the model sums out are at their most probable value given the data and the latents.
    """
    found = {} if given else _at_means(ask)
    seen = given or {n: v for n, (_, v) in found.items()}
    run = ask.run("model", given=seen, choose="mean", generate=True)
    if run.summed:
        seen = {**seen, **_summed(ask, 1, seen, drawn=False)}
        run = ask.run("model", given=seen, choose="mean", generate=True)
    latents = {n: v for n, (v, _) in found.items()}
    if len(run.dists) == len(run.observed):
        latents = {n: v[None] for n, v in run.values.items() if n not in run.dists}
    return latents, {n: run.values[n] for n in run.observed}


def seen(ask: Ask) -> Sites:
    """What other sites see of each latent of the guide at its mean: the most probable value, if it is discrete."""
    return {n: value for n, (_, value) in _at_means(ask).items()}


def _at_means(ask: Ask) -> dict[str, tuple[Array, Array]]:
    """Each latent of the guide: its mean, and the value that other sites get of it."""
    run = ask.run("guide", choose="mean")
    return {n: (run.values[n], run.seen[n]) for n in run.dists}


def prior(ask: Ask, mean: bool, given: Given = None, apart: bool = False) -> tuple[Sites, Sites, Sites]:
    """Latents drawn from the model, and the observed sites drawn (or at their mean) given them; [1, B, *event].

    What comes after an observed site at its mean sees a draw of it. With `given`, values of sites [1, B, *event], these
    sites are held. Then observed sites are held too if the batch has data. Without `given`, the batch's data are only
    the values that the model computes with. The last result is log p of what is held, [1, B]; it is NaN for a value
    outside the support.

    Raises:
        ProgramError: a site that is held has one before it that is drawn, and is not known to be `apart` from it.
    """
    holds = None if given is None else tuple(v for v in ask.data.values() if is_given(v))
    run = ask.run("model", given=given, generate=True, holds=holds, apart=apart)
    latents = {n: v for n, v in run.values.items() if n in run.dists and n not in run.observed}
    scores = {n: run.log_prob[n] for n in run.held}
    if mean:
        seen = {n: run.values[n] for n in run.observed if n not in run.held}
        at = {**(given or {}), **latents, **seen}  # drawn in the model's order
        run = ask.run("model", given=at, choose="mean", generate=True, holds=holds, apart=True, follows=seen)
    return latents, {n: run.values[n] for n in run.observed}, scores


def scattered(ask: Ask, k: int, given: Mapping[str, Array]) -> Sites:
    """log p of what `prior` holds, [K, B]; discrete sites before it have rare values as often as others."""
    held = tuple(v for v in ask.data.values() if is_given(v))
    each = {n: ask.words.xp.broadcast_to(v, (k, *v.shape[1:])) for n, v in given.items()}
    run = ask.run("model", k, each, generate=True, holds=held, apart=True, scattered=True)
    return {n: run.log_prob[n] for n in run.held}


def _particles(given: Mapping[str, Array]) -> int:
    return len(next(iter(given.values())))
