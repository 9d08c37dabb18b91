"""The sites of a plain Pyro function, and their per-row terms, whatever the dimensions of its plates."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

import array_api_compat.torch as xp
import torch
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask

from ppdgm.backends.pyro.support import confine, observe
from ppdgm.backends.pyro.vocabulary import closed_form_kl
from ppdgm.errors import ProgramError
from ppdgm.language import mistakes, pair_mistakes, pair_terms
from ppdgm.language.elimination import Term
from ppdgm.language.native import Frame
from ppdgm.language.scales import constant_scales, scale_of
from ppdgm.language.terms import closed_forms
from ppdgm.language.vocabulary import Array, Dist, Trace

PARTICLES = "_ppdgm_particles"  #: the plate that vectorises particles, to the left of all others


@dataclass(frozen=True)
class Site:
    """A sample statement from a run: its distribution is already expanded over the plates around it."""

    name: str
    fn: Dist
    value: Array
    mask: Array | bool | None
    scale: Array | float
    observed: bool
    auxiliary: bool
    frames: Mapping[str, Frame]
    asks: bool = False  #: to be enumerated


@dataclass(frozen=True)
class Layout:
    """Where the batch dimensions of a run are: Pyro has K, then plates in any order; a trace has [K, B, *inner].

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

    @property
    def written(self) -> str:
        """How a program creates the data plate."""
        return f"pyro.plate({self.plate!r}, x.shape[0])"

    @property
    def width(self) -> int:
        """Dimensions of a run, to the right of those of enumerated sites."""
        return self.nesting + (self.k is not None)

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
        x = x.reshape(*ones[0], *x.shape[:front], *ones[1], *x.shape[front:])
        spare = [axes + i for i in range(width) if i not in kept]
        if x.shape[axes] not in (1, self.k or 1) or any(x.shape[i] != 1 for i in spare):
            raise self._undeclared(site)
        outer, inner = kept[: 1 + (data is not None)], kept[1 + (data is not None) :]
        order = [*(axes + i for i in outer), *range(axes), *(axes + i for i in inner)]
        x = x.permute(*order, *spare, *range(axes + width, x.ndim))
        x = x.reshape(*x.shape[: len(order)], *x.shape[axes + width :])
        return x if data is not None else x.unsqueeze(1)

    def spread(self, name: str, fn: Dist, frames: Mapping[str, Frame], x: Array, axes: int = 0) -> Array:
        """The inverse of `gather`, for a value of the site."""
        data, kept = self._kept(frames)
        shape, events = tuple(fn.batch_shape), len(fn.event_shape)
        lead, expected = 1 + (data is not None), events + len(kept) + (data is None)
        axes = axes if x.ndim == expected + axes else 0  # a value may be the same for all enumerated values
        front = tuple(x.shape[2 : 2 + axes])
        if axes or len(shape) > self.width:
            shape = ((1,) * self.width + shape)[-self.width :]
        if x.ndim != expected + axes or x.numel() != math.prod((*front, *shape, *fn.event_shape)):
            raise ProgramError(
                f"Site {name!r}: got a value of shape {tuple(x.shape)}, expected [K, B, …] with K = {self.k or 1} and "
                f"events of shape {tuple(fn.event_shape)}."
            )
        x = x if data is not None else x.squeeze(1)
        order = [i if i < lead else i + axes for i in sorted(range(len(kept)), key=kept.__getitem__)]
        x = x.permute(*range(lead, lead + axes), *order, *range(len(kept) + axes, x.ndim))
        return x.reshape((*front, *shape, *fn.event_shape))

    def term(self, site: Site, judged: bool = False) -> Array:
        """log p of a site per particle and row, [K, B]; [K, 1] outside the data plate.

        With `judged`, the log p of a latent is −∞ outside its support.
        """
        log_prob = self.gather(site, self.log_prob(site, judged), 0)
        total = log_prob.reshape(*log_prob.shape[:2], -1).sum(-1)
        return total.broadcast_to(self.k or 1, self.b if self.local(site) else 1)

    def log_prob(self, site: Site, judged: bool = False) -> Array:
        """log p of a site, in the run's dimensions, [*axes, *plates]; `judged` as for `term`."""
        if site.observed:
            log_prob = observe(site.fn, site.value, lambda d, x: d.log_prob(x))
        else:
            log_prob = mistakes.scored(site.name, site.fn, lambda: site.fn.log_prob(site.value))
            log_prob = confine(site.fn, site.value, log_prob) if judged else log_prob
        mask = site.mask
        if isinstance(mask, torch.Tensor) and not _fits(tuple(mask.shape), tuple(log_prob.shape)):
            raise pair_mistakes.misfit_mask(site.name, tuple(mask.shape), tuple(log_prob.shape))
        return scale_and_mask(log_prob, mask=mask)

    def per_datum(self, term: Term) -> Array:
        """A term without the dimensions of enumerated sites, [K, B]; [K, 1] outside the data plate."""
        x = term.log_prob.reshape(term.log_prob.shape[-self.width :])
        x = x.reshape(*(1,) * (self.nesting + 1 - x.ndim), *x.shape)
        for dim in [dim for n, dim in term.plates.items() if n != self.plate]:
            x = x.sum(dim, keepdim=True)
        b = self.b if self.plate in term.plates else 1
        return x.reshape(x.shape[0], -1).broadcast_to(self.k or 1, b)

    def check_axes(self, site: Site, shape: tuple[int, ...], sizes: Mapping[str, int]) -> None:
        """Refuse a site with dimensions to the left of its plates that don't belong to enumerated sites."""
        lead = shape[: max(0, len(shape) - self.width)]
        if len(lead) > len(sizes) or any(n not in (1, s) for n, s in zip(lead[::-1], sizes.values(), strict=False)):
            raise self._undeclared(site)

    def local(self, site: Site) -> bool:
        """Whether the site is inside the data plate."""
        return self.plate in site.frames

    def value(self, site: Site, axes: int = 0) -> Array:
        """The site's value, [K, B, *axes, *inner, *event]."""
        return self.gather(site, site.value, len(site.fn.event_shape), axes)

    def value_at(self, site: Site, told: Mapping[str, Array]) -> Array:
        """The same, or what is `told` of the site, [K, B, *inner, *event]."""
        return self.value(site if site.name not in told else replace(site, value=told[site.name]))

    def kl(self, q: Site, p: Site) -> Array | None:
        """Closed-form KL [K, B, D] of a latent that is only in the data plate."""
        form = self.form(q, p)
        return None if form is None else self.gather(q, form.reshape(*q.fn.batch_shape, -1), 1)

    def form(self, q: Site, p: Site) -> Array | None:
        """The same, with the run's dimensions, and D."""
        alone = all(set(s.frames) <= {self.plate, PARTICLES} and self.local(s) for s in (q, p))
        if not alone or any(s.mask is not None and s.mask is not True for s in (q, p)):
            return None
        return closed_form_kl(q.fn, p.fn)

    def _kept(self, frames: Mapping[str, Frame]) -> tuple[int | None, list[int]]:
        place = {n: self.nesting + 1 + f.dim for n, f in frames.items() if f.dim is not None}
        data = place.get(self.plate)
        inner = sorted(i for n, i in place.items() if n not in (self.plate, PARTICLES))
        return data, [0, *([] if data is None else [data]), *inner]

    def _undeclared(self, site: Site) -> ProgramError:
        if self.local(site):
            return plate_misfit(site.name, site.fn, site.frames)
        others = [n for n in site.frames if n != PARTICLES]
        got, plate = tuple(site.fn.batch_shape), f"pyro.plate({self.plate!r}, x.shape[0])"
        return mistakes.outside(site.name, got, plate, others, site.observed)

    def scale(self, site: Site) -> float:
        """The user's own scale around a site, without the part that its plates explain."""
        explained = 1.0
        for name, frame in site.frames.items():
            part = (frame.full_size or frame.size) / frame.size
            if part != 1.0 and name != self.plate:
                raise subsampled(name, self.plate)
            explained *= part
        scale = torch.as_tensor(site.scale)
        if scale.numel() != 1:
            raise scale_of(site.name, f"numbers of shape {tuple(scale.shape)}", "but only one number is a constant")
        own = float(scale) / explained
        return 1.0 if abs(own - 1.0) < 1e-5 else float(f"{own:.6g}")


def _fits(mask: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(mask) <= len(shape) and all(m in (1, s) for m, s in zip(mask[::-1], shape[::-1], strict=False))


def scales(
    guide: Mapping[str, Site], model: Mapping[str, Site], layout: Layout, summed: Container[str]
) -> dict[str, float]:
    """Constant scales of the user's own; see `constant_scales`."""
    latent = [n for n, s in model.items() if not s.observed and n in guide]
    of = lambda sites: {n: layout.scale(s) for n, s in sites.items()}
    return constant_scales(of(guide), of(model), latent, [n for n in (*model, *guide) if n in summed])


def plate_misfit(name: str, fn: Dist, frames: Mapping[str, Frame]) -> ProgramError:
    """The error for a distribution whose batch shape is not that of the plates around it."""
    around = {n: (f.dim, f.size, f.full_size or f.size) for n, f in frames.items() if n != PARTICLES and f.dim}
    return mistakes.misfit(name, fn, around)


def subsampled(name: str, plate: str) -> ProgramError:
    """The error for a second plate that subsamples."""
    return ProgramError(
        f"Plate {name!r} subsamples, but only the data plate {plate!r} can. The bound of a row needs all terms of the "
        f"row. Use plate {name!r} without subsampling."
    )


def terms(
    guide: Mapping[str, Site], model: Mapping[str, Site], layout: Layout, kl: bool, judged: bool = False
) -> Trace:
    """The per-row terms of a guide's run, and of a model's run at the guide's values; `judged` as for `term`.

    Raises:
        ProgramError: the two do not draw the same latent sites, or a site's dimensions do not fit its plates.
    """
    latent, drawn = latents(guide, model)

    def term(site: Site, judged: bool = False) -> Array:
        found = layout.term(site, judged)
        return found if layout.local(site) else found[:, 0]

    reads = pair_terms.SiteReads(layout.local, lambda s: term(s, judged), term, layout.value)
    values = [n for n, s in guide.items() if not s.observed]
    forms = closed_forms(drawn, model, latent, layout.kl) if kl else {}
    return pair_terms.pair_trace(guide, model, latent, values, reads, forms, judged, xp)


def latents(
    guide: Mapping[str, Site], model: Mapping[str, Site], summed: Container[str] = ()
) -> tuple[list[str], dict[str, Site]]:
    """The latent sites of the model that are not summed out of it; and the sites of the guide that draw them.

    Raises:
        ProgramError: the two do not draw the same sites.
    """
    latent = [n for n, s in model.items() if not s.observed and n not in summed]
    drawn = {n: s for n, s in guide.items() if n in latent or not s.auxiliary}
    mistakes.check_unobserved(n for n, s in guide.items() if s.observed and not isinstance(s.fn, Unit))
    mistakes.check_sites(list(drawn), latent)
    return latent, drawn
