"""The loop that somebody who knows JAX writes by hand: a whole stretch of steps inside one jitted scan."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from .problem import LATENT, LEARNING_RATE, Contestant, Floats, Layer, Problem, Rows, Stretch

DenseLayers = list[tuple[Array, Array]]


def jax_scan(problem: Problem, *, out_in: bool = False, unroll: int = 1) -> Contestant:
    """One `lax.scan` over the rows, with `optax.adam`; the state's buffers are donated from stretch to
    stretch.

    Args:
        problem: what to train.
        out_in: keep weights as torch does, `[out, in]`, and multiply by their transpose.
        unroll: steps per iteration of the scan's loop.
    """
    encoder, decoder = _parameters(problem.encoder, out_in), _parameters(problem.decoder, out_in)
    mlp = partial(_mlp, out_in=out_in)
    adam = optax.adam(LEARNING_RATE)
    data = jnp.asarray(problem.data)

    def negative_elbo(parameters: tuple[DenseLayers, DenseLayers], x: Array, key: Array) -> Array:
        encoder, decoder = parameters
        loc, log_scale = jnp.split(mlp(encoder, x), [LATENT], axis=-1)
        noise = jax.random.normal(key, problem.noise_shape)
        z = loc + jnp.exp(log_scale) * noise
        log_likelihood = _bernoulli(mlp(decoder, z), x)
        # (z - loc) / scale is the noise itself, and the normalising constants cancel.
        log_p_minus_log_q = (0.5 * (noise**2 - z**2) + log_scale).sum(-1)
        return -(log_likelihood + log_p_minus_log_q).mean()

    @partial(jax.jit, donate_argnums=0)
    def run(state: tuple, data: Array, rows: Array) -> tuple[tuple, Array]:
        def step(state: tuple, row: Array) -> tuple[tuple, Array]:
            parameters, moments, key = state
            key, step_key = jax.random.split(key)
            loss, gradient = jax.value_and_grad(negative_elbo)(parameters, data[row], step_key)
            updates, moments = adam.update(gradient, moments, parameters)
            return (optax.apply_updates(parameters, updates), moments, key), loss

        return jax.lax.scan(step, state, rows, unroll=unroll)

    state = ((encoder, decoder), adam.init((encoder, decoder)), jax.random.key(0))

    def contestant(rows: Rows) -> Stretch:
        device_rows = jnp.asarray(rows, jnp.int32)

        def stretch() -> Floats:
            nonlocal state
            state, losses = run(state, data, device_rows)
            return np.asarray(losses)

        return stretch

    return contestant


def _bernoulli(logits: Array, x: Array) -> Array:
    """log p(x | logits), summed over pixels.

    `clip` and not `maximum(logits, 0)`: the gradient of `maximum` splits ties in two, which costs a fifth of
    the whole step at 50 particles. `softplus` (a logaddexp) costs as much as `maximum`.
    """
    log_normaliser = jnp.clip(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return (logits * x - log_normaliser).sum(-1)


def _parameters(layers: tuple[Layer, ...], out_in: bool) -> DenseLayers:
    return [(jnp.array(weight.T if out_in else weight), jnp.array(bias)) for weight, bias in layers]


def _mlp(layers: DenseLayers, x: Array, *, out_in: bool) -> Array:
    *hidden, (weight, bias) = [(w.T if out_in else w, b) for w, b in layers]
    for hidden_weight, hidden_bias in hidden:
        x = jnp.tanh(x @ hidden_weight + hidden_bias)
    return x @ weight + bias
