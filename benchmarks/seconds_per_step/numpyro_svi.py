"""NumPyro's own SVI, on the VAE as a NumPyro user writes it, in three ways of drawing the minibatch.

`svi.run` hands its arguments unchanged to every step, so it has no place for a row per step. `numpyro_run`
lets the loss pick one of the rows at random, once per step. `numpyro_run_plate` draws by
`plate(subsample_size=...)`, as in the manual. `numpyro_update` gives the rows in order to `svi.update` in a
scan. Only `numpyro_run_plate` does not use the data path that all others share.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.svi import SVIState

from .problem import DATA, LATENT, LEARNING_RATE, Contestant, Floats, Layer, Problem, Rows, Stretch

Run = Callable[[SVIState, Array, Array], tuple[SVIState, Array]]
"""A stretch as a function of the state, the data and the rows; it returns the next state and the losses."""


class RandomRowELBO(Trace_ELBO):
    """The ELBO of one of the given minibatches, the same for all particles of a step."""

    def loss(
        self, rng_key: Array, param_map: dict, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Array:
        data, rows = args
        row_key, rng_key = jax.random.split(rng_key)
        row = rows[jax.random.randint(row_key, (), 0, len(rows))]
        return super().loss(rng_key, param_map, model, guide, data[row], **kwargs)


def numpyro_run(problem: Problem) -> Contestant:
    """`svi.run` on the same data path as all others."""
    return _by_run(problem, _svi(problem, RandomRowELBO(problem.particles)), problem.batch)


def numpyro_run_plate(problem: Problem) -> Contestant:
    """`svi.run` with the minibatch drawn by the plate; with K particles, NumPyro draws K minibatches."""
    plate = partial(numpyro.plate, "data", DATA, subsample_size=problem.batch)

    def model(data: Array, _: Array) -> None:
        with plate() as indices:
            _generate(problem, data[indices])

    def guide(data: Array, _: Array) -> None:
        with plate() as indices:
            _infer(problem, data[indices])

    svi = SVI(model, guide, optax.adam(LEARNING_RATE), Trace_ELBO(problem.particles))
    return _by_run(problem, svi, DATA)


def numpyro_update(problem: Problem) -> Contestant:
    """`svi.update` in a jitted scan over the rows, which is what `svi.run` does within."""
    svi = _svi(problem, Trace_ELBO(problem.particles))

    def run(state: SVIState, data: Array, rows: Array) -> tuple[SVIState, Array]:
        return jax.lax.scan(lambda state, row: svi.update(state, data[row]), state, rows)

    return _contestant(problem, svi, run, problem.batch)


def _svi(problem: Problem, elbo: Trace_ELBO) -> SVI:
    """SVI on a minibatch that it is given."""

    def model(x: Array, *_: Array) -> None:
        with numpyro.plate("data", len(x)):
            _generate(problem, x)

    def guide(x: Array, *_: Array) -> None:
        with numpyro.plate("data", len(x)):
            _infer(problem, x)

    return SVI(model, guide, optax.adam(LEARNING_RATE), elbo)


def _by_run(problem: Problem, svi: SVI, loss_scale: int) -> Contestant:
    """`svi.run` without its progress bar, which would leave the scan for a Python loop.

    It is called under `jit` because each plain call traces and compiles its scan again. That takes about a second,
    much longer than the steps of a stretch.
    """

    def run(state: SVIState, data: Array, rows: Array) -> tuple[SVIState, Array]:
        key, steps = (
            jax.random.key(0),
            len(rows),
        )  # the key is only for initialising, which is done
        result = svi.run(key, steps, data, rows, progress_bar=False, init_state=state)
        return result.state, result.losses

    return _contestant(problem, svi, run, loss_scale)


def _contestant(problem: Problem, svi: SVI, run: Run, loss_scale: int) -> Contestant:
    """Jit `run`, and divide its losses by the number of data to which NumPyro scales them."""
    data = jnp.asarray(problem.data)
    # Initialising only collects the parameters, so any data are enough; it need not be all of them.
    state = svi.init(jax.random.key(0), data[: problem.batch], None)
    jitted = jax.jit(run, donate_argnums=0)

    def contestant(rows: Rows) -> Stretch:
        device_rows = jnp.asarray(rows, jnp.int32)

        def stretch() -> Floats:
            nonlocal state
            state, losses = jitted(state, data, device_rows)
            return np.asarray(losses) / np.float32(loss_scale)

        return stretch

    return contestant


def _generate(problem: Problem, x: Array) -> None:
    """The model's sites, inside its plate."""
    z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
    logits = _mlp("decoder", problem.decoder, z)
    numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def _infer(problem: Problem, x: Array) -> None:
    """The guide's site, inside its plate."""
    loc, log_scale = jnp.split(_mlp("encoder", problem.encoder, x), [LATENT], axis=-1)
    numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))


def _mlp(name: str, layers: tuple[Layer, ...], x: Array) -> Array:
    for i, layer in enumerate(layers):
        weight = numpyro.param(f"{name}.{i}.weight", jnp.asarray(layer.weight))
        bias = numpyro.param(f"{name}.{i}.bias", jnp.asarray(layer.bias))
        x = x @ weight + bias
        if i < len(layers) - 1:
            x = jnp.tanh(x)
    return x
