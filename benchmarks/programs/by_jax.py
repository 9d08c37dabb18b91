"""Loops written by hand in JAX, and NumPyro's own inference, on a case."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.seconds_per_step.problem import LEARNING_RATE, Contestant, Floats, Rows, Stretch, Unavailable

from .cases import Case
from .losses import log_weights
from .ops_jax import JaxOps


def by_hand(case: Case) -> Contestant:
    """One jitted scan over the rows, with optax; the state's buffers are donated. Convolutions are stepped singly.

    XLA runs convolutions inside a loop ten times slower on a CPU, which somebody who measures would find out too.
    """
    params = {n: jnp.array(v) for n, v in case.first().items()}
    adam, data = optax.adam(LEARNING_RATE), jnp.asarray(case.data)

    def step(state: Any, row: Any) -> Any:
        params, moments, key = state
        key, own = jax.random.split(key)
        loss, gradient = jax.value_and_grad(lambda p: case.by_hand(JaxOps(own), p, data[row]))(params)
        updates, moments = adam.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments, key), loss

    scan = jax.jit(lambda state, rows: jax.lax.scan(step, state, rows), donate_argnums=0)
    single = jax.jit(step, donate_argnums=0)
    state = (params, adam.init(params), jax.random.key(0))

    def singly(state: Any, rows: Iterable[Any]) -> Any:
        losses = []
        for row in rows:
            state, loss = single(state, row)
            losses.append(loss)
        return state, jnp.stack(losses)

    run = singly if case.stepped else scan

    def contestant(rows: Rows) -> Stretch:
        there = jnp.asarray(rows, jnp.int32)
        there = list(there) if run is singly else there

        def stretch() -> Floats:
            nonlocal state
            state, losses = run(state, there)
            return np.asarray(losses)

        return stretch

    return contestant


def numpyro_svi(case: Case, run: bool = False) -> Contestant:
    """NumPyro's own SVI and bound, on the plain callables of the program: `svi.update` in a scan, or `svi.run`.

    `svi.run` has no place for a minibatch per step: its loss picks one of the same rows at random. It is called under
    `jit`, because each plain call compiles its scan again.
    """
    from numpyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

    kinds: dict[str, Callable[[], Any]] = {
        "analytic": TraceMeanField_ELBO,
        "monte_carlo": partial(Trace_ELBO, num_particles=case.particles),
        "importance": partial(RenyiELBO, alpha=0, num_particles=case.particles),
    }
    if case.elbo not in kinds:
        raise Unavailable(case.elbo)
    model, guide = case.program.bind("numpyro", case.first())
    elbo, data = kinds[case.elbo](), jnp.asarray(case.data)
    svi = SVI(model, guide, optax.adam(LEARNING_RATE), OfRandomRow(elbo) if run else elbo)
    state = svi.init(jax.random.key(0), data[: case.batch])

    def updates(state: Any, rows: Any) -> Any:
        return jax.lax.scan(lambda state, row: svi.update(state, data[row]), state, rows)

    def whole_run(state: Any, rows: Any) -> Any:
        found = svi.run(jax.random.key(0), len(rows), data, rows, progress_bar=False, init_state=state)
        return found.state, found.losses

    jitted = jax.jit(whole_run if run else updates, donate_argnums=0)

    def contestant(rows: Rows) -> Stretch:
        there = jnp.asarray(rows, jnp.int32)

        def stretch() -> Floats:
            nonlocal state
            state, losses = jitted(state, there)
            return np.asarray(losses) / np.float32(case.batch)

        return stretch

    return contestant


class OfRandomRow:
    """A bound of NumPyro's, on one of the given minibatches."""

    can_infer_discrete = False

    def __init__(self, elbo: Any):
        self.elbo = elbo

    def loss(self, key: Any, params: Any, model: Any, guide: Any, data: Any, rows: Any) -> Any:
        """The loss of a minibatch."""
        of_row, key = jax.random.split(key)
        row = rows[jax.random.randint(of_row, (), 0, len(rows))]
        return self.elbo.loss(key, params, model, guide, data[row])


def likelihood(case: Case, chunk: int) -> Callable[[Floats, int], Floats]:
    """log p(x) of each row by k importance samples, `chunk` of them at a time."""
    params = {n: jnp.array(v) for n, v in case.first().items()}

    @partial(jax.jit, static_argnums=1)
    def of_rows(x: Any, chunks: int) -> Any:
        def more(total: Any, key: Any) -> Any:
            found = jax.nn.logsumexp(log_weights(JaxOps(key), params, x, chunk), 0)
            return jnp.logaddexp(total, found), None

        keys = jax.random.split(jax.random.key(0), chunks)
        return jax.lax.scan(more, jnp.full(len(x), -jnp.inf), keys)[0] - jnp.log(chunks * chunk)

    return lambda x, k: np.asarray(of_rows(jnp.asarray(x), k // chunk))


def images(case: Case) -> Callable[[int, int], Floats]:
    """(n, seed) -> n images."""
    params = {n: jnp.array(v) for n, v in case.first().items()}
    draw = case.images
    if draw is None:
        raise Unavailable("its draws are not written by hand")
    drawn = jax.jit(lambda key, n: draw(JaxOps(key), params, n), static_argnums=1)
    return lambda n, seed: np.asarray(drawn(jax.random.key(seed), n))
