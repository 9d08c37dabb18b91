"""The sites of a plain pair's run, and where the dimensions of its plates are, whatever their order."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.language import mistakes
from ppdgm.language.divergence import Library, closed_form
from ppdgm.language.elimination import Term
from ppdgm.language.masks import has_mask
from ppdgm.language.native import Frame
from ppdgm.language.vocabulary import Array, Dist, Namespace

PARTICLES = "_ppdgm_particles"  #: the plate that vectorises particles, to the left of all others
Frames = Mapping[str, Frame]
Slopes = dict[str, Array]


@dataclass(frozen=True)
class Site:
    """A sample statement from a run: its distribution is already expanded over the plates around it.

    Attributes:
        frames: the plates around it.
        asks: whether it asks to be enumerated.
        mask: of the handlers around it; None if there is none, or if the distribution has it.
        scale: around it; on NumPyro, without the part that its plates explain.
        intermediates: of the draw, with which NumPyro scores it.
    """

    name: str
    fn: Dist
    value: Array
    frames: Frames
    observed: bool
    auxiliary: bool
    asks: bool = False
    mask: Array | bool | None = None
    scale: Array | float = 1.0
    intermediates: Sequence[Array] = ()

    @property
    def plates(self) -> dict[str, int]:
        """The plates around it, with their dimensions, negative."""
        return {n: f.dim for n, f in self.frames.items() if n != PARTICLES and f.dim is not None}

    @property
    def masked(self) -> bool:
        """Whether it has a mask, of its own or of a handler."""
        return not (self.mask is None or self.mask is True) or has_mask(self.fn)


@dataclass(frozen=True)
class Layout(ABC):
    """Where the batch dimensions of a run are: a run has K, then plates in any order; a trace has [K, B, *inner].

    Enumerated sites have dimensions to the left of all these; in gathered values, their dimensions follow B.

    Args:
        plate: name of the data plate.
        nesting: number of plate dimensions.
        k: particles; None for one, without its own dimension.
        b: B.
    """

    plate: str
    nesting: int
    k: int | None
    b: int
    xp: ClassVar[Namespace]
    library: ClassVar[Library]

    @property
    @abstractmethod
    def written(self) -> str:
        """How a program creates the data plate."""

    @abstractmethod
    def log_prob(self, site: Site, judged: bool = False) -> Array:
        """log p of a site, in the run's dimensions, [*axes, *plates].

        With `judged`, the log p of a latent is −∞ outside its support.
        """

    @abstractmethod
    def term(self, site: Site, judged: bool = False) -> Array:
        """log p of a site per particle and row, [K, B]; [K, 1] outside the data plate; `judged` as for `log_prob`."""

    @abstractmethod
    def per_datum(self, term: Term) -> Array:
        """A term without the dimensions of enumerated sites, [K, B]; [K, 1] outside the data plate."""

    @staticmethod
    @abstractmethod
    def logsumexp(x: Array, axis: int) -> Array:
        """log Σ exp x over an axis."""

    @staticmethod
    @abstractmethod
    def slopes(function: Callable[[Slopes], Array], at: Slopes) -> Slopes:
        """The gradient of a function's value."""

    @staticmethod
    @abstractmethod
    def array(x: np.ndarray, like: Array) -> Array:
        """A NumPy array as a native one, on the device and in the floating type of another one."""

    @staticmethod
    @abstractmethod
    def numbers(x: Array) -> np.ndarray:
        """A native array as a NumPy one."""

    @property
    def width(self) -> int:
        """Dimensions of a run, to the right of those of enumerated sites."""
        return self.nesting + (self.k is not None)

    def local(self, site: Site) -> bool:
        """Whether the site is inside the data plate."""
        return self.plate in site.frames

    def gather(self, site: Site, x: Array, events: int, axes: int = 0) -> Array:
        """x [*axes, plates, *event] as [K, B, *axes, *inner, *event]; B = 1 for a site outside the data plate.

        Args:
            site: x is its value or its terms.
            x: the array.
            events: dimensions of an event.
            axes: number of enumerated sites, whose dimensions x may have.

        Raises:
            ProgramError: x has a batch dimension that no plate declares.
        """
        data, kept = self._kept(site.frames)
        width, lead = self.nesting + 1, x.ndim - events
        front = min(axes, max(0, lead - self.width))
        if lead - front > width:
            raise self._undeclared(site)
        ones = (1,) * (axes - front), (1,) * (width - lead + front)
        x = x.reshape((*ones[0], *x.shape[:front], *ones[1], *x.shape[front:]))
        spare = [axes + i for i in range(width) if i not in kept]
        if x.shape[axes] not in (1, self.k or 1) or any(x.shape[i] != 1 for i in spare):
            raise self._undeclared(site)
        outer, inner = kept[: 1 + (data is not None)], kept[1 + (data is not None) :]
        order = [*(axes + i for i in outer), *range(axes), *(axes + i for i in inner)]
        x = self.xp.permute_dims(x, (*order, *spare, *range(axes + width, x.ndim)))
        x = x.reshape((*x.shape[: len(order)], *x.shape[axes + width :]))
        return x if data is not None else x[:, None]

    def spread(self, name: str, fn: Dist, frames: Frames, x: Array, axes: int = 0) -> Array:
        """The inverse of `gather`, for a value of the site."""
        data, kept = self._kept(frames)
        shape, events = tuple(fn.batch_shape), len(fn.event_shape)
        lead, expected = 1 + (data is not None), events + len(kept) + (data is None)
        axes = axes if x.ndim == expected + axes else 0  # a value may be the same for all enumerated values
        front = tuple(x.shape[2 : 2 + axes])
        if axes or len(shape) > self.width:
            shape = ((1,) * self.width + shape)[-self.width :]
        if x.ndim != expected + axes or math.prod(x.shape) != math.prod((*front, *shape, *fn.event_shape)):
            raise ProgramError(
                f"Site {name!r}: got a value of shape {tuple(x.shape)}, expected [K, B, …] with K = {self.k or 1} and "
                f"events of shape {tuple(fn.event_shape)}."
            )
        x = x if data is not None else x[:, 0]
        order = [i if i < lead else i + axes for i in sorted(range(len(kept)), key=kept.__getitem__)]
        x = self.xp.permute_dims(x, (*range(lead, lead + axes), *order, *range(len(kept) + axes, x.ndim)))
        return x.reshape((*front, *shape, *fn.event_shape))

    def value(self, site: Site, axes: int = 0) -> Array:
        """The site's value, [K, B, *axes, *inner, *event]."""
        return self.gather(site, site.value, len(site.fn.event_shape), axes)

    def value_at(self, site: Site, told: Mapping[str, Array]) -> Array:
        """The same, or what is `told` of the site, [K, B, *inner, *event]."""
        return self.value(site if site.name not in told else replace(site, value=told[site.name]))

    def rows(self, site: Site, truth: Array, axes: int) -> Array:
        """Whether a truth over the site's batch holds for each row, [B]; right if it is for one enumerated value."""
        found, xp = self.gather(site, truth, 0, axes)[0], self.xp
        found = xp.all(found.reshape((*found.shape[: 1 + axes], -1)), axis=-1)
        return xp.broadcast_to(xp.any(found.reshape((len(found), -1)), axis=-1), (self.b,))

    def in_run(self, site: Site, sizes: Mapping[str, int], judged: bool = False) -> Term:
        """A site's term as in the run, expanded over all its plates; `sizes` of the enumerated sites."""
        found, full = self.log_prob(site, judged), [1] * self.width
        self.check_axes(site, tuple(found.shape), sizes)
        for n, dim in site.plates.items():
            full[dim] = site.frames[n].size
        return Term(self.xp.broadcast_to(found, np.broadcast_shapes(tuple(found.shape), tuple(full))), site.plates)

    def shape(self, site: Site, size: int, axis: int) -> tuple[int, ...]:
        """The shape of an array with a number for each of the values of an enumerated site, in its plates."""
        shape = [size, *(1,) * (-axis - 1)]
        for n, dim in site.plates.items():
            shape[dim] = site.frames[n].size
        return tuple(shape)

    def kl(self, q: Site, p: Site) -> Array | None:
        """Closed-form KL [K, B, D] of a latent that is only in the data plate."""
        form = self.form(q, p)
        return None if form is None else self.gather(q, form.reshape((*q.fn.batch_shape, -1)), 1)

    def form(self, q: Site, p: Site) -> Array | None:
        """The same, with the run's dimensions, and D."""
        alone = all(set(s.frames) <= {self.plate, PARTICLES} and self.local(s) for s in (q, p))
        if not alone or any(s.mask is not None and s.mask is not True for s in (q, p)):
            return None
        return closed_form(q.fn, p.fn, self.library)

    def check_axes(self, site: Site, shape: tuple[int, ...], sizes: Mapping[str, int]) -> None:
        """Refuse a site with dimensions to the left of its plates that don't belong to enumerated sites."""
        lead = shape[: max(0, len(shape) - self.width)]
        if not broadcasts(lead, tuple(sizes.values())[::-1]):
            raise self._undeclared(site)

    def _kept(self, frames: Frames) -> tuple[int | None, list[int]]:
        place = {n: self.nesting + 1 + f.dim for n, f in frames.items() if f.dim is not None}
        data = place.get(self.plate)
        inner = sorted(i for n, i in place.items() if n not in (self.plate, PARTICLES))
        return data, [0, *([] if data is None else [data]), *inner]

    def _undeclared(self, site: Site) -> ProgramError:
        if self.local(site):
            return plate_misfit(site.name, site.fn, site.frames)
        others = [n for n in site.frames if n != PARTICLES]
        return mistakes.outside(site.name, tuple(site.fn.batch_shape), self.written, others, site.observed)


def plate_misfit(name: str, fn: Dist, frames: Frames) -> ProgramError:
    """The error for a distribution whose batch shape is not that of the plates around it."""
    full = lambda f: getattr(f, "full_size", None) or f.size
    around = {n: (f.dim, f.size, full(f)) for n, f in frames.items() if n != PARTICLES and f.dim}
    return mistakes.misfit(name, fn, around)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of a shape can be broadcast to another."""
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))
