"""Tracers: the questions that a backend's runtime asks of one program, at native arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from ppdgm.errors import UnsupportedByBackend
from ppdgm.language import pair_mistakes, questions
from ppdgm.language.interpreter import Ask
from ppdgm.language.questions import Given, Sites
from ppdgm.language.reader import Gradients, Reader
from ppdgm.language.supports import Seen
from ppdgm.language.unseen import Unseen, is_given
from ppdgm.language.vocabulary import Array, Batch, Noise, PairLike, ProgramLike, Trace, Vocabulary
from ppdgm.specs.schedules import Schedule

Params = Mapping[str, Array]


class Tracer(ABC):
    """One program or plain pair.

    Attributes:
        program: a Program or a PlainPair.
        labels: label of each parameter; of a plain pair, "guide" if the guide has it, else "model".
        schedules: parameters that a schedule sets.
        subsamples: whether the pair itself takes a minibatch, by index, out of all data.
        batch_size: B, if a pair fixes it.
        own_rows: N, if a pair keeps something for each of the rows that it knows.
        scales: of a pair's sites, in training.
        states: parameters that only `P.update` moves.
        state_names: these, and buffers of modules: training moves them, and no optimiser does.
        compiles: whether torch.compile can compile it.
        still: the noise of runs that draw nothing.
        looped: not empty after a run with P.scan.
    """

    program: ProgramLike | PairLike
    labels: Mapping[str, str] = {}
    schedules: Mapping[str, Schedule] = {}  # a plain pair has no steps
    subsamples: bool = False
    batch_size: int | None = None
    own_rows: int | None = None
    scales: Mapping[str, float] = {}  # each pair has its own; a program has none
    states: frozenset[str] = frozenset()
    state_names: frozenset[str] = frozenset()
    compiles: bool = True
    still: Noise = None
    looped: Sequence[bool] = ()

    @abstractmethod
    def initialise(self, seed: int, data: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
        """First values of parameters and buffers, as NumPy arrays."""

    def prepare(self, data: Mapping[str, Array]) -> None:  # noqa: B027  # a program has nothing to analyse
        """Analyse a plain pair with data; a program declares everything."""

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
    ) -> Trace:
        """Terms of each site, of K particles for each row of the minibatch.

        Args:
            batch: the rows of the minibatch, or all data if the pair subsamples.
            index: the minibatch's places in the data.
            given: values of the latents, [K, B, *event], instead of draws.
            kl: whether to add closed forms.
            gradients: how gradients pass through draws; None: none will be taken.
            stopped: whether the guide's densities have no gradient to parameters, and only one to values.
        """

    @abstractmethod
    def observed(self, params: Params, noise: Noise, batch: Batch, index: Array) -> list[Seen]:
        """The observed sites, given a draw of the guide."""

    @abstractmethod
    def draws(self, params: Params, noise: Noise, batch: Batch, index: Array, k: int, given: Given = None) -> Sites:
        """Latents drawn from the guide, [K, B, *event], except those that are given."""

    @abstractmethod
    def means(self, params: Params, batch: Batch, index: Array, given: Given = None) -> tuple[Sites, Sites]:
        """Latents and observed sites at their means, [1, B, *event]; or all latents as given."""

    @abstractmethod
    def prior(
        self,
        params: Params,
        noise: Noise,
        fields: Mapping[str, Array | None],
        size: int,
        mean: bool,
        given: Given = None,
        apart: bool = False,
    ) -> tuple[Sites, Sites, Sites]:
        """Latents and observed sites drawn from the model, [1, size, *event], and the log p of sites that are held.

        Args:
            fields: data, or `Unseen` (or None) for a field that is not given.
            mean: whether observed sites are at their means.
            given, apart: sites that are held, or None for none, not even observed ones; see `questions.prior`.
        """

    def guide(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """log q of the guide's sites at given latents, [K, B]."""
        return dict(self.trace(params, self.still, batch, index, len(next(iter(given.values()))), given).log_q)

    def model(
        self,
        params: Params,
        batch: Batch,
        index: Array,
        given: Mapping[str, Array],
        gradients: Gradients | None = None,
    ) -> Sites:
        """log p of the model's sites at given latents, [K, B]; a plain pair's guide is run too."""
        return dict(self.trace(params, self.still, batch, index, len(next(iter(given.values()))), given).log_p)

    def predictive(self, params: Params, noise: Noise, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """Observed sites drawn at given latents, [K, B, *event]."""
        raise UnsupportedByBackend(pair_mistakes.NO_PREDICTIVE)

    def decoded(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """Observed sites at their means given some latents, [1, B, *event]."""
        raise UnsupportedByBackend(pair_mistakes.NO_PREDICTIVE)

    def sleep(self, params: Params, noise: Noise, batch: Batch, index: Array, gradients: Gradients) -> Sites:
        """log q of the guide's sites at latents and data drawn from the model, [1, B]."""
        raise UnsupportedByBackend(pair_mistakes.NO_SLEEP)

    def ask(self, params: Params, noise: Noise, batch: Batch, size: int, gradients: Gradients | None = None) -> Ask:
        """What runs the program's functions at these parameters and data."""
        raise UnsupportedByBackend(pair_mistakes.NO_FUNCTIONS)


def sized(fields: Mapping[str, Array | None], size: int) -> dict[str, Array]:
    """Fields of B rows, with `Unseen` for those that are not given."""
    blank = lambda v: (Unseen() if v is None else v).sized(size) if not is_given(v) else v
    return {n: blank(v) for n, v in fields.items()}


class ProgramTracer(Tracer):
    """A `Program`: every question is a few direct runs of its functions. A backend adds its words and draws."""

    program: ProgramLike
    words: ClassVar[type[Vocabulary]]
    mixed_words: ClassVar[type[Vocabulary]]  #: nets multiply in bfloat16

    def __init__(self, program: ProgramLike):
        self.program = program
        self.declared = program.declarations()
        self.schedules = self.declared.schedules
        self.states = self.state_names = frozenset(self.declared.states)
        self.looped: list[bool] = []
        still = self.states.union(self.schedules)
        self.labels = {n: p.label for n, p in self.declared.params.items() if n not in still}

    @abstractmethod
    def reader(self, noise: Noise, gradients: Gradients | None) -> Reader:
        """The backend's draws and densities."""

    @staticmethod
    @abstractmethod
    def stop(x: Array) -> Array:
        """x without its gradient."""

    def initialise(self, seed: int, data: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
        return self.program.initialise(seed, data, dtype)

    def ask(self, params: Params, noise: Noise, batch: Batch, size: int, gradients: Gradients | None = None) -> Ask:
        words = self.mixed_words if gradients is not None and gradients.mixed else self.words
        return Ask(self.program, self.declared, words, self.reader(noise, gradients), params, batch, size, self.stop)

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
    ) -> Trace:
        return questions.trace(self.ask(params, noise, batch, index.shape[0], gradients), k, given, kl, stopped)

    def observed(self, params: Params, noise: Noise, batch: Batch, index: Array) -> list[Seen]:
        return questions.observed(self.ask(params, noise, batch, index.shape[0]))

    def draws(self, params: Params, noise: Noise, batch: Batch, index: Array, k: int, given: Given = None) -> Sites:
        return questions.draws(self.ask(params, noise, batch, index.shape[0]), k, given)

    def means(self, params: Params, batch: Batch, index: Array, given: Given = None) -> tuple[Sites, Sites]:
        return questions.means(self.ask(params, None, batch, index.shape[0]), given)

    def prior(
        self,
        params: Params,
        noise: Noise,
        fields: Mapping[str, Array | None],
        size: int,
        mean: bool,
        given: Given = None,
        apart: bool = False,
    ) -> tuple[Sites, Sites, Sites]:
        return questions.prior(self.ask(params, noise, sized(fields, size), size), mean, given, apart)

    def guide(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        return questions.guide(self.ask(params, None, batch, index.shape[0]), given)

    def model(
        self,
        params: Params,
        batch: Batch,
        index: Array,
        given: Mapping[str, Array],
        gradients: Gradients | None = None,
    ) -> Sites:
        return questions.model(self.ask(params, None, batch, index.shape[0], gradients), given)

    def predictive(self, params: Params, noise: Noise, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        return questions.predictive(self.ask(params, noise, batch, index.shape[0]), given)

    def decoded(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        return questions.decoded(self.ask(params, None, batch, index.shape[0]), given)

    def sleep(self, params: Params, noise: Noise, batch: Batch, index: Array, gradients: Gradients) -> Sites:
        return questions.sleep(self.ask(params, noise, batch, index.shape[0], gradients))
