"""Training with JAX: whole stretches of steps in one compiled loop, with the data on the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ppdgm.backends.numpyro.tracer import select
from ppdgm.errors import SpecError
from ppdgm.language import Array


def make_optimiser(spec: Any) -> optax.GradientTransformation:
    """optax for an `Optimiser` spec, at learning rate 1 (steps are scaled by the schedule), or the user's own."""
    if isinstance(spec, optax.GradientTransformation):
        return spec
    if not hasattr(spec, "clip_norm"):
        raise SpecError(
            f"optimiser: got {type(spec).__name__}; the numpyro backend expects a name such as 'adam', an Optimiser, "
            "or an optax.GradientTransformation."
        )
    b1, b2, eps = spec.beta1, spec.beta2, spec.eps
    rule = {
        "adam": lambda: optax.adam(1.0, b1, b2, eps),
        "adamw": lambda: optax.adamw(1.0, b1, b2, eps, weight_decay=spec.weight_decay),
        "adamax": lambda: optax.adamax(1.0, b1, b2, eps),
        "sgd": lambda: optax.sgd(1.0, spec.momentum or None),
    }[spec.name]()
    return optax.chain(optax.clip_by_global_norm(spec.clip_norm), rule) if spec.clip_norm else rule


class Trainer:
    """The training state on the device, and the compiled stretch that moves it.

    Args:
        runtime: of the program.
        objective: (trace, xp, weights, knobs, data_size) -> named scalars, of which "objective" is maximised.
        optimiser: spec or optax transformation.
        params, data: from `runtime.put`.
        seed: of all draws.
        data_size: N.
        binarise: draw x ~ Bernoulli(x) anew for each minibatch.
    """

    def __init__(
        self,
        runtime: Any,
        objective: Any,
        optimiser: Any,
        params: dict[str, Array],
        data: dict[str, Array],
        seed: int,
        data_size: int,
        binarise: bool = False,
        compile: bool = True,
    ):
        self.runtime, self.tracer, self.objective = runtime, runtime.tracer, objective
        self.data, self.data_size, self.binarise = data, data_size, binarise
        self.transform = make_optimiser(optimiser)
        self.params = jax.tree.map(jnp.copy, params)  # stretches donate their input: never the caller's arrays
        self.state = jax.jit(self.transform.init)(self.params)
        self.key = jax.device_put(jax.random.key(seed), runtime.device)
        self._stretch = jax.jit(self._run_stretch, donate_argnums=(0, 1))

    def run(self, plan: Any) -> dict[str, np.ndarray]:
        """Take the plan's steps; return each objective's metrics per step. Nothing is read back in between."""
        put = lambda a: jax.device_put(a, self.runtime.device)  # noqa: E731
        arrays = {
            "index": put(plan.index),
            "weight": put(plan.weight),
            "rate": put(plan.rate),
            "knobs": {n: put(v) for n, v in plan.knobs.items()},
        }
        bounds = put(np.array([plan.first, plan.count], np.int32))
        self.params, self.state, history = self._stretch(self.params, self.state, self.data, self.key, arrays, bounds)
        history = jax.device_get(history)
        return {n: np.asarray(v)[: plan.count] for n, v in history.items()}

    def values(self) -> dict[str, np.ndarray]:
        """The parameters now."""
        found: dict[str, np.ndarray] = self.runtime.fetch(self.params)
        return found

    def compilations(self) -> int:
        """How often the stretch was compiled."""
        return int(self._stretch._cache_size())

    def _run_stretch(self, params: Any, state: Any, data: Any, key: Array, plan: Any, bounds: Array) -> Any:
        first, count = bounds[0], bounds[1]
        capacity = plan["rate"].shape[0]
        history = {n: jnp.zeros(capacity, jnp.float32) for n in self.objective.metrics}

        def step(i: Array, carry: Any) -> Any:
            params, state, history = carry
            row = jax.tree.map(lambda a: a[i], plan)
            metrics, grads = self._gradient(params, data, jax.random.fold_in(key, first + i), row)
            updates, state = self.transform.update(grads, state, params)
            params = jax.tree.map(lambda p, u: p + (row["rate"] * u).astype(p.dtype), params, updates)
            return params, state, {n: h.at[i].set(metrics[n].astype(h.dtype)) for n, h in history.items()}

        return jax.lax.fori_loop(0, count, step, (params, state, history))

    def _gradient(self, params: Any, data: Any, key: Array, row: Any) -> Any:
        draw, flip = jax.random.split(key)
        batch = select(self.tracer, data, row["index"])
        if self.binarise:
            x = batch["x"]
            batch = {**batch, "x": (jax.random.uniform(flip, x.shape, x.dtype) < x).astype(x.dtype)}

        def loss(params: Any) -> Any:
            k, kl = self.objective.particles, self.objective.wants_kl
            terms = self.tracer.trace(params, draw, batch, row["index"], k, None, kl, pathwise=True)
            metrics = self.objective(terms, jnp, row["weight"], row["knobs"], self.data_size)
            return -metrics["objective"], metrics

        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return metrics, grads
