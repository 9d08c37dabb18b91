"""Programs with JAX: pure functions of parameters, key and minibatch, to be jitted by others."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from ppdgm.backends.numpyro.chains import walk
from ppdgm.backends.numpyro.chunks import by_chunks, in_chunks
from ppdgm.backends.numpyro.vocabulary import JaxReader, JaxVocabulary, MixedVocabulary
from ppdgm.language.chunks import Read
from ppdgm.language.questions import Given
from ppdgm.language.reader import Gradients
from ppdgm.language.step import Step
from ppdgm.language.tracer import ProgramTracer, Tracer
from ppdgm.language.vocabulary import Array, Batch, Namespace, ProgramLike, Trace, Vocabulary
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

    def reader(self, noise: Array | None, gradients: Gradients | None) -> JaxReader:
        return JaxReader(noise, gradients, self.looped)

    stop = staticmethod(jax.lax.stop_gradient)


def _identity(x: Array, factor: Array) -> Array:
    return x


_scale_gradient = jax.custom_vjp(_identity)
_scale_gradient.defvjp(lambda x, factor: (x, factor), lambda factor, slope: (factor * slope, jnp.zeros_like(factor)))


class JaxStep(Step):
    """One step; its key belongs to the step, and every stream of draws has a key of its own."""

    xp: ClassVar[Namespace] = jnp

    stop_gradient = staticmethod(jax.lax.stop_gradient)
    logsumexp = staticmethod(jax.nn.logsumexp)
    scale_gradient = staticmethod(_scale_gradient)  # x itself: XLA then computes once what two readings at it share
    move = staticmethod(walk)
    by_chunks = staticmethod(by_chunks)

    def in_chunks(self, read: Read, noise: Array, given: Given, chunk: int) -> Trace:
        return in_chunks(read, self.params, noise, given, self.k, chunk)

    def fold(self, stream: str, number: int) -> Array:
        key = self.noise if _STREAMS[stream] is None else jax.random.fold_in(self.noise, _STREAMS[stream])
        return key if not number else jax.random.fold_in(jax.random.fold_in(key, _AGAIN), number)

    def draw_gumbel(self, noise: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.gumbel(noise, shape)


def select(tracer: Tracer, data: Batch, index: Array) -> Batch:
    """The minibatch as the tracer needs it: its rows, or all data if the program itself subsamples."""
    tracer.prepare(data)
    return data if tracer.subsamples else {n: a.at[index].get(mode="promise_in_bounds") for n, a in data.items()}
