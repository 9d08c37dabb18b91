"""Noise that a program takes by `P.random`: whether the terms of its sites, or its draws, depend on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax

from ppdgm.backends.numpyro.noise import moved_by_key
from ppdgm.backends.numpyro.tracer import JaxTracer
from ppdgm.errors import PpdgmError
from ppdgm.language import questions
from ppdgm.language.terms import by_name
from ppdgm.language.tracer import Params, sized
from ppdgm.language.vocabulary import Array, Batch

REMEDY = "The program uses P.random."


def noise_of_terms(tracer: JaxTracer, params: Params, batch: Callable[[], Batch], size: int) -> str:
    """What to do about it; "" if no term of guide and model depends on it, at the same latents.

    Nothing is computed, not even the `batch`, which is made where it is needed.
    """
    noises: list[int] = []

    def values() -> dict[str, Array]:
        ask = tracer.ask(params, jax.random.key(0), batch(), size)
        found = questions.trace(ask, 1).values
        noises.append(ask.reader.noises)
        return found

    shapes = jax.eval_shape(values)
    if not noises[0]:
        return ""
    given = {n: jax.numpy.zeros(v.shape, v.dtype) for n, v in shapes.items()}
    return _remedy(lambda key: by_name(questions.trace(tracer.ask(params, key, batch(), size), 1, given)))


def noise_of_draws(tracer: JaxTracer, params: Params, fields: Mapping[str, Array | None], size: int) -> str:
    """The same of draws from the model, at the same latents."""
    batch = sized(fields, size)
    ask = tracer.ask(params, jax.random.key(0), batch, size)
    latents = jax.eval_shape(lambda: questions.prior(ask, False)[0])
    if not ask.reader.noises:
        return ""
    given = {n: jax.numpy.zeros(v.shape, v.dtype) for n, v in latents.items()}
    return _remedy(lambda key: questions.prior(tracer.ask(params, key, batch, size), True, given, True)[1])


def _remedy(run: Callable[[Array], dict[str, Array]]) -> str:
    try:
        return REMEDY if moved_by_key(run) else ""
    except (PpdgmError, NotImplementedError):  # only its own draws can be scored, as for a one-way flow
        return REMEDY
