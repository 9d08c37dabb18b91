"""The direct reading of a program: no handlers, only draws and log-probabilities, over either backend's arrays.

A guide is read, then the model at the guide's values; the two readings make a `Trace`. Mistakes in a program's
sites are found here, with messages in `mistakes`; any other error of a program is reported with its line.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from ppdgm.errors import ProgramError
from ppdgm.language import enumeration, mistakes
from ppdgm.language.points import point_masses, points
from ppdgm.language.vocabulary import UNSEEN, Array, Batch, Trace, Vocabulary


@dataclass(frozen=True)
class Gradients:
    """How gradients pass through the draws of a guide, in a reading that will be differentiated.

    Attributes:
        relaxed: relaxations are drawn, if there are any; else the distributions that they stand for.
        scored: a list for the sites whose draws carry no gradient; None: they are refused.
        enumerate: a discrete site takes all its values, whether it asks for it or not.
        walked: draws are where Markov chains begin, which need densities over all real numbers.
        mixed: nets multiply in bfloat16.
        loose: a list for the sites that are relaxed, or None.
    """

    relaxed: bool = True
    scored: list[str] | None = None
    enumerate: bool = False
    walked: bool = False
    mixed: bool = False
    loose: list[str] | None = None


class Seen(NamedTuple):
    """An observed site of a reading.

    Attributes:
        name: its own.
        dist: its distribution.
        value: its observed value.
        mask: of the handlers around it, like the distribution's batch; None for none.
        rows: truth over the distribution's batch -> whether it holds for each row, [B].
    """

    name: str
    dist: Any
    value: Array
    mask: Array | None
    rows: Callable[[Array], Array]


@dataclass(frozen=True)
class Observed:
    """The facts of an observed site before any row is checked.

    Attributes:
        name: its own.
        field: of the data, if the site is observed at the field as it is, or in another shape; None: at a value that is
            computed from fields.
        shape: of a row there.
        support: of its numbers, native; None if every number is in it, or if it isn't known.
        bounds: arrays in the support, which can depend on data, parameters and draws.
        told: distribution and support, as text for users.
        masked: whether some rows may not count.
    """

    name: str
    field: str | None
    shape: tuple[int, ...]
    support: Any
    bounds: tuple[Any, ...]
    told: str
    masked: bool


class Reader(Protocol):
    """The operations on native distributions that a direct reading needs; one object per run."""

    gradients: Gradients | None  #: None: no gradients will be taken
    native: ClassVar[type]  #: of the backend's distributions
    arrays: ClassVar[tuple[type, ...]]  #: types of the values that a site may be observed at

    def has_pathwise(self, dist: Any) -> bool:
        """Whether a draw is a differentiable function of the distribution's parameters."""
        ...

    def draw(self, dist: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """A fresh draw for each of [..., K, B], and its log-density."""
        ...

    def log_prob(self, dist: Any, value: Array) -> Array: ...
    def observe(self, dist: Any, value: Array) -> Array:
        """log p of data."""
        ...

    def confine(self, dist: Any, value: Array, log_prob: Array) -> Array:
        """log p of a latent drawn elsewhere: −∞ outside its support."""
        ...

    def kl(self, q: Any, p: Any) -> Array | None:
        """Closed-form KL [..., B, D], or None if there is none."""
        ...

    def as_draw(self, dist: Any, value: Array) -> Array:
        """A value in the type of a draw."""
        ...

    def broadcast(self, x: Array, shape: tuple[int, ...]) -> Array: ...
    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array: ...
    def hold(self, dist: Any, value: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """A given value, in the layout and type of a draw for each of [K, B], and its log-density.

        If it is outside the support, a draw takes its place, and the log-density is NaN.
        """
        ...

    def stamps(self, batch: Batch) -> list[int]:
        """Numbers that change when a field of the batch is changed in place; none if fields can't be."""
        ...


class PairLike(Protocol):
    """The methods of a program that a reading calls."""

    def model(self, P: Any, **data: Array) -> Any: ...
    def guide(self, P: Any, **data: Array) -> Any: ...


class _InPlate:
    """Marks the statements inside the data plate. It is a plain class, because torch.compile traces those."""

    def __init__(self, reading: Reading):
        self.reading = reading

    def __enter__(self) -> None:
        self.reading.inside = True

    def __exit__(self, *_: object) -> None:
        self.reading.inside = False

    def __iter__(self) -> Iterator[Any]:
        raise ProgramError("A plate is not a loop. Write `with P.plate(name, x):`, and compute with all rows at once.")


class Reading:
    """One direct reading of a guide or a model: draws the sites that are not given, and scores everything.

    Args:
        reader: the backend's draws and densities.
        shape: (K, B).
        given: values of latent sites, [K, B, *event]; sites not in it are drawn.
        choose: `draw`, or `mean` to put each latent at its mean.
        generate: observed sites are drawn too; their data are ignored.
        axes: sites that are already enumerated, with their number of values; None to enumerate nothing.
        holds: data that are given, or None. With `generate`, sites that are observed at them stay there. A value that
            is held, of data or `given`, may have no site before it that is drawn, because it would say something about
            that site.
        apart: it is known that held values do not depend on sites drawn before them.
    """

    def __init__(
        self,
        reader: Reader,
        shape: tuple[int, int],
        given: Mapping[str, Array],
        choose: str = "draw",
        generate: bool = False,
        axes: Mapping[str, int] | None = MappingProxyType({}),
        holds: tuple[Array, ...] | None = None,
        apart: bool = False,
    ):
        self.reader, self.shape, self.given, self.holds = reader, shape, given, holds
        self.apart = apart
        self.axes, self.enumerates = dict(axes or {}), axes is not None and not generate
        self.choose, self.generate = choose, generate
        self.inside = False
        self.values: dict[str, Array] = {}
        self.log_prob: dict[str, Array] = {}
        self.dists: dict[str, Any] = {}
        self.observed: list[str] = []
        self.shared: list[str] = []
        self.penalties: dict[str, Array] = {}
        self.seen: dict[str, Array] = {}  # the values that other sites get of a site at its mean
        self.held: list[str] = []
        self.drawn: list[str] = []
        self.summed: list[str] = []  # with `generate`, latents that ask to be summed out

    def plate(self, name: str, data: Array) -> AbstractContextManager[Any]:
        if self.inside:
            raise ProgramError(
                f"Plate {name!r} is inside another plate. A program has only the data plate. Declare inner dimensions "
                "with .to_event(n)."
            )
        if data is not UNSEEN and not getattr(data, "shape", ()):
            raise ProgramError(
                f"Plate {name!r}: got {data!r}, expected the data themselves, [B, …]: P.plate({name!r}, x)."
            )
        if data is not UNSEEN and data.shape[0] != self.shape[1]:
            raise ProgramError(
                f"Plate {name!r}: got data of {data.shape[0]} rows, expected {self.shape[1]}, the rows of the "
                "minibatch that model and guide receive."
            )
        return _InPlate(self)

    def sample(self, name: str, dist: Any, obs: Array | None = None, infer: Mapping[str, Any] | None = None) -> Array:
        data = obs if not self.generate or self._is_given(obs, dist) else None
        mistakes.check_statement(name, dist, data, self.reader.native, self.reader.arrays)
        if name in self.dists or name in self.values:
            raise mistakes.twice(name)
        if getattr(dist, "discrete", None) is not None:
            dist = self._relaxed(name, dist)
        shape = self.shape if self.inside else (self.shape[0], 1)
        lead = self._lead(tuple(dist.batch_shape))
        mistakes.check_batch_shape(name, dist, shape, self.inside, obs is not None, lead)
        self.dists[name] = dist
        if not self.inside:
            self.shared.append(name)
        if obs is not None:
            self.observed.append(name)
        elif self.generate and name not in self.given and enumeration.wanted(name, infer):
            self.summed.append(name)
        held = self.holds is not None and self._is_held(name, data)
        if data is not None:
            mistakes.check_observation(name, tuple(data.shape), tuple(dist.event_shape), shape, self.inside)
            value, log_prob = self.reader.hold(dist, data, shape) if held else (data, self._score(name, dist, data))
        elif name in self.given:
            value = self.given[name]
            got, events = tuple(value.shape), len(dist.event_shape)
            if name in self.axes:  # [S, 1, …, 1, *event]
                got = (*shape, *got[3 + list(self.axes).index(name) :])
            elif self.axes:  # enumerated sites that the value depends on
                got = got[len(self._lead(got[: len(got) - events])) :]
            mistakes.check_given(name, got, tuple(dist.event_shape), shape, self.inside)
            value, log_prob = self.reader.hold(dist, value, shape) if held else (value, self._score(name, dist, value))
        elif self.choose == "mean":
            told, seen = points(name, dist, latent=obs is None)  # not scored: a mean may lie outside the support
            self.values[name] = self.reader.broadcast(told, (*shape, *dist.event_shape))
            seen = told if seen is told else self.reader.as_draw(dist, seen)
            self.seen[name] = self.reader.broadcast(seen, self.values[name].shape)
            return self.seen[name]
        elif self.enumerates and (enumeration.wanted(name, infer) or self._must_enumerate(dist)):
            if not self.inside:
                raise mistakes.enumerated_outside(name)
            value = enumeration.all_values(name, dist, self.axes, self.reader.reshape)
            self.axes[name] = len(value)
            log_prob = self._score(name, dist, value)
        else:
            self._check_pathwise(name, dist)
            value, log_prob = self.reader.draw(dist, (*lead, *shape))
        self.values[name] = value
        self.log_prob[name] = self.reader.broadcast(log_prob, (*self._lead(tuple(log_prob.shape)), *shape))
        return value

    def _is_given(self, obs: Array | None, dist: Any) -> bool:
        """Whether a site is observed at given data or values computed from them: not at a constant or a draw."""
        if self.holds is None or obs is None or obs is UNSEEN:
            return False
        return any(obs is data for data in self.holds) or obs.ndim > len(dist.event_shape)

    def _is_held(self, name: str, data: Array | None) -> bool:
        held = data is not None or name in self.given
        if held and self.drawn and not self.apart:
            raise mistakes.held_below(name, self.drawn, name in self.observed)
        (self.held if held else self.drawn).append(name)
        return held

    def _relaxed(self, name: str, dist: Any) -> Any:
        """A relaxation, only for draws in training, or the discrete distribution that it stands for."""
        how = self.reader.gradients
        if name in self.axes or how is None or not how.relaxed or how.enumerate:
            return dist.discrete
        if how.loose is not None:
            how.loose.append(name)
        return dist

    def _must_enumerate(self, dist: Any) -> bool:
        how = self.reader.gradients
        return how is not None and how.enumerate and not self.reader.has_pathwise(dist)

    def _check_pathwise(self, name: str, dist: Any) -> None:
        """Refuse, or record, a draw that carries no gradient."""
        if (how := self.reader.gradients) is None:
            return
        if how.walked:
            mistakes.check_walked(name, dist, self.inside)
        if self.reader.has_pathwise(dist):
            return
        if how.scored is None:
            raise mistakes.not_pathwise(name, dist)
        if not self.inside:
            raise mistakes.scored_outside(name, dist)
        how.scored.append(name)

    def _lead(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The dimensions of enumerated sites before [K, B]."""
        return enumeration.leading(shape, self.axes)

    def penalty(self, name: str, value: Array) -> None:
        if not self.inside:
            raise mistakes.penalty_outside(name)
        mistakes.check_penalty(name, tuple(value.shape)[len(self._lead(tuple(value.shape))) :], self.shape)
        self.penalties[name] = value

    def _score(self, name: str, dist: Any, value: Array) -> Array:
        if name in self.observed:
            return self.reader.observe(dist, value)
        found = mistakes.scored(name, dist, lambda: self.reader.log_prob(dist, value))
        return found if self.reader.gradients else self.reader.confine(dist, value, found)

    def param(self, name: str, value: Array) -> Array:
        return value

    def deterministic(self, name: str, value: Array) -> Array:
        if name in self.values:
            raise mistakes.twice(name)
        self.values[name] = value
        return value


def trace(guide: Reading, model: Reading, P: Vocabulary, kl: bool) -> Trace:
    """The terms of a guide, and of a model that was read with the guide's values.

    Raises:
        ProgramError: the two do not draw the same latent sites.
    """
    reader, own = guide.reader, [n for n in model.axes if n not in guide.axes]
    latent = [n for n in model.dists if n not in model.observed and n not in own]
    mistakes.check_sites(list(guide.dists), latent)
    local = [n for n in latent if n not in model.shared]
    for name in latent:  # with one row their shapes show nothing
        if (name in guide.shared) != (name in model.shared):
            raise mistakes.apart(name, "guide" if name in model.shared else "model")
    if reader.gradients and not kl:
        mistakes.check_relaxed(guide.dists)
    log_p = {n: v for n, v in model.log_prob.items() if n not in model.shared}
    log_q = {n: guide.log_prob[n] for n in local}
    forms = closed_forms(guide.dists, model.dists, local, reader.kl, guide.axes) if kl else {}
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


def _shared_term(name: str, guide: Reading, model: Reading) -> Array:
    return (model.log_prob[name] - guide.log_prob.get(name, 0.0))[:, 0]


def split(log_p: Mapping[str, Array], latents: Container[str]) -> tuple[Array, Array]:
    """log p(z), the sum over latents, and log p(x|z), the sum over the rest."""
    prior: Array = sum(v for n, v in log_p.items() if n in latents)
    seen: Array = sum(v for n, v in log_p.items() if n not in latents)
    return prior, seen


def closed_forms(
    q: Mapping[str, Any],
    p: Mapping[str, Any],
    latent: list[str],
    kl: Callable[[Any, Any], Array | None],
    enumerated: Container[str] = (),
) -> dict[str, Array]:
    """The closed-form KL of each latent site if it is valid; enumerated ones need none.

    KL(q(z_i|·) ‖ p(z_i|·)) may replace log q − log p only if every latent that precedes z_i in the model precedes
    it in the guide: otherwise p's parents depend on the draw of z_i.
    """
    drawn, forms = list(q), {}
    for i, name in enumerate(latent):
        earlier = drawn[: drawn.index(name)]
        if name not in enumerated and all(parent in earlier for parent in latent[:i]):
            form = kl(q[name], p[name])
            if form is not None:
                forms[name] = form
    return forms
