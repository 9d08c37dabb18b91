"""Plain pairs: what is made of the sites of their runs, whichever library runs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Container, Mapping
from functools import partial
from typing import ClassVar

from ppdgm.errors import UnsupportedByBackend
from ppdgm.language import mistakes, pair_mistakes
from ppdgm.language.elimination import to_left
from ppdgm.language.pair_sites import Layout, Site
from ppdgm.language.pair_terms import is_factor
from ppdgm.language.questions import Given, Sites
from ppdgm.language.reader import Gradients
from ppdgm.language.supports import Seen
from ppdgm.language.tracer import Params, Tracer
from ppdgm.language.vocabulary import Array, Batch, Namespace, Noise, PairLike, Trace


class PairTracer(Tracer):
    """Runs of a `PlainPair`. A backend supplies the runs, of which this class makes what a tracer returns.

    In `means`, a site that the model sums out gets the probabilities of its values given the data and the other latents
    there, [1, B, *inner, S]; observed sites are at the most probable value. The last result of `prior` has the log of
    each factor, by which nothing is weighed, and log-densities of sites: see `of_prior`. Its `fields` are rows that are
    used as the data (all of them if the pair subsamples), and `given` are latents shared by all data, [1, 1, *event].

    Attributes:
        plate: name of the data plate.
        xp: array-API namespace.
    """

    program: PairLike
    plate: str
    xp: ClassVar[Namespace]
    _carriers: list[str] | None = None  #: points of the guide that carry a draw of another site of it

    @abstractmethod
    def trace(
        self,
        params: Params,
        noise: Noise,
        batch: Batch,
        index: Array,
        k: int,
        given: Given = None,
        kl: bool = False,
        gradients: Gradients | None = None,
        stopped: bool = False,
        sampled: bool = False,
    ) -> Trace:
        """The same as for the base class. With `sampled`, the guide draws the sites that it would enumerate."""

    def draws(self, params: Params, noise: Noise, batch: Batch, index: Array, k: int, given: Given = None) -> Sites:
        terms = self.trace(params, noise, batch, index, k, given, sampled=True)
        return {n: terms.values[n] for n in [*terms.log_q, *terms.shared] if n in terms.values}

    @abstractmethod
    def without_meaning(self, params: Params, noise: Noise, batch: Batch, index: Array) -> Sites:
        """Latents of the guide under a mask, [1, B, *event]: where it is off, they have no term, and any value."""

    @staticmethod
    def under_masks(guide: Mapping[str, Site], layout: Layout) -> Sites:
        """Those of a run."""
        own = (s for s in guide.values() if s.masked and not s.auxiliary and layout.local(s))
        return {s.name: layout.value(s) for s in own}

    def reordered(self, arrays: Mapping[str, Array], order: Array | None, axis: int = 1) -> Sites:
        """Rows in another order, if one is given; arrays that all rows share stay the same."""
        take = lambda a: a if order is None or a.shape[axis] == 1 else self.xp.take(a, order, axis=axis)
        return {n: take(a) for n, a in arrays.items()}

    def in_order(self, batch: Batch, index: Array, given: Given = None) -> tuple[Batch, Array, Sites, Array | None]:
        """The minibatch in the order of the data, if the pair may keep something for each row; and the way back."""
        if self.subsamples or not self.batch_size:
            return batch, index, dict(given or {}), None
        order = self.xp.argsort(index)
        held = self.reordered(given or {}, order)
        return self.reordered(batch, order, 0), index[order], held, self.xp.argsort(order)

    def finished(self, found: Trace, order: Array | None, axes: Collection[str]) -> Trace:
        """A trace with rows in this order, and the axes of the guide's enumerated sites at the left of values."""
        values, log_p, log_q, kl = (self.reordered(part, order) for part in found[:4])
        marginal = None if found.marginal is None else self.reordered({"": found.marginal}, order)[""]
        values = {n: to_left(v[:1] if n in axes else v, len(axes), self.xp) for n, v in values.items()}
        return found._replace(values=values, log_p=log_p, log_q=log_q, kl=kl, marginal=marginal)

    def true_points(self, points: Sites | None, moving: Callable[[Sites], list[str]]) -> Sites | None:
        """The points without those that carry a draw of another site of the guide, which `moving` finds once."""
        if not points:
            return None
        if self._carriers is None:
            self._carriers = moving(points)
        return {n: v for n, v in points.items() if n not in self._carriers} or None

    def seen(self, model: Mapping[str, Site], layout: Layout, axes: int, order: Array | None) -> list[Seen]:
        """The observed sites of a run of the model, whose rows are put in this order."""

        def rows(site: Site, inside: Array) -> Array:
            found = layout.rows(site, inside, axes)
            return found if order is None else found[order]

        return [Seen(s.name, s.fn, s.value, s.mask, partial(rows, s)) for s in _observed(model, layout)]

    def at_means(
        self,
        guide: Mapping[str, Site],
        model: Mapping[str, Site],
        layout: Layout,
        summed: Sites,
        told: Sites,
        seen: Sites,
        held: Container[str],
        own: bool,
        order: Array | None,
    ) -> tuple[Sites, Sites]:
        """What runs at the means say of latents, and of observed sites.

        Args:
            guide, model: sites of the runs.
            layout: of the runs.
            summed: the probabilities of sites that the model sums out.
            told, seen: means of latents, and of observed sites, if other sites saw something else.
            held: sites that are at their means, or were given.
            own: whether the guide is the library's own.
            order: of the rows, if it is not that of the runs.
        """
        fns = {n: s.fn for n, s in model.items() if not s.observed and n not in summed}
        auxiliary = [n for n, s in guide.items() if s.auxiliary]
        mistakes.check_moved({n: s.fn for n, s in guide.items()}, auxiliary, fns, held, own)
        latents = {n: layout.value_at(guide[n], told) for n in fns}
        observed = self.observations(model, layout, seen)
        return self.reordered({**latents, **summed}, order), self.reordered(observed, order)

    def of_prior(self, model: Mapping[str, Site], layout: Layout, told: Sites) -> tuple[Sites, Sites, Sites]:
        """Latents and observed sites of a run of the model that generated them, [1, B, *event].

        Last come the log of each factor, [1, B], and the log-densities of the other sites at what was drawn, without
        masks: they show every value on which a draw depends, also if it is the same draw.

        Args:
            model, layout: of the run.
            told: the means of observed sites, if other sites saw something else.
        """
        latents = {n: layout.value(s) for n, s in model.items() if not s.observed}
        observed = self.observations(model, layout, told)
        factors = {n: layout.term(s) for n, s in model.items() if is_factor(s)}
        densities = {n: _density(model[n]) for n in {**latents, **observed} if n not in factors}
        return latents, observed, {**factors, **{n: v for n, v in densities.items() if v is not None}}

    def observations(self, model: Mapping[str, Site], layout: Layout, told: Sites) -> Sites:
        """The observed sites' values, or what is `told` of them, [K, B, *event]."""
        return {s.name: layout.value_at(s, told) for s in _observed(model, layout)}

    @staticmethod
    def check_fields(fields: Mapping[str, Array | None]) -> None:
        """Refuse draws from the model without rows of data."""
        if any(v is None for v in fields.values()):
            raise UnsupportedByBackend(pair_mistakes.NO_PRIOR)


def _density(site: Site) -> Array | None:
    """The log-density of a site's value, number by number if these are independent; None if it is not known."""
    fn = site.fn
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    try:
        return fn.log_prob(site.value)
    except NotImplementedError:
        return None


def _observed(model: Mapping[str, Site], layout: Layout) -> list[Site]:
    return [s for s in model.values() if s.observed and layout.local(s) and not is_factor(s)]
