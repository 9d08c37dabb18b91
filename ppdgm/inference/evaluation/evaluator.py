"""A trained program and data in a diagnosis: the program is run chunk by chunk, with arrays as results."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ppdgm.data import take
from ppdgm.diagnostics import log_aggregated_of
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.errors import PpdgmError, ProgramError
from ppdgm.inference.evaluation.chunks import SharedDraws, chunks, over_chunks
from ppdgm.inference.evaluation.estimates import Judge, check_density, memory_told
from ppdgm.inference.evaluation.joint import Joint
from ppdgm.inference.evaluation.latents import Latents
from ppdgm.inference.evaluation.means import means_of_rows
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.row_independence import ALIKE
from ppdgm.program import PlainPair

ROWS = 512  # rows of a chunk
ONCE = 200  # draws of the guide for each of a few rows: one number, so that they are compiled once
Sites = dict[str, np.ndarray]


@dataclass(frozen=True)
class Terms:
    """Draws of the guide with their densities.

    Attributes:
        latents: [S, N, *event] by site.
        kl: closed forms, or log q − log p, of each site: [N, D], or [N].
        log_p, log_q: of the latents, [S, N].
        seen: log p(x|z), [S, N].
    """

    latents: Sites
    kl: Sites
    log_p: np.ndarray
    log_q: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True)
class Subject:
    """A program with parameters and data on a device.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        feed: of the data.
        fields: names of the data's fields.
        seed: of all draws.
        memory: bytes that a chunk's intermediate results may take.
    """

    runtime: Any
    params: Any
    feed: Feed
    fields: tuple[str, ...]
    seed: int
    memory: int

    @property
    def size(self) -> int:
        """N."""
        return self.feed.size

    @cached_property
    def judge(self) -> Judge:
        """The judge of bounds and log-weights."""
        return Judge(self.runtime, self.params, self.feed, self.memory)

    @cached_property
    def dtype(self) -> str:
        """The type of the program's floating arrays."""
        floats = [v for v in self.runtime.fetch(self.params).values() if v.dtype.kind == "f"]
        return str(floats[0].dtype) if floats else "float32"

    def stream(self, name: str, i: int = 0) -> int:
        """A seed for each use and chunk: with one seed, two draws of one shape would share their noise."""
        words = (self.seed, i, *name.encode())
        return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)

    def chunks(self, size: int, rows: int = ROWS) -> list[np.ndarray]:
        """Indices of rows, in chunks of one size: the last chunk is filled up from the first rows."""
        return chunks(self.runtime, size, rows)

    def some(self, most: int, name: str) -> tuple[Subject, np.ndarray]:
        """The same program at a random choice of rows, and their indices: the first rows may all be of one class."""
        index = some_rows(self.size, most, self.stream(name))
        return (self if len(index) == self.size else self.of(take(self.feed.fields, index))), index

    def over(self, function: Callable[[Any, np.ndarray, int], Sites], size: int, rows: int = ROWS) -> Sites:
        """Join the results of `function(data, index, chunk)`, [·, B, …] each, over the first rows of `some`."""
        return over_chunks(self.runtime, self.params, self.feed, function, size, rows)

    def draws(self, data: Any, index: np.ndarray, k: int, seed: int) -> Sites:
        """Latents drawn from the guide for one chunk of data; see `drawing`."""
        return self.drawing(k)(data, index, seed)

    def drawing(self, k: int) -> Callable[[Any, np.ndarray, int], Sites]:
        """(data, index, seed) -> latents drawn from the guide, [K, B, *event]; shared latents are drawn once.

        Raises:
            ProgramError: the guide draws no latents.
        """
        drawn = SharedDraws(self.runtime, self.params, k)

        def draws(data: Any, index: np.ndarray, seed: int) -> Sites:
            if not (found := drawn(data, index, seed)):
                raise ProgramError("the guide draws no latent.")
            return found

        return draws

    def terms(self, draws: int) -> Terms:
        """Draws of the guide for all data, with their densities.

        Raises:
            ProgramError: latents that all rows share, enumerated ones, or none.
        """

        def read(data: Any, index: np.ndarray, i: int) -> Sites:
            trace = self.runtime.trace(self.params, data, index, draws, self.stream("terms", i), None, True)
            check_density(trace)
            if trace.shared or trace.marginal is not None or not trace.log_q:
                raise ProgramError(
                    "it needs a latent for each row, drawn by the guide, but this program has "
                    + ("latents that all rows share." if trace.shared else "enumerated ones, or none.")
                )
            sites = list(trace.log_q)
            apart = {n: trace.log_q[n] - trace.log_p.get(n, 0.0) for n in sites}
            forms = {n: f.mean(0) if f.ndim == 3 else f for n, f in trace.kl.items()}
            each = {n: _rows(forms[n], len(index)) if n in forms else apart[n].mean(0) for n in sites}
            return {
                **{f"z/{n}": trace.values[n] for n in sites if n in trace.values},
                **{f"kl/{n}": v[None] for n, v in each.items()},
                "p": sum(trace.log_p.get(n, 0.0) for n in sites) + np.zeros_like(trace.log_q[sites[0]]),
                "q": sum(trace.log_q.values()),
                "x": sum((v for n, v in trace.log_p.items() if n not in sites), np.zeros_like(trace.log_q[sites[0]])),
            }

        found = self.over(read, self.size, min(ROWS, max(1, ROWS * 4 // draws)))
        part = lambda name: {n.partition("/")[2]: v for n, v in found.items() if n.startswith(f"{name}/")}
        return Terms(part("z"), {n: v[0] for n, v in part("kl").items()}, found["p"], found["q"], found["x"])

    def means(self) -> tuple[Sites, Sites]:
        """Latents at their means, and observed sites at theirs given these, [N, *event]."""
        over = lambda function, rows: self.over(function, self.size, rows)
        with warnings.catch_warnings():  # the means of draws are good enough for pictures and variances
            warnings.simplefilter("ignore", UserWarning)
            return means_of_rows(self.runtime, self.params, over)

    def aggregated(self, latents: Sites) -> np.ndarray:
        """log q(z) = log 1/N Σ_n q(z|x_n) at draws [S, N, *event], [S, N]."""
        first = next(iter(latents.values()))
        width = sum(int(np.prod(v.shape[2:])) for v in latents.values())
        chunk = int(np.clip(np.sqrt(self.memory / (32 * max(width, 4))), 64, 1024))
        chunk = min(chunk, max(self.size, 64))
        if fixed := self.runtime.tracer.batch_size:
            chunk = fixed
        flat = {n: v.reshape(-1, *v.shape[2:]) for n, v in latents.items()}

        def log_density(draws: Mapping[str, np.ndarray], where: slice) -> np.ndarray:
            index = np.arange(where.start, where.start + chunk) % self.size
            data, rows = self.feed.rows(index)
            short = chunk - len(next(iter(draws.values())))  # one shape, so that nothing is compiled twice
            padded = {n: np.concatenate([v, np.repeat(v[:1], short, 0)]) for n, v in draws.items()}
            given = {n: v[:, None] for n, v in padded.items()}
            with memory_told():
                found: np.ndarray = self.runtime.guide(self.params, data, rows, given)
            return found[: chunk - short, : where.stop - where.start]

        found = log_aggregated_of(log_density, flat, self.size, chunk)
        return found.reshape(first.shape[:2])

    def prior_moves(self, terms: Terms) -> bool:
        """Whether log p(z) depends on a row's other fields, as that of p(z|y) does; checked with other rows' fields."""
        if len(self.fields) == 1 or not terms.latents:
            return False
        other = np.random.default_rng(self.stream("other")).permutation(self.size)
        for index in self.chunks(self.size):
            data, rows = self.feed.rows(other[index])
            given = {n: v[:1, index] for n, v in terms.latents.items()}
            with memory_told():
                trace = self.runtime.trace(self.params, data, rows, 1, 0, given, False)
            own, there = terms.log_p[0, index], sum(trace.log_p.get(n, 0.0) for n in trace.log_q)
            if (np.abs(there - own) > ALIKE * (1 + np.abs(own))).any():
                return True
        return False

    def joint(self, size: int) -> tuple[Joint, Sites]:
        """The joint density at the first rows, and draws of the guide, [ONCE, B, *event]; for real latents.

        To use other rows, take `some` first.

        Raises:
            ProgramError: latents are not real.
        """
        index = np.arange(size) % self.size
        data, rows = self.feed.rows(index)
        self.runtime.check_walked(self.params, data, rows)
        drawn = self.draws(data, rows, ONCE, self.stream("joint"))
        return Joint(self.runtime, self.params, data, rows, Latents.of(drawn), self.dtype), drawn

    def simulated(self, size: int, seed: int, mean: bool = False) -> tuple[Sites, Sites]:
        """Latents and observed sites drawn from the model, [size, *event].

        The fields that the model conditions on are those of `rows_for(size, seed)`.
        """
        names, given = dict.fromkeys(self.fields), {}
        if self.conditions:
            given = {n: v for n, v in self.rows_for(size, seed).items() if n in self.conditions}
        latents, observed = self.runtime.prior(self.params, names | given, size, seed, mean)
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
        if isinstance(self.runtime.tracer.program, PlainPair):  # it can't be sampled
            return self._named(), (), ()
        index = np.linspace(0, self.size - 1, 2).astype(int)
        rows, (data, where) = take(self.feed.fields, index), self.feed.rows(index)
        try:
            latents = self.runtime.draws(self.params, data, where, 1, 0)
            held = lambda fields: self.runtime.sites(self.params, fields, latents, 2)[1]
            every = held(rows)
        except PpdgmError:  # latents that the guide doesn't draw
            return self._named(), self._needed(), ()
        sites, needed = {}, []
        for name in self.fields:
            try:
                without = held({**rows, name: None})
            except PpdgmError:  # it computes with the field
                needed.append(name)
                continue
            if own := [n for n in every if n not in without]:
                sites[name] = own[0]
        return sites, tuple(needed), tuple(n for n in every if n not in latents and n not in sites.values())

    def _named(self) -> dict[str, str]:
        data, index = self.feed.rows(self.chunks(self.size, 1)[0])
        trace = self.runtime.trace(self.params, data, index, 1, 0, None, False)
        sites = [n for n in (*trace.log_p, *trace.shared) if n not in trace.log_q and n not in trace.values]
        found = {n: n for n in self.fields if n in sites}
        others, left = [n for n in self.fields if n not in found], [n for n in sites if n not in found]
        return found if len(others) != 1 or len(left) != 1 else {**found, others[0]: left[0]}

    def _needed(self) -> tuple[str, ...]:
        try:
            self.runtime.prior(self.params, dict.fromkeys(self.fields), 1, 0, False)
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

    @cached_property
    def masked(self) -> tuple[str, ...]:
        """Observed sites under a mask: some numbers of their fields may not be data."""
        data, index = self.feed.rows(self.chunks(self.size, 2)[0])
        return tuple(o.name for o in self.runtime.observed(self.params, data, index, 0) if o.masked)

    def shown(self, sites: Container[str]) -> tuple[str, str]:
        """The field that is checked and drawn (x, if there is one), and its site.

        Raises:
            ProgramError: no field is among the sites.
        """
        for field in sorted(self.drawn_as, key=lambda n: n != "x"):
            if self.drawn_as[field] in sites:
                return field, self.drawn_as[field]
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
        said = self.runtime.tracer.program.simulated(latents, rows)
        fields |= {n: v for n, v in said.items() if n in self.fields and n not in fields}
        if missing := [n for n in self.fields if n not in fields]:
            raise ProgramError(
                f"the field {missing[0]!r} is neither drawn by the model nor needed to draw the others, so simulated "
                "rows would not have it. Give the program a method simulated(latents, data) that computes it from "
                "the latents."
            )
        return latents, {n: np.asarray(fields[n], rows[n].dtype) for n in self.fields}

    def of(self, fields: Mapping[str, np.ndarray]) -> Subject:
        """The same program with other data."""
        feed = Feed(self.runtime, fields)
        feed.check_known()
        return Subject(self.runtime, self.params, feed, self.fields, self.seed, self.memory)


def flat(sites: Mapping[str, np.ndarray], lead: int = 1) -> Sites:
    """Each site's event as one axis, after the first `lead` axes."""
    return {n: np.reshape(v, (*v.shape[:lead], -1)) for n, v in sites.items()}


def _rows(form: np.ndarray, size: int) -> np.ndarray:
    """[B, D], if a closed form has one row for all."""
    return np.broadcast_to(form, (size, *form.shape[1:]))
