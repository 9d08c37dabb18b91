"""Runs of a program's guide and model, over either backend's arrays, that answer questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ppdgm.errors import PpdgmError, explain
from ppdgm.language import enumeration, mistakes
from ppdgm.language.interpreter import PairLike, Reader, Reading, Seen, trace
from ppdgm.language.vocabulary import UNSEEN, Array, Batch, Trace, Vocabulary


def read_pair(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    shape: tuple[int, int],
    given: Mapping[str, Array],
    kl: bool,
    speak_guide: Callable[[Reading], Vocabulary] | None = None,
) -> Trace:
    """Read the guide, then the model at the guide's values; `speak` makes the vocabulary of a reading."""
    guide = Reading(reader, shape, given)
    _run(program, "guide", (speak_guide or speak)(guide), batch, reader)
    mistakes.check_unobserved(guide.observed)
    model = Reading(reader, shape, guide.values, axes=guide.axes)
    P = speak(model)
    _run(program, "model", P, batch, reader)
    return trace(guide, model, P, kl)


def read_observed(
    program: PairLike, speak: Callable[[Reading], Vocabulary], reader: Reader, batch: Batch, size: int
) -> list[Seen]:
    """The observed sites of one particle, each with its distribution given a draw of the guide.

    A row is right if it is right for one value of an enumerated site: the other values have probability 0.
    """
    guide = Reading(reader, (1, size), {})
    _run(program, "guide", speak(guide), batch, reader)
    model = Reading(reader, (1, size), guide.values, axes=guide.axes)
    P = speak(model)
    _run(program, "model", P, batch, reader)

    def rows(inside: Array) -> Array:
        inside = reader.broadcast(inside, (*inside.shape[:-1], size))
        return P.xp.any(reader.reshape(inside, (-1, size)), axis=0)

    inner = [n for n in model.observed if n not in model.shared]
    return [Seen(n, model.dists[n], model.values[n], None, rows) for n in inner]


def _run(program: PairLike, role: str, P: Vocabulary, batch: Batch, reader: Reader) -> None:
    """Call the program's model or guide.

    Raises:
        ProgramError: for any error that the program raises, with the line that it comes from.
    """
    before = reader.stamps(batch)
    try:
        getattr(program, role)(P, **batch)
    except PpdgmError:
        raise
    except Exception as error:
        raise explain(program, error) from error
    if reader.stamps(batch) != before:
        raise mistakes.changed(role)


def read_draws(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    shape: tuple[int, int],
    given: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """The latents drawn from the guide, [K, B, *event], also discrete ones; and given latents, as they are."""
    guide = Reading(reader, shape, given or {}, axes=None)
    _run(program, "guide", speak(guide), batch, reader)
    return {n: guide.values[n] for n in guide.dists}


def read_guide(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    shape: tuple[int, int],
    given: Mapping[str, Array],
) -> dict[str, Array]:
    """log q of the guide's sites at given latents, [K, B]; the model is not read."""
    guide = Reading(reader, shape, given, axes=None)
    _run(program, "guide", speak(guide), batch, reader)
    return {n: v for n, v in guide.log_prob.items() if n not in guide.shared}


def read_model(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    shape: tuple[int, int],
    given: Mapping[str, Array],
) -> dict[str, Array]:
    """log p of the model's sites at given latents, [K, B]; the guide is not read. Enumerated sites are summed out."""
    model = Reading(reader, shape, given)
    P = speak(model)
    _run(program, "model", P, batch, reader)
    own = list(model.axes)
    mistakes.check_sites(list(given), [n for n in model.dists if n not in model.observed and n not in own])
    log_p = {n: v for n, v in model.log_prob.items() if n not in model.shared}
    return enumeration.sum_out(log_p, model.observed, own, 0, P.xp, P.logsumexp) if own else log_p


def read_predictive(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    shape: tuple[int, int],
    given: Mapping[str, Array],
) -> dict[str, Array]:
    """Observed sites drawn from the model at given latents of the data, [K, B, *event].

    Sites that the model sums out are drawn from their posterior given these and the data.
    """
    model = Reading(reader, shape, given, generate=True)
    _run(program, "model", speak(model), batch, reader)
    if model.summed:
        own = _summed(program, speak, reader, batch, shape, given, drawn=True)
        model = Reading(reader, shape, {**given, **own}, generate=True)
        _run(program, "model", speak(model), batch, reader)
    return {n: model.values[n] for n in model.observed}


def _summed(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    shape: tuple[int, int],
    given: Mapping[str, Array],
    drawn: bool,
) -> dict[str, Array]:
    """Sites that only the model has and that it sums out, given the data and all other latents, [K, B, *event].

    They are `drawn` from p(c|x, z), or each is at its most probable value.
    """
    model = Reading(reader, shape, given)
    P = speak(model)
    _run(program, "model", P, batch, reader)
    sizes = [*model.axes.values()]
    total = sum(v for n, v in model.log_prob.items() if n not in model.shared)
    if drawn:
        flat = P.xp.permute_dims(reader.reshape(total, (-1, *shape)), (1, 2, 0))
        joint, _ = reader.draw(P.dist.Categorical(logits=flat), shape)
        at = enumeration.places(joint, sizes)
    else:
        at = enumeration.most_probable(total, sizes, P.xp, P.logsumexp)
    events = {n: tuple(model.dists[n].event_shape) for n in model.axes}
    values = {n: reader.reshape(model.values[n], (s, *events[n])) for n, s in model.axes.items()}
    return {n: v[at[i]] for i, (n, v) in enumerate(values.items())}


def read_decoded(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    size: int,
    given: Mapping[str, Array],
) -> dict[str, Array]:
    """Observed sites at their means given some latents, [1, B, *event]; other latents at their means given those."""
    model = Reading(reader, (1, size), given, choose="mean", generate=True)
    _run(program, "model", speak(model), batch, reader)
    return {n: model.values[n] for n in model.observed}


def read_dream(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    size: int,
    stop: Callable[[Array], Array],
) -> dict[str, Array]:
    """log q(z|x) of the guide's sites, [1, B], for latents and data drawn from the model.

    Raises:
        ProgramError: an observed site and its field have different names, so the guide can't be given the draw.
    """
    model = Reading(reader, (1, size), {}, generate=True)
    _run(program, "model", speak(model), batch, reader)
    drawn = {n: stop(model.values[n]) for n in model.dists}
    if missing := [n for n in model.observed if n not in batch]:
        raise mistakes.no_field(missing[0], list(batch))
    seen = {**batch, **{n: drawn[n][0] for n in model.observed}}
    guide = Reading(reader, (1, size), {n: v for n, v in drawn.items() if n not in model.observed}, axes=None)
    _run(program, "guide", speak(guide), seen, reader)
    mistakes.check_sites(list(guide.dists), [n for n in model.dists if n not in model.observed])
    return {n: guide.log_prob[n] for n in guide.dists}


def read_means(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    size: int,
    given: Mapping[str, Array] | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Each latent at its mean given the means before it, and each observed site's mean given those; [1, B, *event].

    Or all latents of the guide as they are `given`, [1, B, *event].
    If there are no latents, the model's deterministic values [B, …] are used as latents: an autoencoder's code. Sites
    that the model sums out are at their most probable value given the data and the latents.
    """
    guide = Reading(reader, (1, size), {}, choose="mean")
    if not given:
        _run(program, "guide", speak(guide), batch, reader)
    seen = given or guide.seen
    model = Reading(reader, (1, size), seen, choose="mean", generate=True)
    _run(program, "model", speak(model), batch, reader)
    if model.summed:
        seen = {**seen, **_summed(program, speak, reader, batch, (1, size), seen, drawn=False)}
        model = Reading(reader, (1, size), seen, choose="mean", generate=True)
        _run(program, "model", speak(model), batch, reader)
    latents = {n: guide.values[n] for n in guide.dists}
    if len(model.dists) == len(model.observed):
        latents = {n: v[None] for n, v in model.values.items() if n not in model.dists}
    return latents, {n: model.values[n] for n in model.observed}


def read_prior(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    size: int,
    mean: bool,
    given: Mapping[str, Array] | None = None,
    apart: bool = False,
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Latents drawn from the model, and the observed sites drawn (or at their mean) given them; [1, B, *event].

    With `given`, values of sites [1, B, *event], these sites are held. Then observed sites are held too if the batch
    has data. Without `given`, the batch's data are only the values that the model computes with. The last result is log
    p of what is held, [1, B]; it is NaN for a value outside the support.

    Raises:
        ProgramError: a site that is held has one before it that is drawn, and is not known to be `apart` from it.
    """
    holds = None if given is None else tuple(v for v in batch.values() if v is not UNSEEN)
    model = Reading(reader, (1, size), given or {}, generate=True, holds=holds, apart=apart)
    _run(program, "model", speak(model), batch, reader)
    latents = {n: v for n, v in model.values.items() if n in model.dists and n not in model.observed}
    scores = {n: model.log_prob[n] for n in model.held}
    if mean:
        at = {**(given or {}), **latents}  # drawn in the model's order
        model = Reading(reader, (1, size), at, choose="mean", generate=True, holds=holds, apart=True)
        _run(program, "model", speak(model), batch, reader)
    return latents, {n: model.values[n] for n in model.observed}, scores
