"""The contestants of a case: each makes, from rows of minibatches, a function that trains on them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.seconds_per_step.problem import LEARNING_RATE, Contestant, Floats, Rows, Stretch, Unavailable
from benchmarks.seconds_per_step.stretches import of_svi, of_torch, of_trainer
from ppdgm.inference import Optimiser
from ppdgm.inference.engines.engine import states_of
from ppdgm.language.trainer import TrainerSettings
from ppdgm.registry import backend as load_backend

from .cases import DATA, Case
from .ops import JaxOps, TorchOps


def ppdgm_trainer(case: Case, name: str, compile: bool = True) -> Contestant:
    """The stretch of steps inside `ppdgm.fit`."""
    backend, engine = load_backend(name), case.engine
    runtime = backend.Runtime(case.program, case.device)
    adam, metrics = Optimiser(name="adam"), ("objective",)
    settings = TrainerSettings(
        seed=0, data_size=DATA, optimiser=adam, metrics=metrics, compile=compile, insist=compile
    )  # never in silence the eager step in place of the compiled one
    params, data = runtime.put(case.first()), runtime.put({"x": case.data})
    runtime.validate(params, data, 1, 3)  # as `fit` does; torch.compile can't trace how torch first finds a KL
    trainer = backend.Trainer(runtime, engine, params, settings, states_of(engine, 1, ()))
    return of_trainer(trainer, engine, data)


def jax_by_hand(case: Case) -> Contestant:
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

    run = singly if case.name == "convolutional" else scan

    def contestant(rows: Rows) -> Stretch:
        there = jnp.asarray(rows, jnp.int32)
        there = list(there) if run is singly else there

        def stretch() -> Floats:
            nonlocal state
            state, losses = run(state, there)
            return np.asarray(losses)

        return stretch

    return contestant


def torch_by_hand(case: Case, compile: bool = False) -> Contestant:
    """A Python loop with one fused Adam; with `compile`, the loss is compiled."""
    data = torch.from_numpy(case.data).to(case.device)
    params = {n: torch.tensor(v, device=case.device, requires_grad=True) for n, v in case.first().items()}
    adam = torch.optim.Adam(params.values(), lr=LEARNING_RATE, fused=True)

    def loss_of(params: dict[str, Any], x: Any) -> Any:
        return case.by_hand(TorchOps(case.device), params, x)

    before = torch.distributions.Distribution._validate_args
    loss_of = torch.compile(loss_of, dynamic=False) if compile else loss_of
    torch.distributions.Distribution.set_default_validate_args(before)

    return of_torch(partial(loss_of, params), adam, data)


def pyro_svi(case: Case) -> Contestant:
    """Pyro's own SVI and bound, on the plain callables of the same program."""
    import pyro
    from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

    _has_bound(case)
    model, guide = (f.to(case.device) for f in case.program.bind("pyro", case.first()))
    bound: Any = {"analytic": TraceMeanField_ELBO, "monte_carlo": Trace_ELBO}.get(case.elbo)
    importance = partial(RenyiELBO, alpha=0, vectorize_particles=True, max_plate_nesting=1)
    elbo = bound() if bound else importance(num_particles=case.particles)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE}), elbo)
    return of_svi(svi, torch.from_numpy(case.data).to(case.device), case.batch)


def numpyro_svi(case: Case) -> Contestant:
    """NumPyro's own `svi.update` in a scan, which is what `svi.run` does, on the plain callables of the program."""
    from numpyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

    _has_bound(case)
    model, guide = case.program.bind("numpyro", case.first())
    elbo: Any = {"analytic": TraceMeanField_ELBO(), "monte_carlo": Trace_ELBO()}.get(case.elbo)
    svi = SVI(model, guide, optax.adam(LEARNING_RATE), elbo or RenyiELBO(alpha=0, num_particles=case.particles))
    data = jnp.asarray(case.data)
    state = svi.init(jax.random.key(0), data[: case.batch])
    update = lambda state, row: svi.update(state, data[row])
    scan = jax.jit(lambda state, rows: jax.lax.scan(update, state, rows), donate_argnums=0)

    def contestant(rows: Rows) -> Stretch:
        there = jnp.asarray(rows, jnp.int32)

        def stretch() -> Floats:
            nonlocal state
            state, losses = scan(state, there)
            return np.asarray(losses) / np.float32(case.batch)

        return stretch

    return contestant


def _has_bound(case: Case) -> None:
    if case.elbo == "none":
        raise Unavailable("its own bounds know no relaxation with a discrete KL")


CONTESTANTS: dict[str, Callable[[Case], Contestant]] = {
    "ppdgm-numpyro": partial(ppdgm_trainer, name="numpyro"),
    "ppdgm-pyro": partial(ppdgm_trainer, name="pyro"),
    "jax-by-hand": jax_by_hand,
    "torch-by-hand": torch_by_hand,
    "torch-compiled": partial(torch_by_hand, compile=True),
    "numpyro-svi": numpyro_svi,
    "pyro-svi": pyro_svi,
}
