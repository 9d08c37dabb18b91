"""Whether each row's terms are its own: they must not change when the other rows, or the other particles, change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data import take
from ppdgm.errors import PpdgmError
from ppdgm.inference.inputs.feed import Feed
from ppdgm.language import mistakes, pair_mistakes
from ppdgm.language.vocabulary import Array, Noise, Trace

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Question, Runtime
    from ppdgm.language.tracer import Params

ROWS, PARTICLES = 3, 2  # the same as in the first reading, so that JAX compiles no operation twice
ALIKE = 1e-4  #: relative to 1 + |term|: far above rounding, far below the change from another row
MOST_ROWS, NARROW = 20_000, 16  # rows among which rare ones are looked for, in fields of few numbers
STIR = 0.05  #: of numbers that are all equal, such as the zeros of a last layer, which would hide dependence

Arrays = dict[str, np.ndarray]


def check_apart(runtime: Runtime, first: Mapping[str, np.ndarray], feed: Feed) -> None:
    """Refuse a program in which the terms of a row, or of a particle, depend on the others: it mixes the minibatch.

    Terms are read as in evaluations, so that modules with their own batch statistics (BatchNorm) use the running ones.
    A penalty may depend on the whole minibatch. Noise is the reading's own: no generator of the user's moves.

    Args:
        runtime: of the program.
        first: its parameters' first values.
        feed: of the data.

    Raises:
        ProgramError: with the site.
    """
    look = _ChangedRows(runtime, runtime.put(stirred(first, runtime.tracer.labels)), feed)
    try:
        own = look.read(look.rows, {})
        given = {n: v for n, v in own.values.items() if v.shape[:2] == look.shape or _shared(n, v, own)}
        drawn = len(given) < len(own.values)  # enumerated, or dependent on an enumerated site
        try:
            own = look.read(look.rows, given)
        except (PpdgmError, NotImplementedError):  # only its own draws can be scored, as for a one-way flow
            given = {}
        for at in ((1, look.shape[1] - 1), (0, 0)):
            other = look.read(*look.changed(given, at))
            if drawn and not _same_draws(own, other, at):
                continue
            if (site := first_difference(own, other, at)) is not None:
                alone = look.read(*look.changed(given, at, particles=False))
                raise mistakes.mixed(site, "row" if first_difference(own, alone, at) else "particle")
        if not drawn and _may_go_by_place(runtime, first, feed):
            shifted = look.read(np.roll(look.rows, 1), {n: turned(v) for n, v in given.items()})
            if (site := first_difference(own, shifted, (0, 0), (0, 1))) is not None:
                raise pair_mistakes.by_place(site, feed.size)
    except NotImplementedError:
        return  # a density can't be read here: the first reading reports it, if it matters


def mixing_penalty(runtime: Runtime, first: Mapping[str, np.ndarray], feed: Feed) -> str | None:
    """The first penalty of a row that changes when the other rows change; None if there is none.

    Args:
        runtime: of the program.
        first: its parameters' first values.
        feed: of the data.
    """
    look = _ChangedRows(runtime, runtime.put(stirred(first, runtime.tracer.labels)), feed)
    own = look.read(look.rows, {})
    if not own.penalties:
        return None
    given = {n: v for n, v in own.values.items() if v.shape[:2] == look.shape or _shared(n, v, own)}
    try:
        own = look.read(look.rows, given)
    except (PpdgmError, NotImplementedError):  # only its own draws can be scored, as for a one-way flow
        given = {}
    for at in ((1, look.shape[1] - 1), (0, 0)):
        other = look.read(*look.changed(given, at, particles=False))
        if len(given) < len(own.values) and not _same_draws(own, other, at):
            continue
        for name, a in (own.penalties or {}).items():
            b = (other.penalties or {})[name]
            size = max(np.abs(a).max(), np.abs(b).max())  # not 1 more: its weight in the loss may be small
            if np.isfinite(size) and abs(_at(a, at) - _at(b, at)) > ALIKE * size:
                return name
    return None


def mixing_function(runtime: Runtime, params: Params, feed: Feed, roles: Iterable[str]) -> str | None:
    """The first of a program's functions whose number of a row changes when the other rows change; None if none does.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        feed: of the data.
        roles: the functions. Those that need other arguments than the data, or return no number of each row, are left
            out.
    """
    look, at = _ChangedRows(runtime, params, feed), 0
    index = runtime.index(np.arange(look.shape[1]))
    for role in roles:
        try:
            own, other = (
                runtime.ask(_returned, params, (0,), runtime.put(take(feed.fields, rows)), index, role=role)[..., at]
                for rows in (look.rows, look.changed({}, (0, at))[0])
            )
        except PpdgmError:
            continue
        size = max(np.abs(own).max(initial=0.0), np.abs(other).max(initial=0.0))
        if np.isfinite(size) and np.abs(own - other).max(initial=0.0) > ALIKE * size:
            return role
    return None


def mixes_rows(runtime: Runtime, params: Params, feed: Feed, question: Question, **how: object) -> bool:
    """Whether the answer of a row, [B], changes when the other rows change.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        feed: of the data.
        question: to the runtime, and `how`: see `Evaluator.each_row`.
    """
    look = _ChangedRows(runtime, params, feed)
    own, other = (
        float(runtime.ask(question, params, (0,), data, runtime.index(index), **how)[0])
        for data, index in (look.at(look.rows), look.at(look.changed({}, (0, 0))[0]))
    )
    return np.isfinite(own) and np.isfinite(other) and abs(own - other) > ALIKE * max(abs(own), abs(other))


def _returned(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, role: str) -> Array:
    """What a function of the program returns, if it is a number of each row, [..., B]; else zeros."""
    size, xp = index.shape[0], runtime.xp
    found = runtime.tracer.ask(params, noise, runtime.select(data, index), size).run(role).returned
    of_rows = hasattr(found, "shape") and tuple(found.shape)[-1:] == (size,)
    return found if of_rows else xp.zeros_like(index, dtype=xp.float32)


class _ChangedRows:
    """Readings of some rows, in which all rows but one can be changed."""

    def __init__(self, runtime: Runtime, params: Params, feed: Feed):
        self.runtime, self.params, self.feed = runtime, params, feed
        b = runtime.tracer.batch_size or ROWS
        self.shape = (PARTICLES, b)
        spread = np.linspace(0, feed.size, 2 * b, endpoint=False).astype(int)
        self.rows, self.others = spread[::2], spread[1::2]
        if feed.size < 2 * b:
            self.rows = np.arange(b) % feed.size
            self.others = np.roll(self.rows, 1)
        elif runtime.tracer.batch_size is None:  # a row with a rare label or mask, and another one beside it
            self.rows[0], self.others[1] = rarest(feed.fields, (self.rows[0], self.others[1]))

    def read(self, rows: np.ndarray, given: Arrays) -> Trace:
        """Terms of these rows, [K, B]."""
        found: Trace = self.runtime.glance(self.params, *self.at(rows), PARTICLES, given)
        return found

    def at(self, rows: np.ndarray) -> tuple[Native, np.ndarray]:
        """Data and indices of these rows. A pair that draws its own minibatch gets indices; others only the rows."""
        if self.runtime.tracer.subsamples:
            return self.feed.rows(rows)
        # As a separate data set: a pair may keep something for each place in it.
        return self.runtime.put(take(self.feed.fields, rows)), np.arange(len(rows))

    def changed(self, given: Arrays, at: tuple[int, int], particles: bool = True) -> tuple[np.ndarray, Arrays]:
        """Other rows and other latents, everywhere except at one particle (or all of them) of one row."""
        rows = self.others.copy()
        rows[at[1]] = self.rows[at[1]]
        other = {}
        for name, value in given.items():
            b = min(at[1], value.shape[1] - 1)  # 0 for a latent that all rows share
            here = (at[0], b) if particles else (slice(None), b)
            other[name] = np.roll(value, (1, 1) if particles else 1, axis=(0, 1) if particles else 1)
            other[name][here] = value[here]
        return rows, other


def rarest(fields: Mapping[str, Array], default: tuple[int, int]) -> tuple[int, int]:
    """Two rows with rare values in narrow fields of whole numbers, such as labels and masks; else those by default.

    A program may do with a labelled row what it does with no other: few rows of all might not show it.
    """
    size = len(next(iter(fields.values())))
    some = np.unique([*np.linspace(0, size - 1, min(size, MOST_ROWS)).astype(int), *default])
    score = np.zeros(len(some))
    for value in fields.values():
        if int(np.prod(value.shape[1:])) <= NARROW:
            flat = take({"": value}, some)[""].reshape(len(some), -1)
            if flat.shape[1] and (flat == np.rint(flat)).all():
                values, counts = np.unique(flat, return_counts=True)
                score += (flat != values[counts.argmax()]).mean(1)
    first, second = np.argsort(-score, kind="stable")[:2]
    kept = np.searchsorted(some, default)
    one, other = (n if score[n] > score[k] else k for n, k in zip((first, second), kept, strict=True))
    return int(some[one]), int(some[other])


def _shared(name: str, value: np.ndarray, trace: Trace) -> bool:
    return name in trace.shared and value.shape[:2] == (PARTICLES, 1)


def stirred(first: Mapping[str, np.ndarray], labels: Mapping[str, str], alike: bool = True) -> Arrays:
    """Parameters, with a little noise if all numbers of one are equal; or on all of them, if not `alike`."""
    rng, found = np.random.default_rng(0), dict(first)
    for name in labels:
        v = first[name]
        if v.dtype.kind == "f" and v.size and (not alike or (v == v.flat[0]).all()):
            by = np.where(v == 0, 1.0, v)
            found[name] = (v + STIR * by * rng.normal(size=v.shape)).astype(v.dtype)
    return found


def _terms(trace: Trace) -> Iterator[tuple[str, np.ndarray]]:
    """The guide's terms, then the model's."""
    yield from trace.log_q.items()
    yield from trace.log_p.items()
    if trace.marginal is not None:
        yield next(iter(trace.log_p)), trace.marginal


def _may_go_by_place(runtime: Runtime, first: Mapping[str, np.ndarray], feed: Feed) -> bool:
    """Whether a parameter has as many rows as the data, in a pair that takes any minibatch, without indices."""
    return runtime.tracer.batch_size is None and any(feed.size in v.shape for v in first.values())


def turned(value: np.ndarray) -> np.ndarray:
    """Latents [K, B, …], moved by one row: each in the place of the next; latents that all rows share stay."""
    return value if value.shape[1] == 1 else np.roll(value, 1, axis=1)


def _at(terms: np.ndarray, place: tuple[int, int]) -> float:
    """The term at a place, from [K, B], or the one term for all."""
    return float(np.broadcast_to(terms, (PARTICLES, terms.shape[-1]))[place[0], place[1] if terms.shape[-1] > 1 else 0])


def first_difference(own: Trace, other: Trace, at: tuple[int, int], there: tuple[int, int] | None = None) -> str | None:
    """The first site whose terms differ at one place; `there` is the place in the other trace, if it is another one."""
    for (name, *terms), (_, there_too) in zip(_terms(own), _terms(other), strict=True):
        a, b = _at(terms[0], at), _at(there_too, there or at)
        if np.isfinite(a) and np.isfinite(b) and abs(a - b) > ALIKE * (1 + abs(a)):
            return name
    return None


def _same_draws(own: Trace, other: Trace, at: tuple[int, int]) -> bool:
    """Whether the latents [K, B, …] at one place are the same: they are not with a sampler that rejects."""
    pairs = ((v, other.values[n]) for n, v in own.values.items() if v.ndim > 1 and v.shape[1] > at[1])
    return all(v.shape == w.shape and np.allclose(v[at], w[at], rtol=1e-4, atol=1e-6) for v, w in pairs)
