"""Direct readings of a program with torch: no handlers, only distributions and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import array_api_compat.torch as xp
import numpy as np
import torch

from ppdgm.backends.pyro.chains import walk
from ppdgm.backends.pyro.noise import Watch
from ppdgm.backends.pyro.vocabulary import MixedVocabulary, TorchReader, TorchVocabulary
from ppdgm.language.interpreter import Gradients, Reading, Seen
from ppdgm.language.questions import (
    read_decoded,
    read_draws,
    read_dream,
    read_guide,
    read_means,
    read_model,
    read_observed,
    read_pair,
    read_predictive,
    read_prior,
)
from ppdgm.language.step import Tracing
from ppdgm.language.vocabulary import UNSEEN, Array, Batch, Trace
from ppdgm.nets import ForeignNet, check_libraries

Params = Mapping[str, Array]
Sites = dict[str, Array]


def module_params(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """The module's parameters by dotted name."""
    return {n: p.detach().cpu().numpy().copy() for n, p in module.named_parameters()}


class ProgramTracer:
    """Readings of a `Program`. `batch` holds the B rows of the minibatch; `params` include the nets' buffers."""

    subsamples = False  #: a minibatch is rows of the data, not indices for the program's own plate
    batch_size: int | None = None  #: any
    own_rows: int | None = None  #: its parameters belong to no data
    scales: ClassVar[dict[str, float]] = {}  #: a program can't set any
    compiles = True

    def __init__(self, program: Any):
        self.program = program
        self.declared = program.declarations()
        self.schedules = self.declared.schedules
        self.labels = {n: p.label for n, p in self.declared.params.items() if n not in self.schedules}
        check_libraries(self.declared, "pyro")
        self._modules: dict[str, torch.nn.Module] = {
            n: u.spec.module for n, u in self.declared.nets.items() if isinstance(u.spec, ForeignNet)
        }
        self._buffers = {f"{n}.{b}": v for n, m in self._modules.items() for b, v in m.named_buffers()}
        self.state_names = frozenset(self._buffers)

    def initialise(self, seed: int, data: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
        """First values of parameters, and of buffers (such as running means), which training also changes."""
        values: dict[str, np.ndarray] = self.program.initialise(seed, data, dtype)
        return values | {n: b.detach().cpu().numpy().copy() for n, b in self._buffers.items()}

    def prepare(self, data: Mapping[str, np.ndarray]) -> None:
        """Does nothing: a program declares everything."""

    def all_modules(self) -> list[torch.nn.Module]:
        """The program's own torch modules, and all inside them."""
        return [m for module in self._modules.values() for m in module.modules()]

    def adopt(self, params: Params) -> dict[str, Array]:
        """Copies of `params` that training may change."""
        return {
            n: v.detach().clone().requires_grad_(n not in self.state_names and n not in self.schedules)
            for n, v in params.items()
        }

    @contextmanager
    def training(self, params: Params) -> Iterator[None]:
        """Modules stay in the mode that the user left them in."""
        yield

    @contextmanager
    def evaluating(self, params: Params) -> Iterator[Params]:
        """Modules in evaluation mode, on copies of the buffers: an evaluation changes nothing."""
        modes = [(m, m.training) for module in self._modules.values() for m in module.modules()]
        for m, _ in modes:
            m.training = False
        try:
            yield {n: v.clone() if n in self.state_names else v for n, v in params.items()}
        finally:
            for m, training in modes:
                m.training = training

    def trace(
        self,
        params: Params,
        batch: Batch,
        index: Array,
        k: int,
        given: Mapping[str, Array] | None = None,
        kl: bool = False,
        gradients: Gradients | None = None,
        stopped: bool = False,
    ) -> Trace:
        """Per-site terms of K particles for each row of the minibatch.

        Args:
            stopped: whether the guide's densities have no gradient to parameters, and only one to values.
        """
        speak, reader, shape = self._speak(params, gradients), TorchReader(gradients), (k, index.shape[0])
        guide = self._speak({n: v.detach() for n, v in params.items()}, gradients) if stopped else speak
        return read_pair(self.program, speak, reader, batch, shape, given or {}, kl, guide)

    def observed(self, params: Params, batch: Batch, index: Array) -> list[Seen]:
        """The observed sites, given a draw of the guide."""
        return read_observed(self.program, self._speak(params), TorchReader(), batch, index.shape[0])

    def watched(
        self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array], watch: Watch | None
    ) -> Trace:
        """The terms of one particle; `watch` sees draws between the sites."""
        reader = TorchReader(watch=watch)
        return read_pair(self.program, self._speak(params), reader, batch, (1, index.shape[0]), given, False)

    def dream(self, params: Params, batch: Batch, index: Array, gradients: Gradients | None = None) -> Sites:
        """log q of the guide's sites at draws of the model, [1, B]."""
        reader = TorchReader(gradients)
        return read_dream(
            self.program, self._speak(params, gradients), reader, batch, index.shape[0], torch.Tensor.detach
        )

    def draws(
        self, params: Params, batch: Batch, index: Array, k: int, given: Mapping[str, Array] | None = None
    ) -> Sites:
        """Latents drawn from the guide, [K, B, *event], except those that are given."""
        return read_draws(self.program, self._speak(params), TorchReader(), batch, (k, index.shape[0]), given)

    def guide(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """log q of the guide's sites at given latents, [K, B]."""
        shape = (len(next(iter(given.values()))), index.shape[0])
        return read_guide(self.program, self._speak(params), TorchReader(), batch, shape, given)

    def model(
        self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array], gradients: Any = None
    ) -> Sites:
        """log p of the model's sites at given latents, [K, B]."""
        shape = (len(next(iter(given.values()))), index.shape[0])
        return read_model(self.program, self._speak(params, gradients), TorchReader(), batch, shape, given)

    def predictive(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """Observed sites drawn at given latents, [K, B, *event]."""
        shape = (len(next(iter(given.values()))), index.shape[0])
        return read_predictive(self.program, self._speak(params), TorchReader(), batch, shape, given)

    def decoded(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """Observed sites at their means given some latents, [1, B, *event]."""
        return read_decoded(self.program, self._speak(params), TorchReader(), batch, index.shape[0], given)

    def means(
        self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array] | None = None
    ) -> tuple[Sites, Sites]:
        """Latents and observed sites at their means, [1, B, *event]; or all latents as given."""
        return read_means(self.program, self._speak(params), TorchReader(), batch, index.shape[0], given)

    def prior(
        self,
        params: Params,
        fields: Mapping[str, Any],
        size: int,
        mean: bool,
        given: Mapping[str, Array] | None = None,
        apart: bool = False,
        watch: Watch | None = None,
    ) -> tuple[Sites, Sites, Sites]:
        """Latents and observed sites drawn from the model, [1, size, *event], and the log p of sites that are held.

        Args:
            fields: data, or None.
            given, apart: sites that are held, or None for none, not even observed ones; see `read_prior`.
        """
        batch = {n: UNSEEN if v is None else v for n, v in fields.items()}
        return read_prior(self.program, self._speak(params), TorchReader(watch=watch), batch, size, mean, given, apart)

    def model_twice(self, params: Params, fields: Mapping[str, Any], size: int) -> list[Sites]:
        """Two runs of the model at the same latents: the means of observed sites, and log p of the latents."""
        latents = self.prior(params, fields, size, False)[0]
        runs = [self.prior(params, fields, size, True, latents, True) for _ in range(2)]
        return [{**seen, **{f"log p of {n}": v for n, v in scores.items()}} for _, seen, scores in runs]

    def _speak(self, params: Params, gradients: Gradients | None = None) -> Any:
        kind = MixedVocabulary if gradients and gradients.mixed else TorchVocabulary

        def speak(reading: Reading) -> TorchVocabulary:
            return kind(reading, params, self.declared)

        return speak


def model_at(
    tracer: Any,
    params: Params,
    batch: Batch,
    index: Array,
    given: Mapping[str, Array],
    gradients: Gradients | None = None,
) -> Sites:
    """log p of the model's sites at given latents, [K, B]; a plain pair's guide is read too."""
    if hasattr(tracer, "model"):
        found: Sites = tracer.model(params, batch, index, given, gradients)
        return found
    k = len(next(iter(given.values())))
    return dict(tracer.trace(params, batch, index, k, given).log_p)


def make_tracing(tracer: Any, engine: Any, params: Params, batch: Batch, index: Array, mixed: bool = False) -> Tracing:
    """One step as an engine's objective sees it; `batch` is from `select`."""

    def trace(gradients: Gradients, given: Any, kl: bool, stopped: bool) -> Trace:
        found: Trace = tracer.trace(params, batch, index, engine.particles, given, kl, gradients, stopped)
        return found

    def walks(start: Any, step_size: Array, leaps: int, moves: int) -> Any:
        def log_density(z: Any) -> Array:
            return sum(v.sum() for v in model_at(tracer, params, batch, index, z).values())

        return walk(log_density, start, step_size, leaps, moves)

    return Tracing(
        xp=xp,
        stop_gradient=torch.Tensor.detach,
        logsumexp=torch.logsumexp,
        gumbel=lambda shape: -torch.empty(shape, device=index.device).exponential_().clamp(min=1e-30).log(),
        trace=trace,
        dreams=lambda gradients: tracer.dream(params, batch, index, gradients),
        walks=walks,
        models=lambda gradients, given: model_at(tracer, params, batch, index, given, gradients),
        rows=lambda: {n: a[index] for n, a in batch.items()} if tracer.subsamples else batch,
        params=params,
        gradients=replace(engine.gradients(), mixed=mixed),
        scales=tracer.scales,
    )


def select(tracer: Any, data: Batch, index: Array) -> Batch:
    """The minibatch as the tracer needs it: its rows, or all data if the program itself subsamples."""
    return data if tracer.subsamples else {n: a.index_select(0, index) for n, a in data.items()}
