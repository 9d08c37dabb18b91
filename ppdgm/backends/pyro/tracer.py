"""Programs with torch: only distributions and log-probabilities, in small functions that torch.compile can take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import ClassVar

import array_api_compat.torch as xp
import numpy as np
import torch

from ppdgm.backends.pyro.chains import walk
from ppdgm.backends.pyro.chunks import by_chunks, in_chunks
from ppdgm.backends.pyro.noise import GeneratorWatch
from ppdgm.backends.pyro.row_noise import row_noise
from ppdgm.backends.pyro.vocabulary import MixedVocabulary, TorchReader, TorchVocabulary
from ppdgm.language import questions
from ppdgm.language.chunks import Read
from ppdgm.language.interpreter import Ask
from ppdgm.language.questions import Given, Sites
from ppdgm.language.reader import Gradients
from ppdgm.language.step import Step
from ppdgm.language.tracer import Params, ProgramTracer, Tracer, sized
from ppdgm.language.vocabulary import Array, Batch, Namespace, ProgramLike, Trace, Vocabulary
from ppdgm.nets import ForeignNet, check_libraries


def module_params(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """The module's parameters by dotted name."""
    return {n: p.detach().cpu().numpy().copy() for n, p in module.named_parameters()}


def module_states(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """None: the module keeps its buffers itself."""
    return {}


class TorchTracer(ProgramTracer):
    """A `Program`; `params` include the nets' buffers, and draws come from torch's generator."""

    words: ClassVar[type[Vocabulary]] = TorchVocabulary
    mixed_words: ClassVar[type[Vocabulary]] = MixedVocabulary

    def __init__(self, program: ProgramLike):
        super().__init__(program)
        check_libraries(self.declared, "pyro")
        self._modules: dict[str, torch.nn.Module] = {
            n: u.spec.module for n, u in self.declared.nets.items() if isinstance(u.spec, ForeignNet)
        }
        self._buffers = {f"{n}.{b}": v for n, m in self._modules.items() for b, v in m.named_buffers()}
        self.state_names |= self._buffers.keys()

    def reader(self, noise: None, gradients: Gradients | None) -> TorchReader:
        return TorchReader(gradients, looped=self.looped)

    stop = staticmethod(torch.Tensor.detach)

    def initialise(self, seed: int, data: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
        """First values of parameters, and of buffers (such as running means), which training also changes."""
        values = super().initialise(seed, data, dtype)
        return values | {n: b.detach().cpu().numpy().copy() for n, b in self._buffers.items()}

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
        with _wide(params):
            yield

    @contextmanager
    def evaluating(self, params: Params) -> Iterator[Params]:
        """Modules in evaluation mode, on copies of the buffers: an evaluation changes nothing."""
        modes = [(m, m.training) for module in self._modules.values() for m in module.modules()]
        for m, _ in modes:
            m.training = False
        try:
            with _wide(params):
                yield {n: v.clone() if n in self.state_names else v for n, v in params.items()}
        finally:
            for m, training in modes:
                m.training = training

    def watched(self, params: Params, batch: Batch, index: Array, given: Params, watch: GeneratorWatch | None) -> Trace:
        """The terms of one particle; `watch` sees draws between the sites."""
        return questions.trace(self._watching(params, batch, index.shape[0], watch), 1, given)

    def watched_prior(
        self, params: Params, fields: Mapping[str, Array | None], size: int, watch: GeneratorWatch
    ) -> None:
        """Draws from the model; `watch` sees draws between the sites."""
        questions.prior(self._watching(params, fields, size, watch), False)

    def _watching(
        self, params: Params, fields: Mapping[str, Array | None], size: int, watch: GeneratorWatch | None
    ) -> Ask:
        reader, batch = TorchReader(watch=watch), sized(fields, size)
        return Ask(self.program, self.declared, self.words, reader, params, batch, size, self.stop)

    def model_twice(self, params: Params, fields: Mapping[str, Array | None], size: int) -> list[Sites]:
        """Two runs of the model at the same latents: the means of observed sites, and log p of the latents."""
        latents = self.prior(params, None, fields, size, False)[0]
        runs = [self.prior(params, None, fields, size, True, latents, True) for _ in range(2)]
        return [{**seen, **{f"log p of {n}": v for n, v in scores.items()}} for _, seen, scores in runs]


class TorchStep(Step):
    """One step; its draws come from torch's generator."""

    xp: ClassVar[Namespace] = xp

    stop_gradient = staticmethod(torch.Tensor.detach)
    logsumexp = staticmethod(torch.logsumexp)
    move = staticmethod(walk)
    by_chunks = staticmethod(by_chunks)

    def in_chunks(self, read: Read, noise: None, given: Given, chunk: int) -> Trace:
        return in_chunks(read, self.params, given, self.k, chunk, self.index.device)

    def fold(self, stream: str, number: int) -> None:
        return None

    def fixed_params(self) -> Mapping[str, Array]:
        return self.params  # a plain pair runs at its own tensors; the kernel only differentiates by latents

    def draw_gumbel(self, noise: None, shape: tuple[int, ...]) -> Array:
        rows = row_noise()
        with nullcontext() if rows is None else rows.of_arrays():
            return -torch.empty(shape, device=self.index.device).exponential_().clamp(min=1e-30).log()


def select(tracer: Tracer, data: Batch, index: Array) -> Batch:
    """The minibatch as the tracer needs it: its rows, or all data if the program itself subsamples."""
    return data if tracer.subsamples else {n: a.index_select(0, index) for n, a in data.items()}


@contextmanager
def _wide(params: Params) -> Iterator[None]:
    """If parameters are float64, a whole number times ½ is float64 too: to torch it is of its default type, float32."""
    before = torch.get_default_dtype()
    if any(v.dtype == torch.float64 for v in params.values()):
        torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
