"""Whether every row of the data is in the support of the distributions of its observed sites."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.data import Stream, take
from ppdgm.data.checks import pieces
from ppdgm.errors import DataError, ProgramError
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.row_independence import stirred
from ppdgm.language.runtime import traced
from ppdgm.language.supports import Observed
from ppdgm.language.vocabulary import Array, Noise, Trace
from ppdgm.models import likelihoods
from ppdgm.models.likelihoods import Likelihood
from ppdgm.program import AnyProgram, Program

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Runtime

ROWS = 512  #: rows that are read at a time
FEW = 3
OWN = likelihoods.__name__.rpartition(".")[0] + "."  #: programs and parts in this package look at all rows in `check`


def check_support(
    program: AnyProgram,
    runtime: Runtime,
    params: Mapping[str, np.ndarray],
    feed: Feed,
    training: bool,
    rounded: bool = False,
) -> None:
    """Refuse data if a row is outside its distribution's support, where log p(x) is −∞ or a formula gives some number.

    Rows for which a plain pair has no parameters are refused too.

    If a support has its own bounds, these are used. If they come only from data, such as a Binomial's total, a row
    outside is an error in the data. If they depend on parameters, such a row is refused before training, because there
    is no gradient out of −∞, but later it is no error. A support that depends on draws is not checked. If rows are not
    refused, log p(x) = −∞ shows them.

    Args:
        program: a Program or a plain pair.
        runtime: its backend's.
        params: values of its parameters, NumPy arrays.
        feed: the data.
        training: whether training begins here.
        rounded: whether x is drawn from probabilities: then 0 or 1, by rounding, are checked.

    Raises:
        DataError: with the first such row, the site and the support.
        ProgramError: the pair does not know these rows.
    """
    feed.check_known()
    if _looks_itself(program):
        return
    look = _Checks(runtime, params, feed, rounded, program.may_miss)
    if runtime.facts is None:
        runtime.facts = look.observed()
    known = [o for o in runtime.facts if o.support is not None]
    sites = [o for o in known if not o.bounds or o.bounds[0] in (("data", "params") if training else ("data",))]
    alone = [o for o in sites if o.field in feed.fields and not o.bounds and not o.masked]
    for site in alone:
        look.refuse(site, look.at_once(site))
    if others := [o for o in sites if o not in alone]:
        found = list(look.by_reading())
        for site in others:
            look.refuse(site, np.concatenate([f[site.name] for f in found])[: feed.size])
    look.indices(isinstance(program, Program))


def dimensions_of(program: AnyProgram, runtime: Runtime, fields: Mapping[str, np.ndarray | Stream]) -> int | None:
    """D, how many whole numbers the model observes in each row; None if some numbers are real, or may be missing.

    None too if fields fix latents: a label that is known in some rows is one more number of these rows alone; or if the
    density is that of counts given their total: a code of the model needs the total too. For the
    package's own programs with its own likelihoods, the likelihood says whether numbers are whole; for others,
    `check_support` has to have been called.
    """
    if fixing(program, fields) or takes_total(program):
        return None
    if _looks_itself(program):
        likelihood = cast(Program, program).independent()
        shape: tuple[int, ...] = getattr(program, "event_shape", ())
        return int(np.prod(shape)) if isinstance(likelihood, Likelihood) and likelihood.discrete else None
    sites = runtime.facts
    if not sites or not all(o.discrete and not o.masked for o in sites):
        return None
    return sum(int(np.prod(o.shape)) for o in sites)


def takes_total(program: AnyProgram) -> bool:
    """Whether the program's density of x is one given the total of x."""
    if not isinstance(program, Program):
        return False
    parts = (program.independent(), *(getattr(program, name) for name in type(program).model_fields))
    return any(isinstance(p, Likelihood) and p.takes_total for p in parts)


def fixing(program: AnyProgram, fields: Mapping[str, np.ndarray | Stream]) -> tuple[str, ...]:
    """The fields that fix a latent of some row, such as known labels: then bounds are on log p of x and of these."""
    if not isinstance(program, Program) or type(program).fixes is Program.fixes:
        return ()
    return tuple(n for n, rows in fields.items() if _fixes(program, n, rows))


def _fixes(program: Program, name: str, rows: np.ndarray | Stream) -> bool:
    if name == "x":  # it is what a latent explains
        return False
    for value in np.unique(np.asarray(rows[:]), axis=0):
        with suppress(DataError):  # a value that stands for a missing one fixes nothing
            return bool(program.fixes({name: value[None]}))
    return False


def _looks_itself(program: AnyProgram) -> bool:
    """Whether `check` already looks at all rows: in the package's own programs with its own likelihoods."""
    if not isinstance(program, Program) or not type(program).__module__.startswith(OWN):
        return False
    parts = (getattr(program, name) for name in type(program).model_fields)
    return all(type(p).__module__.startswith(OWN) for p in parts if isinstance(p, Likelihood))


class _Checks:
    """The checks of a program and its data."""

    def __init__(
        self,
        runtime: Runtime,
        params: Mapping[str, np.ndarray],
        feed: Feed,
        rounded: bool,
        may_miss: tuple[str, ...],
    ):
        self.runtime, self.feed, self.rounded, self.may_miss = runtime, feed, rounded, may_miss
        self.host, self.params = params, runtime.put(params)
        self.fixed = runtime.tracer.batch_size

    def observed(self) -> list[Observed]:
        """The observed sites; each shows what the bounds of its support depend on, in place of the bounds."""
        data, index = self._rows(np.arange(self.fixed or FEW) % self.feed.size)
        sites = self.runtime.observed(self.params, data, index, 0)
        if not any(o.bounds for o in sites):
            return list(sites)
        again = self.runtime.observed(self.params, data, index, 1)
        other = self.runtime.put(stirred(self.host, self.runtime.tracer.labels, alike=False))
        moved = self.runtime.observed(other, data, index, 0)
        found = []
        for o, a, m in zip(sites, again, moved, strict=True):
            of = "data" if _same(o.bounds, m.bounds) else "params"
            found.append(replace(o, bounds=(of if _same(o.bounds, a.bounds) else "draws",) if o.bounds else ()))
        return found

    def at_once(self, site: Observed) -> np.ndarray:
        """Whether the rows of a field, as they are, are in the site's support, [N]."""
        field = self.feed.fields[site.field or ""]
        found = np.empty(self.feed.size, bool)
        for index, chunk in pieces(field):
            rows = np.round(chunk) if self.rounded and site.field == "x" else chunk
            rows = np.nan_to_num(rows) if site.field in self.may_miss else rows  # its likelihood checks its entries
            found[index] = self.runtime.within(site.support, rows.reshape(len(rows), *site.shape))
        return found

    def by_reading(self) -> Iterator[dict[str, np.ndarray]]:
        """Whether the rows are in all sites' supports, with the sites' values as the program computes them."""
        for rows in self._chunks():
            data, index = self._rows(rows)
            yield self.runtime.inside(self.params, data, index, 0)

    def indices(self, refused: bool) -> None:
        """Refuse (or warn of) a row for which the program takes a number outside an axis."""
        for rows in self._chunks():
            if not (told := self._misplaced(rows)):
                if told is None:
                    return
                continue
            while len(set(rows)) > 1 and not self.fixed:  # which row it is, with the number of rows that was compiled
                half = np.array_split(np.unique(rows), 2)
                rows = np.resize(half[0] if self._misplaced(np.resize(half[0], len(rows))) else half[1], len(rows))
            told = self._misplaced(rows) or told
            where = "" if self.fixed else f"Row {rows[0]}: "
            message = f"{where}{told}. JAX takes another number there, without a word. Check data, and sizes of arrays."
            if refused:
                raise ProgramError(message)
            warnings.warn(message, stacklevel=5)
            return

    def _misplaced(self, rows: np.ndarray) -> str | None:
        data, index = self._rows(rows)
        read, at = partial(_read, self.runtime), self.runtime.index(index)
        return self.runtime.misplaced("rows", read, at, data, self.params)

    def _chunks(self) -> Iterator[np.ndarray]:
        size = self.fixed or min(self.feed.size, ROWS)
        return (np.arange(start, start + size) % self.feed.size for start in range(0, self.feed.size, size))

    def refuse(self, site: Observed, inside: np.ndarray) -> None:
        """Raise the error for a site that has rows outside its support."""
        if inside.all():
            return
        row, some = int(np.argmin(inside)), int((~inside).sum())
        now = ", at the first values of the parameters" if site.bounds == ("params",) else ""
        raise DataError(
            f"Site {site.name!r}: got data outside the support of {site.told}{now}, first in row {row}. {some} of "
            f"{len(inside)} rows are affected. Check the data, or choose a distribution with a larger support."
        )

    def _rows(self, index: np.ndarray) -> tuple[Native, np.ndarray]:
        if self.runtime.tracer.subsamples:
            data, at = self.feed.rows(index)
            return (self._round(self.runtime.fetch(data)) if self.rounded else data), at
        return self._round(take(self.feed.fields, index)), np.arange(len(index))

    def _round(self, fields: Mapping[str, Array]) -> Native:
        return self.runtime.put({n: np.round(v) if self.rounded and n == "x" else v for n, v in fields.items()})


def _read(runtime: Runtime, rows: Array, moving: tuple[Noise, Native], params: Native) -> Trace:
    return traced(runtime, params, moving[0], moving[1], rows, {}, 1, False)


def _same(some: tuple[np.ndarray, ...], others: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))
