"""A plain Pyro pair: the user's functions under Pyro's handlers, with their own parameters, read per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import array_api_compat.torch as xp
import numpy as np
import pyro
import torch
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoContinuous, AutoGuide

from ppdgm.backends.pyro.calls import calls
from ppdgm.backends.pyro.modules import Modules, in_sight, labels_of_params, tensor_of
from ppdgm.backends.pyro.noise import GeneratorWatch
from ppdgm.backends.pyro.particles import agree, as_more_data, one_at_a_time, stir_equal
from ppdgm.backends.pyro.plate import few, find_plate
from ppdgm.backends.pyro.recorder import SiteRecorder
from ppdgm.backends.pyro.sites import TorchLayout
from ppdgm.backends.pyro.vocabulary import has_pathwise, unvalidated
from ppdgm.errors import ProgramError, UnsupportedByBackend
from ppdgm.language import mistakes, pair_mistakes
from ppdgm.language.calls import Call
from ppdgm.language.pair_sites import Layout, Site
from ppdgm.language.pair_sums import Sizes, at_chosen, check_terms, posteriors
from ppdgm.language.pair_terms import scales_of, terms_of_pair
from ppdgm.language.pair_tracer import PairTracer as AnyPairTracer
from ppdgm.language.questions import Given, Sites
from ppdgm.language.reader import Gradients
from ppdgm.language.supports import Seen
from ppdgm.language.tracer import Params
from ppdgm.language.vocabulary import Array, Batch, Namespace, PairLike, Trace


@dataclass(frozen=True)
class How:
    """How a pair is read.

    Attributes:
        kl: whether closed forms are added.
        gradients: how they pass through draws; None: none will be taken.
        watch: sees draws between sites.
        sampled: whether the guide draws the sites that it would enumerate.
    """

    kl: bool = False
    gradients: Gradients | None = None
    watch: GeneratorWatch | None = None
    sampled: bool = False


class PairTracer(AnyPairTracer):
    """Runs of a plain pair. Parameters are unconstrained, with the names that they have in Pyro's store.

    The user's modules have the values: training changes them; an evaluation with other values restores them.
    While the pair runs, Pyro's global store is replaced by the pair's own.

    Args:
        program: a PlainPair.
        device: where to run; by default where the pair's modules are.
    """

    xp: ClassVar[Namespace] = xp
    compiles = False

    def __init__(self, program: PairLike, device: torch.device | None = None):
        self.program, self.plate = program, program.data_plate
        self.modules = Modules(device)
        for module in (*in_sight(program.model), *in_sight(program.guide)):
            self.modules.add(module)
        home = next((p.device for m in self.modules for p in m.parameters()), torch.device("cpu"))
        self.device = device or home
        self._of_guide: set[str] = set()
        self.particles = "one at a time"  #: how several are read; also "in a plate", "as more data"
        self._known = False
        self._live: dict[str, Array] = {}
        self._store: dict[str, dict[str, object]] = {"params": {}, "constraints": {}}

    def initialise(self, seed: int, data: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
        """Run the pair once, to find its plate, parameters and modules; return the current values.

        Args:
            seed: draws come from torch's generator, which the caller has seeded.
            data: all data.
            dtype: of the data; parameters keep their own type.
        """
        self._find_out({n: a.astype(dtype, copy=False) if a.dtype.kind == "f" else a for n, a in data.items()})
        if not self._live.keys() - self.state_names:
            raise pair_mistakes.no_parameters()
        return {n: t.detach().cpu().numpy().copy() for n, t in self._live.items()}

    def prepare(self, data: Mapping[str, np.ndarray]) -> None:
        """Run the pair once, if `initialise` has not: its parameters come from elsewhere."""
        if not self._known:
            self._find_out(data)

    def all_modules(self) -> list[torch.nn.Module]:
        """The pair's torch modules, and all inside them."""
        return list(self.modules)

    def adopt(self, params: Params) -> dict[str, Array]:
        """The pair's own tensors, set to `params`: training changes those."""
        self._check_names(params)
        self._copy(params)
        return dict(self._live)

    @contextmanager
    def training(self, params: Params) -> Iterator[None]:
        """The pair's own parameter store for a stretch of steps; modules stay in the user's modes."""
        try:
            with self._entered():
                yield
        finally:
            for n, (m, leaf) in self._owners.items():
                if (now := tensor_of(m, leaf)) is not self._live[n] and leaf in m._buffers:
                    self._live[n].copy_(now)  # a module that assigns a new buffer
                    m._buffers[leaf] = self._live[n]

    @contextmanager
    def evaluating(self, params: Params) -> Iterator[Params]:
        """Modules in evaluation mode, at the values of `params`; afterwards everything is restored."""
        self._check_names(params)
        other = {n: t.clone() for n, t in self._live.items() if params[n] is not t}
        with self.modules.evaluating(), self._entered():
            try:
                self._copy({n: params[n] for n in other})
                yield dict(self._live)
            finally:
                self._copy(other)

    def trace(
        self,
        params: Params,
        noise: None,
        batch: Batch,
        index: Array,
        k: int,
        given: Given = None,
        kl: bool = False,
        gradients: Gradients | None = None,
        stopped: bool = False,
        sampled: bool = False,
    ) -> Trace:
        """The same as for the base class; the parameters' values are those of the live tensors."""
        if stopped:
            raise UnsupportedByBackend(pair_mistakes.NOT_STOPPED)
        self._check_live(params)
        if self.batch_size and len(index) != self.batch_size:
            raise pair_mistakes.another_minibatch(self.plate, self.batch_size, len(index))
        way = self.particles if k > 1 else "one at a time"
        batch, index, given, back = self.in_order(batch, index, given)
        found = self._several(way, k, batch, index, given, How(kl, gradients, sampled=sampled))
        points = self.true_points(found.points, lambda held: self._moving(held, found.values, batch, index))
        axes = [n for n in self._enumerated(gradients, sampled) if n not in given]
        found = found._replace(values={n: v for n, v in found.values.items() if n in self._latent}, points=points)
        return self.finished(found, back, axes)

    def _moving(self, points: Sites, values: Sites, batch: Batch, index: Array) -> list[str]:
        """Points that carry a draw: those that differ in another run with the other latents held."""
        latent = (n for n in self._latent if n not in points and n not in self._marked)
        layout, held = self._layout(None, len(index)), {n: values[n][:1] for n in latent}
        run = lambda: self._run(self._guide, batch, SiteRecorder(layout, index, held, {}, self._live))
        with torch.random.fork_rng():
            one, other = run(), run()
        return [n for n in points if not torch.equal(one[n].value, other[n].value)]

    def observed(self, params: Params, noise: None, batch: Batch, index: Array) -> list[Seen]:
        self._check_live(params)
        layout = self._layout(None, len(index))
        batch, index, _, back = self.in_order(batch, index)
        _, model, (_, axes) = self._runs(layout, batch, index, {})
        return self.seen(model, layout, len(axes), back)

    def without_meaning(self, params: Params, noise: None, batch: Batch, index: Array) -> Sites:
        self._check_live(params)
        layout = self._layout(None, len(index))
        batch, index, _, _ = self.in_order(batch, index)
        return self.under_masks(self._runs(layout, batch, index, {}, How(sampled=True))[0], layout)

    def watched(self, params: Params, batch: Batch, index: Array, given: Params, watch: GeneratorWatch | None) -> Trace:
        """The terms of one particle, with the values of all sites of the guide; `watch` sees draws between sites."""
        batch, index, given, _ = self.in_order(batch, index, given)
        return self._read(self._layout(None, len(index)), batch, index, given, How(watch=watch, sampled=True))

    def means(self, params: Params, batch: Batch, index: Array, given: Given = None) -> tuple[Sites, Sites]:
        self._check_live(params)
        layout = self._layout(None, len(index))
        batch, index, held, back = self.in_order(batch, index, given)
        first = SiteRecorder(layout, index, held, {}, self._live, mean=True)
        guide = self._run(self._guide, batch, first)
        own, at = self._posteriors(layout, batch, index, guide) if self._summed else ({}, {})
        recorder = SiteRecorder(layout, index, {}, {**guide, **at}, self._live, mean=True, generate="mean")
        model, told = self._run(self._model, batch, recorder), recorder.told
        moved, auto = {*first.moved, *held}, isinstance(self.program.guide, AutoGuide)
        return self.at_means(guide, model, layout, own, first.told, told, moved, auto, back)

    def watched_prior(self, params: Params, fields: Batch, size: int, watch: GeneratorWatch) -> None:
        """Draws from the model; `watch` sees draws between the sites."""
        self.prior(params, None, fields, size, False, watch=watch)

    def prior(
        self,
        params: Params,
        noise: None,
        fields: Mapping[str, Array | None],
        size: int,
        mean: bool,
        given: Given = None,
        apart: bool = False,
        watch: GeneratorWatch | None = None,
    ) -> tuple[Sites, Sites, Sites]:
        self.check_fields(fields)
        self._check_live(params)
        layout, index = self._layout(None, size), torch.arange(size, device=self.device)
        recorder = SiteRecorder(layout, index, given or {}, {}, self._live, generate="draw", watch=watch)
        model = self._run(self._model, fields, recorder)
        if not mean:
            return self.of_prior(model, layout, {})
        second = SiteRecorder(layout, index, {}, model, self._live, generate="mean")
        return self.of_prior(self._run(self._model, fields, second), layout, second.told)

    def model_twice(self, params: Params, fields: Mapping[str, Array | None], size: int) -> list[Sites]:
        """Two runs of the model at the same latents: the means of observed sites, and log p of the latents."""
        self._check_live(params)
        layout, index = self._layout(None, size), torch.arange(size, device=self.device)
        model = self._run(self._model, fields, SiteRecorder(layout, index, {}, {}, self._live, generate="draw"))
        runs = []
        for _ in range(2):
            again = SiteRecorder(layout, index, {}, model, self._live, generate="mean")
            sites, told = self._run(self._model, fields, again).items(), again.told
            runs.append({n: told.get(n, s.value) if s.observed else s.fn.log_prob(s.value) for n, s in sites})
        return runs

    def _find_out(self, data: Mapping[str, np.ndarray]) -> None:
        """Find the plate, parameters, modules and the way to read several particles."""
        take = lambda rows: {n: torch.tensor(a[rows], device=self.device) for n, a in data.items()}
        size = len(next(iter(data.values())))
        self._guide, self._model = calls(self.program, data)
        self._live, self._owners, self._store = {}, {}, {"params": {}, "constraints": {}}
        with torch.no_grad(), unvalidated(), self.modules.collecting():
            with self._default_device():
                first = lambda n: take(slice(n))
                self.subsamples, self.batch_size = find_plate(self._model, self._plates, first, size, self.plate)
                if not (self.subsamples or self.batch_size or self._set_up_by_data or self._follows(first, size)):
                    self.batch_size = self.own_rows = size
            rows = np.arange(self.batch_size or (size if self._set_up_by_data else few(size)[0])) % size
            batch = take(slice(None) if self.subsamples else rows)
            index = torch.as_tensor(rows, device=self.device)
            with self._entered():
                found = self._first_run(batch, index)
        held = self._store["params"]  # a PyroModule may have replaced the tensor by a Parameter
        found = {n: held.get(n, tensor) for n, tensor in found.items()}
        for tensor in found.values():
            tensor.data = tensor.data.to(self.device)
        self._owners = self.modules.state(found)
        self._live = found | {n: tensor_of(m, leaf) for n, (m, leaf) in self._owners.items()}
        self._known = True
        self.state_names = frozenset(self._owners)
        self.labels = labels_of_params(self._live, self._owners, self._of_guide)
        if self._marked or self._summed:
            with torch.no_grad(), unvalidated(), self.modules.evaluating(), self._entered():
                self._check_enumerated(batch, index)
        with torch.no_grad(), unvalidated(), self.modules.evaluating(dropout_only=True), self._entered():
            self.particles = self._choose_particles(batch, index)

    @property
    def _plates(self) -> Call | None:
        """The function that makes the guide's plates, if it can be run with a few rows."""
        own = getattr(self.program.guide, "create_plates", None)
        return self._guide if not self._set_up_by_data else None if own is None else self._guide.of(own)

    @property
    def _set_up_by_data(self) -> bool:
        """Whether the guide keeps parameters for each row of the first data that it sees."""
        return isinstance(self.program.guide, AutoGuide | EasyGuide)

    def _follows(self, first: Callable[[int], Batch], size: int) -> bool:
        """Whether the pair takes any number of rows, with the same parameters.

        If not, it has something for each row, or a number of rows is written in it: it takes all data.
        """
        shapes = []
        for n in few(size):
            try:
                with pyro.get_param_store().scope(), torch.random.fork_rng(), self.modules.forgetting():
                    found = self._first_run(first(n), torch.arange(n, device=self.device))
            except Exception:  # reported by the run with all data, if that fails too
                return False
            shapes.append({n: t.shape for n, t in found.items()})
        return shapes[0] == shapes[1]

    def _first_run(self, batch: Batch, index: Array) -> dict[str, Array]:
        layout = TorchLayout(self.plate, 1, None, len(index))
        found: dict[str, Array] = {}
        try:
            first = SiteRecorder(layout, index, {}, {}, found, first=True)
            guide = self._run(self._guide, batch, first)
            self._of_guide = set(found)
            then = SiteRecorder(layout, index, {}, guide, found, first=True)
            model = self._run(self._model, batch, then)
        finally:
            replaced = self.modules.put_back_params()
        if replaced:
            raise pair_mistakes.taken_twice(replaced)
        frames = [f for s in (*guide.values(), *model.values()) for f in s.frames.values() if f.dim is not None]
        self._nesting = max([1, *(-f.dim for f in frames)])
        self.own_rows = self.own_rows or first.rows or then.rows
        self._marked = [n for n, s in guide.items() if s.asks]
        self._discrete = [n for n, s in guide.items() if not has_pathwise(s.fn)]
        self._summed = summed = [n for n, s in model.items() if s.asks and n not in guide]
        for s in (*(guide[n] for n in self._marked), *(model[n] for n in summed)):
            if not layout.local(s):
                raise mistakes.enumerated_outside(s.name, layout.written)
        asked = [n for n in (*model, *guide) if n in (*summed, *self._marked)]
        self.scales = scales_of(guide, model, layout.scale, asked)
        model = {n: s for n, s in model.items() if n not in summed}
        self._check_autoguide(model, len(index))
        terms_of_pair(guide, model, self._layout(None, len(index)))
        self._latent = [n for n, s in model.items() if not s.observed]
        return found

    def _enumerated(self, gradients: Gradients | None, sampled: bool) -> list[str]:
        """The sites of the guide whose values are all taken, if they aren't given."""
        if sampled:
            return []
        return self._marked + [n for n in self._discrete if gradients and gradients.enumerate and n not in self._marked]

    def _check_autoguide(self, model: Mapping[str, Site], size: int) -> None:
        """An autoguide with latents for each row knows only those rows: the plate takes all, or draws from them."""
        guide, plate = self.program.guide, self.plate
        local = next((s for s in model.values() if plate in s.frames and not s.observed), None)
        if not self._set_up_by_data or local is None:
            return
        if self.subsamples and isinstance(guide, AutoContinuous):
            raise mistakes.in_one_vector(type(guide).__name__, plate)
        self.batch_size = self.batch_size or size
        self.own_rows = self.own_rows or local.frames[plate].full_size or size

    def _choose_particles(self, batch: Batch, index: Array) -> str:
        """The fastest way to read several particles with the same result as one at a time, wherever training may go."""
        other = stir_equal({n: t.detach() for n, t in self._live.items() if n not in self.state_names})
        own = {n: self._live[n].detach().clone() for n in other}
        try:
            self._copy(other)
            one = self._several("one at a time", 3, batch, index, {})
            drawn = {n: v for n, v in one.values.items() if n not in self._marked}
            for way in ("in a plate", "as more data"):
                with suppress(Exception):  # a program that does not accept one more dimension, or more rows
                    if agree(one, self._several(way, 3, batch, index, drawn)):
                        return way
            return "one at a time"
        finally:
            self._copy(own)

    def _several(self, way: str, k: int, batch: Batch, index: Array, given: Params, how: How = How()) -> Trace:
        if way == "in a plate":
            return self._read(self._layout(k, len(index)), batch, index, given, how)
        if way == "as more data" and self.batch_size:
            raise ProgramError("The plate fixes the number of rows.")

        def read(batch: Batch, index: Array, given: Params) -> Trace:
            return self._read(self._layout(None, len(index)), batch, index, given, how)

        return (as_more_data if way == "as more data" else one_at_a_time)(read, k, batch, index, given)

    def _read(self, layout: Layout, batch: Batch, index: Array, given: Params, how: How) -> Trace:
        """Guide, then model; values are [K, B, *axes of enumerated sites, *inner, *event]."""
        guide, model, sizes = self._runs(layout, batch, index, given, how)
        return terms_of_pair(guide, model, layout, sizes, how.kl, judged=how.gradients is None)

    def _runs(
        self,
        layout: Layout,
        batch: Batch,
        index: Array,
        given: Params,
        how: How = How(),
        held: Mapping[str, Site] = MappingProxyType({}),
    ) -> tuple[dict[str, Site], dict[str, Site], tuple[Sizes, Sizes]]:
        """The sites of guide and model; and the enumerated sites of the guide and of both, with their sizes."""
        axes: Sizes | None = None if how.sampled else {}
        first = SiteRecorder(layout, index, given, held, self._live, False, how.gradients, watch=how.watch, axes=axes)
        guide = self._run(self._guide, batch, first)
        replay, sizes = {**held, **guide}, first.axes.sizes
        second = SiteRecorder(layout, index, {}, replay, self._live, watch=how.watch, axes=sizes)
        return guide, self._run(self._model, batch, second), (sizes, second.axes.sizes)

    def _check_enumerated(self, batch: Batch, index: Array) -> None:
        layout = self._layout(None, len(index))
        guide, model, (_, sizes) = self._runs(layout, batch, index, {})
        held, chosen = at_chosen({**model, **guide}, layout, sizes)
        alone = self._runs(layout, batch, index, {}, How(sampled=True), held)
        check_terms(guide, alone[0], layout, sizes, chosen)
        check_terms(model, alone[1], layout, sizes, chosen)

    def _posteriors(
        self, layout: Layout, batch: Batch, index: Array, guide: dict[str, Site]
    ) -> tuple[Sites, dict[str, Site]]:
        """For the sites that the model sums out, given the guide's: probabilities, and the sites at the best value."""
        recorder = SiteRecorder(layout, index, {}, guide, self._live, axes={})
        return posteriors(self._run(self._model, batch, recorder), layout, recorder.axes.sizes)

    def _run(self, call: Call, batch: Batch, recorder: SiteRecorder) -> dict[str, Site]:
        recorder.subsamples = self.subsamples
        if not self.subsamples:
            recorder.index = torch.arange(recorder.layout.b, device=self.device)
        return recorder.record(call, batch)

    def _layout(self, k: int | None, b: int) -> TorchLayout:
        return TorchLayout(self.plate, self._nesting, k, b)

    def _default_device(self) -> AbstractContextManager[object]:
        """Tensors that the user's code creates without a device are created where the pair runs."""
        return nullcontext() if self.device.type == "cpu" else self.device

    @contextmanager
    def _entered(self) -> Iterator[None]:
        try:
            with pyro.get_param_store().scope(self._store), self._default_device():
                yield
        finally:
            for tensor in self._live.values():
                tensor.__dict__.pop("unconstrained", None)  # Pyro's mark on a module's parameter

    def _check_names(self, params: Params) -> None:
        if not self._known:
            raise pair_mistakes.not_known()
        pair_mistakes.check_alike(params, self._live)

    def _check_live(self, params: Params) -> None:
        if any(params.get(n) is not t for n, t in self._live.items()):
            raise pair_mistakes.not_live()

    def _copy(self, values: Params) -> None:
        with torch.no_grad():
            for n, value in values.items():
                self._live[n].copy_(value)
