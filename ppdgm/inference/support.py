"""Whether every row of the data is in the support of the distributions that it is observed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ppdgm.data import Stream, take
from ppdgm.data.checks import pieces
from ppdgm.errors import DataError
from ppdgm.inference.apart import stirred
from ppdgm.inference.feed import Feed
from ppdgm.models import likelihoods
from ppdgm.models.likelihoods import Likelihood
from ppdgm.program import Program
from ppdgm.reading import Observed

ROWS = 512  #: that are read at a time
FEW = 3
OWN = likelihoods.__name__.rpartition(".")[0] + "."  #: programs and parts in here look at all rows in `check`


def check_support(
    program: Any, runtime: Any, params: Mapping[str, np.ndarray], feed: Feed, training: bool, rounded: bool = False
) -> None:
    """Refuse data of which a row is outside its distribution's support, where log p(x) is −∞, or a formula goes on.

    So are rows for which a plain pair has no parameters.

    A support that has bounds of its own is looked at as it is: one that comes from data alone, such as a Binomial's
    total, is a fact of the data; one of parameters is refused to begin with, as there is no gradient out of −∞, and is
    no error later. One that depends on draws is not looked at. Where rows are not refused, log p(x) = −∞ tells.

    Args:
        program: a Program or a plain pair.
        runtime: its backend's.
        params: values of its parameters, NumPy arrays.
        feed: the data.
        training: whether training begins here.
        rounded: whether x is drawn from probabilities: 0 or 1, as rounding makes of them.

    Raises:
        DataError: with the first such row, the site and the support.
        ProgramError: the pair does not know these rows.
    """
    feed.check_known()
    if _looks_itself(program):
        return
    look = _Look(runtime, params, feed, rounded)
    if runtime.facts is None:
        runtime.facts = [o for o in look.observed() if o.support is not None]
    sites = [o for o in runtime.facts if not o.bounds or o.bounds[0] in (("data", "params") if training else ("data",))]
    alone = [o for o in sites if o.field in feed.fields and not o.bounds and not o.masked]
    for site in alone:
        look.refuse(site, look.at_once(site))
    if others := [o for o in sites if o not in alone]:
        found = list(look.by_reading())
        for site in others:
            look.refuse(site, np.concatenate([f[site.name] for f in found])[: feed.size])


def _looks_itself(program: Any) -> bool:
    """Whether `check` sees all rows already: of the package's own programs with its own likelihoods."""
    if not isinstance(program, Program) or not type(program).__module__.startswith(OWN):
        return False
    parts = (getattr(program, name) for name in type(program).model_fields)
    return all(type(p).__module__.startswith(OWN) for p in parts if isinstance(p, Likelihood))


class _Look:
    """What is asked of a program and its data."""

    def __init__(self, runtime: Any, params: Mapping[str, np.ndarray], feed: Feed, rounded: bool):
        self.runtime, self.feed, self.rounded = runtime, feed, rounded
        self.host, self.params = params, runtime.put(params)
        self.fixed = runtime.tracer.batch_size

    def observed(self) -> list[Observed]:
        """The observed sites, with what the bounds of their supports depend on in the place of these."""
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
            found[index] = self.runtime.within(site.support, rows.reshape(len(rows), *site.shape))
        return found

    def by_reading(self) -> Iterator[dict[str, np.ndarray]]:
        """Whether the rows are in all sites' supports, as the program makes the sites' values of them."""
        size = self.fixed or min(self.feed.size, ROWS)
        for start in range(0, self.feed.size, size):
            data, index = self._rows(np.arange(start, start + size) % self.feed.size)
            yield self.runtime.inside(self.params, data, index, 0)

    def refuse(self, site: Observed, inside: np.ndarray) -> None:
        """Raise the error for a site of which some rows are not inside."""
        if inside.all():
            return
        row, some = int(np.argmin(inside)), int((~inside).sum())
        now = ", as it is at the first parameter values" if site.bounds == ("params",) else ""
        raise DataError(
            f"Site {site.name!r}: got data outside the support of {site.told}{now}, first in row {row}; {some} of "
            f"{len(inside)} rows are. Check the data, or choose a distribution that has them."
        )

    def _rows(self, index: np.ndarray) -> tuple[Any, np.ndarray]:
        if self.runtime.tracer.subsamples:
            data, at = self.feed.rows(index)
            return (self._round(self.runtime.fetch(data)) if self.rounded else data), at
        return self._round(take(self.feed.fields, index)), np.arange(len(index))

    def _round(self, fields: Mapping[str, np.ndarray | Stream]) -> Any:
        return self.runtime.put({n: np.round(v) if self.rounded and n == "x" else v for n, v in fields.items()})


def _same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))
