"""A trained program and data: everything that is evaluated runs the program over the data chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from ppdgm.data import take
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.errors import PpdgmError, ProgramError, out_of_memory, require
from ppdgm.inference.evaluation.masked import under_masks
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.support import dimensions_of, fixing
from ppdgm.language.runtime import Native, traced
from ppdgm.language.unseen import Unseen, blanks
from ppdgm.language.vocabulary import Array, Namespace, Trace
from ppdgm.program import AnyProgram, PlainPair, Program

if TYPE_CHECKING:
    from ppdgm.language.runtime import Question, Runtime
    from ppdgm.language.tracer import Params

Sites = dict[str, np.ndarray]
Drawing = Callable[[Native, np.ndarray, int], Sites]  #: (data, index, seed) -> latents
Found = TypeVar("Found")
Of = Callable[[int, Native, np.ndarray, int], Found]  #: what `Evaluator.chunks` gives of a chunk -> anything
ROWS = 512  # rows of a chunk
_ALIKE = 1e-4  # relative to the larger number: means from chunks of other data, in float32


def quiet() -> AbstractContextManager[object]:
    """No warnings about numbers that are not finite, because −∞ is reported as a result."""
    return np.errstate(invalid="ignore", over="ignore")


@contextmanager
def memory_told() -> Iterator[None]:
    """If memory runs out, a TrainingError that explains what to do, whichever library reports it."""
    try:
        yield
    except Exception as error:
        if (told := out_of_memory(error)) is not None:
            raise told from error
        raise


@dataclass(frozen=True)
class Evaluator:
    """A program with parameters and data on a device.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        feed: of the data.
        memory: bytes that a chunk's intermediate results may take.
        seed: of all draws.
        planned: numbers of particles and rows of a chunk that fit the memory, by K.
    """

    runtime: Runtime
    params: Params
    feed: Feed
    memory: int
    seed: int = 0
    planned: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a seed that is none."""
        require("seed", self.seed, int, 0, "a whole number, at least 0")

    @property
    def program(self) -> AnyProgram:
        """The program."""
        return cast("AnyProgram", self.runtime.tracer.program)  # of which the language knows less

    @property
    def size(self) -> int:
        """N."""
        return self.feed.size

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the data's fields."""
        return tuple(self.feed.fields)

    @property
    def blank(self) -> dict[str, Unseen | None]:
        """The fields without their data, with the shapes of their rows; nothing for a plain pair, which needs data."""
        if isinstance(self.program, PlainPair):
            return dict.fromkeys(self.fields)
        return dict(blanks({n: v.shape[1:] for n, v in self.feed.fields.items()}))

    @cached_property
    def dtype(self) -> str:
        """The type of the program's floating arrays."""
        floats = [v for v in self.runtime.fetch(self.params).values() if v.dtype.kind == "f"]
        return str(floats[0].dtype) if floats else "float32"

    def stream(self, name: str, i: int = 0) -> int:
        """A seed for each use and chunk: with one seed, two draws of one shape would share their noise."""
        words = (self.seed, i, *name.encode())
        return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)

    def indices(self, rows: int) -> list[np.ndarray]:
        """Indices of rows, in chunks of one size: the last chunk is filled up from the first rows."""
        rows = self.runtime.tracer.batch_size or min(self.size, rows)
        return [np.arange(start, start + rows) % self.size for start in range(0, self.size, rows)]

    def chunks(self, rows: int) -> Iterator[tuple[int, Native, np.ndarray, int]]:
        """Each chunk's number, its data, the places of its rows in these, and how many rows are not filled up."""
        for i, index in enumerate(self.indices(rows)):
            yield i, *self.feed.rows(index), min(len(index), self.size - i * len(index))

    def each_chunk(self, rows: int, function: Of[Found], *about: object) -> Iterator[Found]:
        """function(*chunk) of each of the `chunks`, in order. Several processes divide them; each gets all results.

        Args:
            rows: of a chunk.
            function: of one chunk, which may not depend on the chunks before it.
            about: plain values that tell this work from others.
        """
        indices = self.indices(rows)

        def work(i: int) -> Found:
            index = indices[i]
            with memory_told():
                return function(i, *self.feed.rows(index), min(len(index), self.size - i * len(index)))

        return self.runtime.share.each(len(indices), work, (self.seed, self.size, *about))

    @cached_property
    def few(self) -> tuple[Native, np.ndarray]:
        """Two rows, which show a program's sites: an axis of one belongs to a latent that all rows share."""
        return self.feed.rows(self.indices(2)[0])

    @cached_property
    def one(self) -> Trace:
        """The terms of one particle of a few rows; only their names count."""
        data, rows = self.few
        found: Trace = self.runtime.look(traced, self.params, data, self.runtime.index(rows), {}, k=1, kl=False)
        return found

    @cached_property
    def dimensions(self) -> int | None:
        """How many whole numbers the model observes in each row; None if some are real, or may be missing."""
        return dimensions_of(self.program, self.runtime, self.feed.fields)

    @cached_property
    def fixing(self) -> tuple[str, ...]:
        """The fields that fix latents, such as known labels: bounds are on log p of x and of these."""
        return fixing(self.program, self.feed.fields)

    @cached_property
    def draws_nothing(self) -> bool:
        """Whether the program has no latents, or sums all of them out: then every bound is log p(x)."""
        return not self.one.log_q and not self.one.shared

    def reduce(
        self,
        function: Callable[[Trace, Namespace], Array],
        k: int,
        kl: bool,
        reduce: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    ) -> tuple[np.ndarray, ...]:
        """`function(trace, xp)` in chunks within the memory, [k, b] each, reduced over particles in float64."""
        parts = self.reduced(function, k, kl, reduce)
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))

    def reduced(
        self, function: Callable[[Trace, Namespace], Array], k: int, kl: bool, reduce: Callable[[np.ndarray], Found]
    ) -> Iterator[Found]:
        """The same, chunk by chunk."""
        require("k", k, int, 1, "a whole number of particles, at least 1")
        if k not in self.planned:
            self.planned[k] = self._plan(k)
        particles, rows = self.planned[k]

        def work(i: int, data: Native, index: np.ndarray, count: int) -> Found:
            terms = np.concatenate([
                self.runtime.evaluate(function, self.params, data, index, particles, (self.seed, i, j), kl)
                for j in range(-(-k // particles))
            ])  # fmt: skip
            with quiet():
                return reduce(terms[:k, :count].astype(np.float64))

        return self.each_chunk(rows, work, *_named(function), k, kl, particles)

    def each_row(self, question: Question, **how: object) -> np.ndarray:
        """The answer to `question(runtime, params, noise, data, index, **how)`, a number of each row, [N] in float64.

        Chunks have at most 512 rows, each with noise of its own, which is the same at each call.
        """

        def work(i: int, data: Native, index: np.ndarray, count: int) -> np.ndarray:
            found = self.runtime.ask(question, self.params, (self.seed, i), data, self.runtime.index(index), **how)
            return np.asarray(found, np.float64)[:count]

        return np.concatenate([*self.each_chunk(ROWS, work, *_named(question))])

    def over(self, function: Callable[[Native, np.ndarray, int], Sites], rows: int | None = None) -> Sites:
        """Join the results of `function(data, index, chunk)`, [·, B, …] each, along the rows.

        Results that all rows share, [·, 1, …], must be the same for each chunk. Names may have a prefix before a "/".
        Only functions that draw shared latents, by `drawing`, may depend on the chunks before.

        Raises:
            ProgramError: a shared result differs between chunks.
        """
        rows = max(rows or ROWS, 2)
        if self.runtime.share.processes > 1 and not self._shares_latents:
            each = self.each_chunk(rows, lambda i, data, index, _: function(data, index, i), *_named(function))
        else:
            each = (function(data, index, i) for i, data, index, _ in self.chunks(rows))
        with memory_told():
            parts = [*each]
        index = self.indices(rows)[-1]
        shared = self._shared(index, parts[0]) if len(parts) > 1 else []
        for name in shared:
            _check_alike(name, [p[name] for p in parts])
        join = lambda name: np.concatenate([p[name] for p in parts], axis=1)[:, : self.size]
        return {n: first if n in shared else join(n) for n, first in parts[0].items()}

    def drawing(self, k: int) -> Drawing:
        """(data, index, seed) -> latents drawn from the guide, [K, B, *event]; shared latents are drawn once.

        Raises:
            ProgramError: the guide draws no latents.
        """
        first: Sites = {}
        held: Sites | None = None

        def draws(data: Native, index: np.ndarray, seed: int) -> Sites:
            nonlocal first, held
            if first and held is None:
                held = {n: first[n] for n in self._shared(index, first)}
            found: Sites = self.runtime.draws(self.params, data, index, k, seed, held)
            first = first or check_latents_drawn(self.program, found)
            return found

        return draws

    @cached_property
    def _shares_latents(self) -> bool:
        """Whether the guide draws a latent that all rows share, or may do so, as there is only one row."""
        return any(v.shape[1] == 1 for v in self.runtime.draws(self.params, *self.few, 1, 0).values())

    def _shared(self, index: np.ndarray, found: Sites) -> list[str]:
        """Names of the latents that all rows share, among those found for a chunk."""
        if len(index) > 1:
            return [n for n, v in found.items() if v.shape[1] == 1]
        names = self.runtime.trace(self.params, *self.feed.rows(index), 1, 0, None, False).shared
        return [n for n in found if n in names or n.partition("/")[2] in names]

    def _plan(self, k: int) -> tuple[int, int]:
        """The number of particles and rows whose intermediate results fit the memory."""
        data = self.feed.some(self.runtime.tracer.batch_size or 4)
        written = cache(lambda k, b: self.runtime.bytes_written(self.params, data, k, b))
        if fixed := self.runtime.tracer.batch_size:
            pair = max(written(2, fixed) - written(1, fixed), 1) / fixed
            return _evenly(k, int(self.memory / (pair * fixed))), fixed
        pair = max((written(2, 2) - written(1, 2)) / 2, 1)  # a particle of a row
        datum = max((written(1, 4) - written(1, 2)) / 2 - pair, 0)  # what the particles of a row share
        rows = _evenly(self.size, int(self.memory / (datum + min(k, 64) * pair)))
        return _evenly(k, int((self.memory - rows * datum) / (rows * pair))), rows

    def some(self, most: int, name: str) -> tuple[Evaluator, np.ndarray]:
        """The same program at a random choice of rows, and their indices: the first rows may all be of one class."""
        index = some_rows(self.size, most, self.stream(name))
        return (self if len(index) == self.size else self.of(take(self.feed.fields, index))), index

    def of(self, fields: Mapping[str, np.ndarray]) -> Evaluator:
        """The same program with other data."""
        feed = Feed(self.runtime, fields)
        feed.check_known()
        return replace(self, feed=feed, planned={})

    def simulated(self, size: int, seed: int, mean: bool = False) -> tuple[Sites, Sites]:
        """Latents and observed sites drawn from the model, [size, *event].

        The fields that the model conditions on are those of `rows_for(size, seed)`.
        """
        names, given = self.blank, dict[str, np.ndarray]()
        if self.conditions:
            given = {n: v for n, v in self.rows_for(size, seed).items() if n in self.conditions}
        latents, observed = self.runtime.prior(self.params, {**names, **given}, size, seed, mean)
        return {n: v[0] for n, v in latents.items()}, {n: v[0] for n, v in observed.items()}

    def rows_for(self, size: int, seed: int) -> Sites:
        """Random rows, [size, *event] by field: those that belong to a simulation with this seed."""
        rng = np.random.default_rng(seed)
        index = rng.permutation(self.size)[:size] if size <= self.size else rng.integers(0, self.size, size)
        return take(self.feed.fields, index)

    @cached_property
    def _roles(self) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
        """The role of each field in the model: by field, the site that is observed at it; and the fields that it needs.

        Last, observed sites that draw no field: at values computed from fields, or at a field that the model computes
        with. This is found with two rows and their latents held, by leaving out one field after another.
        """
        if isinstance(self.program, PlainPair):  # it can't be sampled
            return self._named(), (), ()
        index = np.linspace(0, self.size - 1, 2).astype(int)
        rows, (data, where) = take(self.feed.fields, index), self.feed.rows(index)
        try:
            latents = self.runtime.draws(self.params, data, where, 1, 0)
            held = lambda fields: self.runtime.sites(self.params, fields, latents, 2, True)[1]
            every = held(rows)
        except PpdgmError:  # latents that the guide doesn't draw
            return self._named(), self._needed(), ()
        sites, needed = {}, []
        for name in self.fields:
            try:
                without = held({**rows, name: self.blank[name]})
            except PpdgmError:  # it computes with the field
                needed.append(name)
                continue
            own = [n for n in every if n not in without]
            if len(own) == 1 or name in own:  # several may draw parts of it, as of a sequence
                sites[name] = name if name in own else own[0]
        return sites, tuple(needed), tuple(n for n in every if n not in latents and n not in sites.values())

    @property
    def _observed(self) -> list[str]:
        trace = self.one
        return [n for n in (*trace.log_p, *trace.shared) if n not in trace.log_q and n not in trace.values]

    def _named(self) -> dict[str, str]:
        sites = self._observed
        found = {n: n for n in self.fields if n in sites}
        others, left = [n for n in self.fields if n not in found], [n for n in sites if n not in found]
        return found if len(others) != 1 or len(left) != 1 else {**found, others[0]: left[0]}

    def _needed(self) -> tuple[str, ...]:
        try:
            self.runtime.prior(self.params, self.blank, 1, 0, False)
        except PpdgmError:
            return tuple(n for n in self.fields if n not in self._named())
        return ()

    @property
    def drawn_as(self) -> dict[str, str]:
        """The site that draws each field, by the field's name."""
        return self._roles[0]

    @property
    def conditions(self) -> tuple[str, ...]:
        """The fields that the model needs to draw the others."""
        return self._roles[1]

    def may_draw(self, name: str) -> bool:
        """Whether the model draws a field, as far as is known; of a plain pair's site with another name it is not."""
        if self.fields == (name,) or name in self.drawn_as:
            return True
        if isinstance(self.program, PlainPair):
            return bool(set(self._observed) - set(self.drawn_as.values()))
        return name not in self.conditions

    @cached_property
    def _under_mask(self) -> dict[str, str | None]:
        """Observed sites under a mask, and the fields that they are observed at, if that is known."""
        return {o.name: o.field for o in self.runtime.observed(self.params, *self.few, 0) if o.masked}

    @property
    def masked(self) -> tuple[str, ...]:
        """Observed sites under a mask: some numbers of their fields may not be data."""
        return tuple(self._under_mask)

    @property
    def filled(self) -> list[str]:
        """Fields of which some numbers may only be filled in, because their sites are under a mask."""
        known = {*self._under_mask.values(), *(n for n in self.fields if self.drawn_as.get(n, n) in self._under_mask)}
        return [n for n in self.fields if n in known]

    @cached_property
    def without_meaning(self) -> tuple[str, ...]:
        """Latents under a mask: some of their values are not of the data, and may be anything."""
        return under_masks(self.runtime, self.params, *self.few)

    def shown(self, sites: Container[str]) -> tuple[str, str]:
        """The field that is checked and drawn (x, if there is one), and its site.

        Raises:
            ProgramError: no field is among the sites.
        """
        for name in sorted(self.drawn_as, key=lambda n: n != "x"):
            if self.drawn_as[name] in sites:
                return name, self.drawn_as[name]
        raise ProgramError(
            f"ppdgm does not know which site of the model draws a field ({', '.join(self.fields)}). Give the site "
            'the name of its field: P.sample("x", …, obs=x).'
        )

    def simulated_data(self, size: int, seed: int) -> tuple[Sites, Sites]:
        """Latents and data that the model draws, by field, [size, *event].

        The fields that the model draws come from the simulation, and so do those that the program computes from latents
        in `Program.simulated`, such as a label; the fields that it conditions on come from random rows.

        Raises:
            ProgramError: the guide reads a field that no simulation has, or an observed site draws no field: then data
                would not belong to the latents.
        """
        if lost := self._roles[2]:
            raise ProgramError(
                f"site {lost[0]!r} observes a value that the model computes from its fields, or a field that it also "
                f"uses otherwise ({', '.join(self.conditions)}), so the model can't simulate such data."
            )
        latents, observed = self.simulated(size, seed)
        rows = self.rows_for(size, seed)
        fields = {n: observed[s] for n, s in self.drawn_as.items() if s in observed}
        fields |= {n: rows[n] for n in self.conditions}
        said = cast(Program, self.program).simulated(latents, rows)  # a pair can't draw its data
        fields |= {n: v for n, v in said.items() if n in self.fields and n not in fields}
        if missing := [n for n in self.fields if n not in fields]:
            raise ProgramError(
                f"the field {missing[0]!r} is neither drawn by the model nor needed to draw the others, so simulated "
                "rows would not have it. Give the program a method simulated(latents, data) that computes it from "
                "the latents."
            )
        for name in (n for n in self.program.may_miss if n in fields and rows[n].dtype.kind == "f"):
            fields[name] = np.where(np.isnan(rows[name]), np.nan, fields[name])  # with the gaps of real rows
        return latents, {n: np.asarray(fields[n], rows[n].dtype) for n in self.fields}


def _evenly(n: int, most: int) -> int:
    """The size of equal chunks of n, at most `most`: of 70 and 30 rows, the 30 would be filled up to 70."""
    chunks = -(-n // max(1, min(n, most)))
    return -(-n // chunks)


def check_latents_drawn(program: object, sites: Sites) -> Sites:
    """The latents, if there are any.

    Raises:
        ProgramError: with the program.
    """
    if not sites:
        raise ProgramError(f"The guide of {type(program).__name__} draws no latent.")
    return sites


def _named(function: Callable[..., object]) -> tuple[str, ...]:
    """Which function it is, in every process."""
    return (getattr(function, "__qualname__", type(function).__qualname__),)


def flat(sites: Mapping[str, np.ndarray], lead: int = 1) -> Sites:
    """Each site's event as one axis, after the first `lead` axes."""
    return {n: np.reshape(v, (*v.shape[:lead], -1)) for n, v in sites.items()}


def _check_alike(name: str, parts: list[np.ndarray]) -> None:
    first = parts[0].astype(float)
    size = max(float(np.abs(first).max(initial=0.0)), 1e-30)
    if any(np.abs(p - first).max(initial=0.0) > _ALIKE * size for p in parts):
        raise ProgramError(
            f"Site {name.partition('/')[2] or name!r} is one latent for all data, but the guide computes it from the "
            "current rows, so it differs between chunks of rows. Compute it only from parameters, or draw it inside "
            "the data plate."
        )
