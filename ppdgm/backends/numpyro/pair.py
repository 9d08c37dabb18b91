"""Runs of a plain NumPyro pair, as its author wrote it: pure functions of parameters, key and minibatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer.autoguide import AutoContinuous, AutoGuide

from ppdgm.backends.numpyro.keys import make_key
from ppdgm.backends.numpyro.noise import REMEDY, depends, in_inference, moved_by_key, without_dropout
from ppdgm.backends.numpyro.probe import Leaves, Probe, first_site_values, has_rows, leaves_of, shapes_of
from ppdgm.backends.numpyro.rows import Places, Values, over_particles
from ppdgm.backends.numpyro.sites import (
    JaxLayout,
    Message,
    PairRun,
    Supply,
    place,
    read,
    written,
)
from ppdgm.backends.numpyro.terms import (
    JaxCall,
    check_field_names,
    check_pathwise,
    check_place,
    enumerated,
    points_of,
)
from ppdgm.errors import PpdgmError, ProgramError, explain, nearest
from ppdgm.language import mistakes, pair_mistakes
from ppdgm.language.native import Tree
from ppdgm.language.pair_axes import Axes
from ppdgm.language.pair_sums import at_chosen, check_terms, posteriors
from ppdgm.language.pair_terms import check_observes_nothing, latents_of, scales_of, terms_of_pair
from ppdgm.language.pair_tracer import PairTracer as AnyPairTracer
from ppdgm.language.questions import Given, Sites
from ppdgm.language.reader import Gradients
from ppdgm.language.supports import Seen
from ppdgm.language.tracer import Params
from ppdgm.language.vocabulary import Array, Batch, Namespace, PairLike, Trace

ROWS = 7  #: the number of rows in the check of enumerated sites


class PairTracer(AnyPairTracer):
    """Runs of a `PlainPair`. Parameters are unconstrained, named after their site and their place in it.

    `prepare` runs the pair abstractly once, to see its parameters and its data plate: a full plate takes the rows of
    the minibatch, a subsampled one takes all data and indices.
    """

    xp: ClassVar[Namespace] = jnp

    def __init__(self, program: PairLike):
        self.program, self.plate = program, program.data_plate
        self.still = jax.random.key(0)
        self._params: dict[str, Leaves] = {}
        self._in_order = False  #: a full plate that takes all data: its size, or a parameter's size, is N
        self._local = False  #: whether an autoguide has parameters for each row
        self._ready = False
        self._axes = Axes(self.plate, written(self.plate))  #: of enumerated sites, at first none
        self._marked: list[str] = []  #: sites that the guide enumerates
        self._summed: list[str] = []  #: sites that are enumerated, and summed out of the model
        self._keyed = False  #: whether it asks for keys outside its sites
        self._noise: str | None = None  #: what is wrong with its use of these; "" for nothing

    def prepare(self, data: Batch) -> None:
        """Find parameters and data plate. Only the data's shapes matter, and only the first time.

        Raises:
            ProgramError: the data plate is missing, or the pair does not fit the data or itself.
        """
        if self._ready:
            return
        rows = next(iter(data.values())).shape[0]
        self._set_up(data)
        seen = self._probe(data, rows)
        if seen.error and seen.plate and seen.plate[0] != rows and seen.plate[1] in (None, seen.plate[0]):
            rows = seen.plate[0]  # a full plate of a fixed size takes no other number of rows
            seen = self._probe(data, rows)
        if seen.error:
            raise seen.error
        more = self._probe(data, rows + 1)
        size, part = seen.plate or (0, None)
        wider, drawn = (size, None) if more.error else more.plate or (0, None)
        alike = not more.error and shapes_of(seen.params) == shapes_of(more.params) and seen.shared == more.shared
        for name, (batch, _) in seen.shared.items():
            if more.shared.get(name, (batch,))[0] != batch:
                raise mistakes.outside(name, batch, written(self.plate), (), False)
        if part in (None, size) and drawn not in (None, wider):  # the same as the number of rows here
            part = drawn
        self.subsamples = part not in (None, size) or drawn not in (None, wider)
        self._in_order = not (self.subsamples or (alike and wider != size))
        self.batch_size = part if self.subsamples else size if self._in_order else None
        of_rows = any(size in shape for leaves in seen.params.values() for shape in leaves.shapes)
        fixed = more.plate is not None and more.plate[0] == size  # the size is a number written in the program
        if self._local or seen.rows or (self._in_order and (of_rows or not fixed)):
            self.own_rows = size
        self._params, self._ready, self.scales = seen.params, True, seen.scales
        self._axes = Axes(self.plate, written(self.plate), seen.width, outside=seen.outside)
        self._marked, self._summed = seen.marked, seen.summed
        self.labels = {
            leaf: "guide" if site in seen.of_guide else "model"
            for site, leaves in seen.params.items()
            for leaf in leaves.names
        }

    def _set_up(self, data: Batch) -> None:
        """Let an autoguide set itself up: inside a trace, it would keep arrays that JAX removes."""
        guide = self.program.guide
        if not isinstance(guide, AutoGuide):
            return
        call = JaxCall(self.program, "guide", data)
        call.check()
        try:
            if guide.prototype_trace is None:
                call.of(handlers.seed(guide, 0))({n: jnp.asarray(a) for n, a in data.items()})
        except PpdgmError:
            raise
        except Exception as error:
            if isinstance(guide, AutoContinuous) and "local latent" in str(error):
                raise mistakes.in_one_vector(type(guide).__name__, self.plate) from error
            raise explain(self.program, error) from error
        prototype: Mapping[str, Message] = guide.prototype_trace
        drawn = [m for m in prototype.values() if m["type"] == "sample" and not m["is_observed"]]
        self._local = any(f.name == self.plate for m in drawn for f in m["cond_indep_stack"])
        if self._local and isinstance(guide, AutoContinuous):
            raise mistakes.in_one_vector(type(guide).__name__, self.plate)

    def initialise(self, seed: int, data: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
        """First values of all parameters, unconstrained, as the pair itself draws them."""
        self.prepare(data)
        if self._in_order:
            data = {n: np.resize(a, (self.batch_size, *a.shape[1:])) for n, a in data.items()}
        found = {n: np.asarray(v) for n, v in jax.jit(self._first_values)(make_key(seed), dict(data)).items()}
        if wrong := [n for n, v in found.items() if not np.isfinite(v).all()]:
            raise pair_mistakes.wrong_start(wrong[0])
        values = {n: v.astype(dtype) if np.issubdtype(v.dtype, np.floating) else v for n, v in found.items()}
        self._check_enumerated(values, data)
        return values

    def _check_enumerated(self, params: Params, data: Mapping[str, np.ndarray]) -> None:
        """Refuse a program that confuses the dimension of an enumerated site with another."""
        if not (self._summed or self._marked):
            return
        rows = np.arange(self.batch_size or ROWS) % len(next(iter(data.values())))
        batch = {n: jnp.asarray(a if self.subsamples else a[rows]) for n, a in data.items()}
        key, at, values = jax.random.key(0), self._at(jnp.asarray(rows)), self._values(params)
        guide, model = self._pair(key, batch, at, values, {}, axes=replace(self._axes, sizes={}))
        layout, sites = self._layout(len(rows)), {**model.sites, **guide.sites}
        inside = lambda sites: {n: s for n, s in sites.items() if layout.local(s)}
        held, chosen = at_chosen(inside(sites), layout, model.axes.sizes)
        best = {n: s.value for n, s in {**sites, **held}.items() if not s.observed}
        for one, other in zip((guide, model), self._pair(key, batch, at, values, {}, best=best), strict=True):
            check_terms(inside(one.sites), other.sites, layout, model.axes.sizes, chosen)

    def trace(
        self,
        params: Params,
        key: Array,
        batch: Batch,
        index: Array,
        k: int,
        given: Given = None,
        kl: bool = False,
        gradients: Gradients | None = None,
        stopped: bool = False,
        sampled: bool = False,
    ) -> Trace:
        self.prepare(batch)
        batch, index, given, back = self.in_order(batch, index, given)
        own = self._values(jax.lax.stop_gradient(dict(params)), gradients is not None) if stopped else None
        everything, axes = gradients is not None and gradients.enumerate, dict[str, int]()
        layout = self._layout(len(index))

        def one(key: Array, given: Sites) -> Trace:
            training = gradients is not None
            guide, model = self._pair(
                key,
                batch,
                self._at(index),
                self._values(params, training),
                given,
                own=own,
                training=training,
                axes=None if sampled else replace(self._axes, sizes={}, everything=everything),
            )
            axes.update(guide.axes.sizes)
            if gradients:
                check_pathwise(guide, given, gradients)
            if stopped:
                mistakes.check_replayed([n for n in guide.drawn() if n not in given])
            sizes = guide.axes.sizes, model.axes.sizes
            found = terms_of_pair(guide.sites, model.sites, layout, sizes, kl, judged=not training)
            values = {n: found.values[n] for n in model.drawn()}
            return jax.tree.map(lambda a: a[0], found._replace(values=values))  # without the axis of particles

        each = over_particles(key, *params.values(), *batch.values(), *given.values())
        found = each(one)(jax.random.split(key, k), given)
        values = {n: v for n, v in found.values.items() if n not in axes}
        points = self.true_points(found.points, lambda held: self._moving(held, values, params, batch, self._at(index)))
        return self.finished(found._replace(points=points), back, axes)

    def _moving(self, points: Sites, values: Sites, params: Params, batch: Batch, at: Places) -> list[str]:
        """Points that carry a draw: those depend on the key when the other latents are held."""
        held = {n: v[0] for n, v in values.items() if n not in points}
        guide = lambda key: self._pair(key, batch, at, self._values(params), held)[0].sites
        return moved_by_key(lambda key: {n: guide(key)[n].value for n in points})

    def observed(self, params: Params, key: Array, batch: Batch, index: Array) -> list[Seen]:
        self.prepare(batch)
        batch, index, _, back = self.in_order(batch, index)
        _, model = self._pair(key, batch, self._at(index), self._values(params), {}, axes=replace(self._axes, sizes={}))
        return self.seen(model.sites, self._layout(len(index)), len(model.axes.sizes), back)

    def without_meaning(self, params: Params, key: Array, batch: Batch, index: Array) -> Sites:
        self.prepare(batch)
        batch, index, _, _ = self.in_order(batch, index)
        guide, _ = self._pair(key, batch, self._at(index), self._values(params), {})
        return self.under_masks(guide.sites, self._layout(len(index)))

    def means(self, params: Params, batch: Batch, index: Array, given: Given = None) -> tuple[Sites, Sites]:
        self.prepare(batch)
        batch, index, known, back = self.in_order(batch, index, given)
        key, layout, told = jax.random.key(0), self._layout(len(index)), Sites()
        at, values, summed, best = self._at(index), self._values(params), Sites(), Sites()
        held = {n: v[0] for n, v in known.items()}
        if self._summed:
            _, model = self._pair(key, batch, at, values, held, told={}, axes=replace(self._axes, sizes={}))
            summed, sites = posteriors(model.sites, layout, model.axes.sizes)
            best = {n: s.value for n, s in sites.items()}
        guide, model = self._pair(key, batch, at, values, held, told=told, best=best)
        own = isinstance(self.program.guide, AutoGuide)
        return self.at_means(guide.sites, model.sites, layout, summed, told, told, held, own, back)

    def noise(self, params: Params, batch: Batch, index: Array) -> str:
        """What is wrong if the terms depend on keys from outside the sites; "" if they do not."""
        self.prepare(batch)
        batch, index, *_ = self.in_order(batch, index)
        layout = self._layout(len(index))

        def run(key: Array) -> list[Array]:
            at, values = self._at(index), self._values(params)
            pair = self._pair(jax.random.key(0), batch, at, values, {}, noise=lambda: key)
            return [layout.term(site) for part in pair for site in part.sites.values()]

        if self._noise is None:
            found = jax.make_jaxpr(run)(jax.random.key(1)).jaxpr if self._keyed else None
            self._noise = REMEDY if found is not None and any(depends(found, found.invars[0])) else ""
        return self._noise

    def prior(
        self,
        params: Params,
        key: Array,
        fields: Mapping[str, Array | None],
        size: int,
        mean: bool,
        given: Given = None,
        apart: bool = False,
    ) -> tuple[Sites, Sites, Sites]:
        self.check_fields(fields)
        self.prepare(fields)
        known, told, layout = Sites(), Sites(), self._layout(size)

        def choose(msg: Message) -> Array | None:
            name = msg["name"]
            if name in known and name in supply.generated:
                told[name] = points_of(msg, False)[0]
            if name in known:
                return known[name]
            if not given or name not in given:
                return None
            site = place(msg, self.plate, {})
            return layout.spread(name, site.fn, site.frames, given[name])

        def run() -> PairRun:
            return self._read("model", supply, key, fields)

        plate = (0, size) if self.subsamples else None
        at, param = self._at(jnp.arange(size)), self._values(params)
        make = lambda: Supply(self.program.model, self.plate, at, param, choose, plate, generate=True)
        supply = make()
        model = run()
        if mean:
            known = {n: model.sites[n].value for n in (*model.drawn(), *supply.generated)}
            supply = make()
            model = run()
        return self.of_prior(model.sites, layout, told)

    def _pair(
        self,
        key: Array,
        batch: Batch,
        at: Places,
        param: Values,
        given: Mapping[str, Array],
        told: Sites | None = None,
        own: Values | None = None,
        training: bool = False,
        noise: Callable[[], Array] | None = None,
        axes: Axes | None = None,
        best: Mapping[str, Array] = MappingProxyType({}),
    ) -> tuple[PairRun, PairRun]:
        """Guide, then model at the guide's values.

        `at` answers for the data plate and `param` for parameters; `own` for the guide's parameters, if they differ;
        `noise` for keys outside sites. In training, dropout is as the user wrote it. With `told`, sites are at their
        means, or at what other sites see of these, and `told` gets the means. With `axes`, sites are enumerated; with
        `told` too, only those that the model sums out. Without `axes`, these are drawn. `best` has values of latents.
        """
        first, second = jax.random.split(key)

        def at_mean(msg: Message, latent: bool) -> Array | None:
            if told is None:
                return None
            told[msg["name"]], seen = points_of(msg, latent)
            return seen if latent else None  # what comes after an observed site sees its data

        def draw(msg: Message) -> Array | None:
            if msg["name"] in best and not msg["is_observed"]:
                return best[msg["name"]]
            if msg["name"] in given and not msg["is_observed"]:
                site = place(msg, self.plate, {}, asks.axes)
                return self._layout(1).spread(site.name, site.fn, site.frames, given[site.name][None])
            if msg["is_observed"]:
                return None
            if axes and told is None:
                return enumerated(msg, asks.axes)
            below = given and msg["infer"].get("is_auxiliary")  # if all are given, they do not depend on this draw
            return None if below else at_mean(msg, True)

        asks = Supply(self.program.guide, self.plate, at, own or param, draw, noise=noise, axes=axes)
        guide = self._read("guide", asks, first, batch, training)
        check_observes_nothing(guide.sites)

        def follow(msg: Message) -> Array | None:
            if msg["name"] in guide.sites and not msg["is_observed"]:
                site = guide.sites[msg["name"]]
                check_place(msg, site, self.plate, [n for n in asks.sizes if self.plate not in asks.sizes])
                return site.value
            if not msg["is_observed"] and msg["name"] in best:
                return best[msg["name"]]
            if axes:
                return None if msg["is_observed"] else enumerated(msg, answers.axes)
            return None if msg["infer"].get("is_auxiliary") else at_mean(msg, not msg["is_observed"])

        every = None if axes is None else replace(axes, sizes=dict(axes.sizes))
        taken = asks.sizes.get(self.plate)
        answers = Supply(self.program.model, self.plate, at, param, follow, taken, noise, axes=every)
        model = self._read("model", answers, second, batch, training)
        model.summed = [n for n, s in model.sites.items() if s.asks and n not in guide.sites]
        self._keyed = self._keyed or bool(asks.keys or answers.keys)
        if self.plate not in answers.sizes:
            raise pair_mistakes.no_plate(self.plate, {**asks.sizes, **answers.sizes})
        latents_of(guide.sites, model.sites, model.summed)
        return guide, model

    def _read(self, role: str, supply: Supply, key: Array, batch: Batch, training: bool = False) -> PairRun:
        """Run the guide or the model. Outside training, without dropout.

        Raises:
            ProgramError: for any error in it, with its line.
        """
        call = JaxCall(self.program, role, batch)
        call.check()
        try:
            with nullcontext() if training else without_dropout():
                return read(supply, key, call, batch)
        except Exception as error:
            found = error if isinstance(error, PpdgmError) else explain(self.program, error)
            if supply.borrowed:
                found = pair_mistakes.borrowed(self.plate, supply.borrowed, supply.sizes[self.plate][1] or 0, found)
            if found is error:
                raise
            raise found from error

    def _layout(self, b: int) -> JaxLayout:
        return JaxLayout(self.plate, self._axes.width or 1, None, b)

    def _at(self, index: Array) -> Places:
        def at(size: int, part: int | None) -> Array | None:
            rows, wanted = len(index), part if self.subsamples else size
            if rows != wanted or (part not in (None, size) and not self.subsamples):
                raise pair_mistakes.another_minibatch(self.plate, self.batch_size, rows, (size, part))
            return index if self.subsamples else None

        return at

    def _values(self, params: Params, training: bool = False) -> Values:
        def value(msg: Message) -> Tree:
            leaves = self._params.get(msg["name"])
            if leaves is None:
                raise pair_mistakes.came_later(msg["name"])
            if missing := [n for n in leaves.names if n not in params]:
                raise ProgramError(f"Parameter {missing[0]!r} has no value. {nearest(missing[0], params)}")
            found = leaves.at(params, biject_to(msg["kwargs"].get("constraint", constraints.real)))
            return found if training else in_inference(found)

        return value

    def _probe(self, data: Batch, rows: int) -> Probe:
        """An abstract run with data of this number of rows."""
        seen = Probe()

        def at(size: int, part: int | None) -> Array | None:
            seen.plate = size, part
            return None if part in (None, size) else jnp.zeros(part, jnp.int32)

        def look(key: Array, batch: Batch) -> None:
            guide, model = self._pair(key, batch, at, lambda msg: None, {}, training=True)
            seen.params = {n: leaves_of(n, m["value"]) for r in (guide, model) for n, m in r.params.items()}
            seen.of_guide = set(guide.params)
            shared = {n: model.sites[n].fn for n in model.drawn() if self.plate not in model.sites[n].frames}
            seen.shared = {n: (tuple(fn.batch_shape), tuple(fn.event_shape)) for n, fn in shared.items()}
            seen.rows = any(has_rows(m, self.plate) for r in (guide, model) for m in r.params.values())
            seen.marked, seen.summed = [n for n, s in guide.sites.items() if s.asks], model.summed
            asked = [n for r in (guide, model) for n, s in r.sites.items() if s.asks]
            seen.scales = scales_of(guide.sites, model.sites, lambda s: float(s.scale), asked)
            sites = [s for r in (guide, model) for s in r.sites.values()]
            seen.width = max([1, *(-dim for s in sites for dim in s.plates.values())])
            seen.outside = {s.name: tuple(s.fn.batch_shape) for s in sites if self.plate not in s.frames}
            for s in sites:
                if s.asks and s.name in seen.outside:
                    raise self._axes.not_inside(s.name)

        like = {n: jax.ShapeDtypeStruct((rows, *a.shape[1:]), canonicalize_dtype(a.dtype)) for n, a in data.items()}
        try:
            check_field_names(self.program, data)
            jax.eval_shape(look, jax.random.key(0), like)
        except Exception as error:
            seen.error = error
        return seen

    def _first_values(self, key: Array, batch: Batch) -> dict[str, Array]:
        at = lambda size, part: None if part in (None, size) else jnp.zeros(part, jnp.int32)
        pair = self._pair(key, batch, at, lambda msg: None, {}, training=True)
        found = [first_site_values(self._params[site], msg) for r in pair for site, msg in r.params.items()]
        return {n: v for values in found for n, v in values.items()}
