"""Programs with JAX: pure functions of parameters, key and minibatch, to be jitted by others."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from ppdgm.backends.numpyro.chains import walk
from ppdgm.backends.numpyro.vocabulary import JaxReader, JaxVocabulary, MixedVocabulary
from ppdgm.language.questions import Sites
from ppdgm.language.reader import Gradients
from ppdgm.language.step import Density, Step
from ppdgm.language.tracer import ProgramTracer, Tracer
from ppdgm.language.vocabulary import Array, Batch, Namespace, ProgramLike, Vocabulary
from ppdgm.nets import check_libraries

# Folded into a step's key; sites have the numbers from 0.
_STREAMS = {"run": None, "sleep": 2**31 - 2, "gumbel": 2**31 - 3, "hmc": 2**31 - 4}
_AGAIN = 2**31 - 5


class JaxTracer(ProgramTracer):
    """A `Program`; `noise` is a key."""

    words: ClassVar[type[Vocabulary]] = JaxVocabulary
    mixed_words: ClassVar[type[Vocabulary]] = MixedVocabulary

    def __init__(self, program: ProgramLike):
        super().__init__(program)
        check_libraries(self.declared, "numpyro")
        self.looped: list[bool] = []

    def reader(self, noise: Array | None, gradients: Gradients | None) -> JaxReader:
        return JaxReader(noise, gradients, self.looped)

    @staticmethod
    def stop(x: Array) -> Array:
        return jax.lax.stop_gradient(x)


class JaxStep(Step):
    """One step; its key belongs to the step, and every stream of draws has a key of its own."""

    xp: ClassVar[Namespace] = jnp

    @staticmethod
    def stop_gradient(x: Array) -> Array:
        return jax.lax.stop_gradient(x)

    @staticmethod
    def logsumexp(x: Array, axis: int) -> Array:
        return jax.nn.logsumexp(x, axis)

    def fold(self, stream: str, number: int) -> Array:
        key = self.noise if _STREAMS[stream] is None else jax.random.fold_in(self.noise, _STREAMS[stream])
        return key if not number else jax.random.fold_in(jax.random.fold_in(key, _AGAIN), number)

    def draw_gumbel(self, noise: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.gumbel(noise, shape)

    def move(
        self, log_density: Density, start: Sites, noise: Array, step_size: Array, num_leapfrog: int, moves: int
    ) -> tuple[Sites, Array]:
        return walk(log_density, start, noise, step_size, num_leapfrog, moves)


def select(tracer: Tracer, data: Batch, index: Array) -> Batch:
    """The minibatch as the tracer needs it: its rows, or all data if the program itself subsamples."""
    tracer.prepare(data)
    return data if tracer.subsamples else {n: a.at[index].get(mode="promise_in_bounds") for n, a in data.items()}
