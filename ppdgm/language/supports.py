"""Whether data and latents are in the supports of distributions, row by row; masked rows count as inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from ppdgm.language.density import WrittenDensity
from ppdgm.language.steps import Steps
from ppdgm.language.vocabulary import Array, Dist, Namespace

if TYPE_CHECKING:
    from ppdgm.language.native import Constraint, DistClass


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
    dist: Dist
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
        discrete: whether the numbers are whole ones, each with a support of its own.
    """

    name: str
    field: str | None
    shape: tuple[int, ...]
    support: Constraint
    bounds: tuple[Array, ...]
    told: str
    masked: bool
    discrete: bool = False


class Supports(ABC):
    """What a backend knows of its library's supports.

    Attributes:
        xp: array-API namespace.
        array, constraint: types of arrays and of supports.
        independent, expanded, masked: classes that wrap other distributions.
        bounds: supports that bound each number separately: a sum of 1, for example, has rounding errors.
        unknown: the errors by which the library says that a support is not known.
    """

    xp: ClassVar[Namespace]
    array: ClassVar[type]
    constraint: ClassVar[type]
    independent: ClassVar[DistClass]
    expanded: ClassVar[DistClass]
    masked: ClassVar[DistClass]
    bounds: ClassVar[tuple[type, ...]]
    unknown: ClassVar[tuple[type[Exception], ...]]

    @abstractmethod
    def check(self, support: Constraint, value: Array) -> Array:
        """Whether values are in a support."""

    @abstractmethod
    def of_each(self, support: Constraint) -> Constraint:
        """The support of each single number."""

    @abstractmethod
    def truth(self, mask: Array | bool, like: Array) -> Array:
        """A mask as an array, where another one is."""

    @abstractmethod
    def is_field(self, value: Array, x: Array) -> bool:
        """Whether a value is a field of the data."""

    def describe(self, seen: Seen, batch: Mapping[str, Array], checked: bool = True) -> Observed:
        """What is known about a site.

        Args:
            seen: the site.
            batch: contains the rows.
            checked: whether distributions check their values, unless the program turned this off: validate_args=False
                means that data outside the support are allowed, such as grey values of a Bernoulli.
        """
        scan = seen.dist if isinstance(seen.dist, Steps) else None
        dist = seen.dist if scan is None else scan.base_dist
        alone, masked = self.inner(dist), seen.mask is not None or (scan is not None and scan.mask is not None)
        off = checked and not alone._validate_args and not isinstance(alone, WrittenDensity)
        support = None if off else self.of(alone)
        wrapped = dist
        while wrapped is not alone:
            masked, wrapped = masked or isinstance(wrapped, self.masked), wrapped.base_dist
        field = next((n for n, x in batch.items() if self.is_field(seen.value, x)), None)
        bounds, shape = tuple(self.arrays(support)), tuple(np.shape(seen.value)[1:])
        bounds = bounds if scan is None or not bounds else scan.bounds
        text = type(support).__name__.strip("_") if bounds else f"{support}"
        each = None if support is None else self.of_each(support)
        discrete = bool(getattr(each, "is_discrete", False)) and not getattr(each, "event_dim", 0)
        return Observed(seen.name, field, shape, support, bounds, f"{type(alone).__name__}, {text}", masked, discrete)

    def rows_inside(self, seen: Seen) -> Array:
        """Whether each row is in the site's support, [B]."""
        if isinstance(seen.dist, Steps):
            return seen.dist.inside  # found at each time
        found = self.inside(seen.dist, seen.value, self.in_support)
        found = self.truth(np.ones(1, bool), seen.value) if found is None else found
        return seen.rows(found if seen.mask is None else found | ~self.truth(seen.mask, found))

    def inside(self, d: Dist, value: Array, ask: Callable[[Dist, Array], Array | None]) -> Array | None:
        """The answer of `ask` for the inner distribution, in the whole's batch shape; None if that isn't known."""
        if not isinstance(d, self.independent | self.expanded | self.masked):
            return ask(d, value)
        found = self.inside(d.base_dist, value, ask)
        if found is None or isinstance(d, self.expanded):
            return found
        if isinstance(d, self.masked):
            return None if d._mask is False else found | ~self.truth(d._mask, found)
        n = d.reinterpreted_batch_ndims
        return self.xp.all(found, axis=tuple(range(-n, 0))) if n else found

    def inner(self, d: Dist) -> Dist:
        """The distribution inside those that wrap it."""
        while isinstance(d, self.independent | self.expanded | self.masked):
            d = d.base_dist
        return d

    def in_support(self, d: Dist, value: Array) -> Array | None:
        """Whether a value is in the support."""
        support = self.of(d)
        return None if support is None else self.check(support, value)

    def in_bounds(self, d: Dist, value: Array) -> Array | None:
        """The same for supports that bound each number separately."""
        support = self.of(d)
        return self.check(support, value) if isinstance(self.of_each(support), self.bounds) else None

    def confine(self, d: Dist, value: Array, log_prob: Array) -> Array:
        """log p of a latent drawn elsewhere: −∞ outside bounds of its support, where formulas still give numbers."""
        there = self.inside(d, value, self.in_bounds)
        return log_prob if there is None else self.xp.where(there, log_prob, -float("inf"))

    def of(self, d: Dist) -> Constraint:
        """A distribution's support, unless it is all real numbers, or not known."""
        try:
            support = d.support
        except self.unknown:
            return None
        base = self.of_each(support)
        kinds = [c.__name__ for c in type(base).__mro__]
        unknown = base is None or kinds[0] == "_Real" or not {"_Dependent", "dependent_property"}.isdisjoint(kinds)
        return None if unknown else support

    def arrays(self, part: Constraint) -> Iterator[Array]:
        """The arrays in a support."""
        if isinstance(part, self.array):
            yield part
        elif isinstance(part, self.constraint):
            yield from (a for v in vars(part).values() for a in self.arrays(v))
        elif isinstance(part, list | tuple):
            yield from (a for v in part for a in self.arrays(v))
