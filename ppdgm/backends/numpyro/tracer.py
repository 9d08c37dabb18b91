"""Direct readings of a program with JAX: pure functions of parameters, key and minibatch, to be jitted by others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppdgm.backends.numpyro.chains import walk
from ppdgm.backends.numpyro.vocabulary import JaxReader, JaxVocabulary, MixedVocabulary
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
from ppdgm.nets import check_libraries

Params = Mapping[str, Array]
Sites = dict[str, Array]
# Folded into a step's key for draws of the model, an objective's own, and chains.
_DREAM, _NOISE, _WALK = 2**31 - 2, 2**31 - 3, 2**31 - 4


class ProgramTracer:
    """Readings of a `Program`. `batch` holds the B rows of the minibatch."""

    subsamples = False  #: a minibatch is rows of the data, not indices for the program's own plate
    batch_size: int | None = None  #: any
    own_rows: int | None = None  #: its parameters belong to no data
    scales: ClassVar[dict[str, float]] = {}  #: a program can't set any

    def __init__(self, program: Any):
        self.program = program
        self.declared = program.declarations()
        self.schedules = self.declared.schedules
        self.labels = {n: p.label for n, p in self.declared.params.items() if n not in self.schedules}
        check_libraries(self.declared, "numpyro")

    def prepare(self, data: Batch) -> None:
        """Nothing to do: a program declares itself."""

    def initialise(self, seed: int, data: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = self.program.initialise(seed, data, dtype)
        return values

    def trace(
        self,
        params: Params,
        key: Array,
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
        speak, reader, shape = self._speak(params, gradients), JaxReader(key, gradients), (k, len(index))
        guide = self._speak(jax.lax.stop_gradient(dict(params)), gradients) if stopped else speak
        return read_pair(self.program, speak, reader, batch, shape, given or {}, kl, guide)

    def observed(self, params: Params, key: Array, batch: Batch, index: Array) -> list[Seen]:
        """The observed sites, given a draw of the guide."""
        return read_observed(self.program, self._speak(params), JaxReader(key), batch, len(index))

    def dream(
        self, params: Params, key: Array, batch: Batch, index: Array, gradients: Gradients | None = None
    ) -> Sites:
        """log q of the guide's sites at draws of the model, [1, B]."""
        reader = JaxReader(key, gradients)
        return read_dream(
            self.program, self._speak(params, gradients), reader, batch, len(index), jax.lax.stop_gradient
        )

    def draws(
        self, params: Params, key: Array, batch: Batch, index: Array, k: int, given: Mapping[str, Array] | None = None
    ) -> Sites:
        """Latents drawn from the guide, [K, B, *event], except those that are given."""
        return read_draws(self.program, self._speak(params), JaxReader(key), batch, (k, len(index)), given)

    def guide(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """log q of the guide's sites at given latents, [K, B]."""
        shape = (len(next(iter(given.values()))), len(index))
        return read_guide(self.program, self._speak(params), JaxReader(None), batch, shape, given)

    def model(
        self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array], gradients: Any = None
    ) -> Sites:
        """log p of the model's sites at given latents, [K, B]."""
        shape = (len(next(iter(given.values()))), len(index))
        return read_model(self.program, self._speak(params, gradients), JaxReader(None), batch, shape, given)

    def predictive(self, params: Params, key: Array, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """Observed sites drawn at given latents, [K, B, *event]."""
        shape = (len(next(iter(given.values()))), len(index))
        return read_predictive(self.program, self._speak(params), JaxReader(key), batch, shape, given)

    def decoded(self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array]) -> Sites:
        """Observed sites at their means given some latents, [1, B, *event]."""
        return read_decoded(self.program, self._speak(params), JaxReader(None), batch, len(index), given)

    def means(
        self, params: Params, batch: Batch, index: Array, given: Mapping[str, Array] | None = None
    ) -> tuple[Sites, Sites]:
        """Latents and observed sites at their means, [1, B, *event]; or all latents as given."""
        return read_means(self.program, self._speak(params), JaxReader(None), batch, len(index), given)

    def prior(
        self,
        params: Params,
        key: Array,
        fields: Mapping[str, Any],
        size: int,
        mean: bool,
        given: Mapping[str, Array] | None = None,
        apart: bool = False,
    ) -> tuple[Sites, Sites, Sites]:
        """Latents and observed sites drawn from the model, [1, size, *event], and the log p of sites that are held.

        Args:
            fields: data, or None.
            given, apart: sites that are held, or None for none, not even observed ones; see `read_prior`.
        """
        batch = {n: UNSEEN if v is None else v for n, v in fields.items()}
        return read_prior(self.program, self._speak(params), JaxReader(key), batch, size, mean, given, apart)

    def _speak(self, params: Params, gradients: Gradients | None = None) -> Any:
        kind = MixedVocabulary if gradients and gradients.mixed else JaxVocabulary

        def speak(reading: Reading) -> JaxVocabulary:
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
    return dict(tracer.trace(params, jax.random.key(0), batch, index, k, given).log_p)


def make_tracing(
    tracer: Any, engine: Any, params: Params, key: Array, batch: Batch, index: Array, mixed: bool = False
) -> Tracing:
    """One step as an engine's objective sees it; `batch` is from `select`."""

    def trace(gradients: Gradients, given: Any, kl: bool, stopped: bool) -> Trace:
        found: Trace = tracer.trace(params, key, batch, index, engine.particles, given, kl, gradients, stopped)
        return found

    def walks(start: Any, step_size: Array, leaps: int, moves: int) -> Any:
        held, key_of = jax.lax.stop_gradient((dict(params), dict(start))), jax.random.fold_in(key, _WALK)

        def log_density(z: Any) -> Array:
            return sum(v.sum() for v in model_at(tracer, held[0], batch, index, z).values())

        return walk(log_density, held[1], key_of, jax.lax.stop_gradient(step_size), leaps, moves)

    return Tracing(
        xp=jnp,
        stop_gradient=jax.lax.stop_gradient,
        logsumexp=jax.nn.logsumexp,
        gumbel=lambda shape: jax.random.gumbel(jax.random.fold_in(key, _NOISE), shape),
        trace=trace,
        dreams=lambda gradients: tracer.dream(params, jax.random.fold_in(key, _DREAM), batch, index, gradients),
        walks=walks,
        models=lambda gradients, given: model_at(tracer, params, batch, index, given, gradients),
        rows=lambda: {n: a[index] for n, a in batch.items()} if tracer.subsamples else batch,
        params=params,
        gradients=replace(engine.gradients(), mixed=mixed),
        scales=tracer.scales,
    )


def select(tracer: Any, data: Batch, index: Array) -> Batch:
    """The minibatch as the tracer needs it: its rows, or all data if the program itself subsamples."""
    tracer.prepare(data)
    return data if tracer.subsamples else {n: a.at[index].get(mode="promise_in_bounds") for n, a in data.items()}
