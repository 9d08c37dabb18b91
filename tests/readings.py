"""The four readings of a program, as functions of NumPy arrays to NumPy arrays.

`READINGS[name](program, params, data, k, latents, seed)` gives (latents [K, B, *event], log p [K, B], log q [K, B]),
with the latents drawn where none are given.
"""

from contextlib import nullcontext
from functools import cache

import jax
import numpy as np
import numpyro
import pyro
import torch
from numpyro import handlers
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from trainers import make_plan, make_trainer

from ppdgm.backends import numpyro as jax_backend
from ppdgm.backends import pyro as torch_backend
from ppdgm.inference.engines.optimisers import Optimiser
from ppdgm.inference.engines.svi import SVI

MODULES = {"pyro": torch_backend, "numpyro": jax_backend}
RUNTIMES = {name: module.Runtime for name, module in MODULES.items()}
BACKENDS = list(MODULES)


@cache
def get_runtime(backend, program):
    """One runtime for equal programs, so that tests share what it compiled."""
    return RUNTIMES[backend](program, "cpu")


def precision(dtype):
    """JAX's float64 for the duration of a block; torch needs no such thing."""
    return jax.enable_x64(True) if dtype == "float64" else nullcontext()


def by_pyro_handlers(program, params, data, k, latents, seed):
    model, guide = program.bind("pyro", params)
    data = {n: torch.tensor(v) for n, v in data.items()}
    with torch.random.fork_rng(), torch.no_grad(), pyro.plate("particles", k, dim=-2):
        torch.manual_seed(seed)
        if latents is None:
            q = poutine.trace(guide).get_trace(**data)
            p = poutine.trace(poutine.replay(model, q)).get_trace(**data)
        else:
            given = {n: torch.tensor(v) for n, v in latents.items()}
            q, p = (poutine.trace(poutine.condition(f, given)).get_trace(**data) for f in (guide, model))

    def sites(trace):
        trace.compute_log_prob()
        plain = lambda s: not site_is_subsample(s) and not s["infer"].get("_deterministic")
        return {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and plain(s)}

    total = lambda trace: sum(s["log_prob"].detach().numpy() for s in sites(trace).values())
    return {n: s["value"].detach().numpy() for n, s in sites(q).items()}, total(p), total(q)


def by_numpyro_handlers(program, params, data, k, latents, seed):
    model, guide = program.bind("numpyro", params)

    @jax.jit
    def run(key, data):
        with numpyro.plate("particles", k, dim=-2):
            if latents is None:
                q = handlers.trace(handlers.seed(guide, key)).get_trace(**data)
                p = handlers.trace(handlers.replay(model, q)).get_trace(**data)
            else:
                q, p = (handlers.trace(handlers.condition(f, latents)).get_trace(**data) for f in (guide, model))
        sites = lambda trace: {n: s for n, s in trace.items() if s["type"] == "sample"}
        total = lambda trace: sum(_log_prob(s) for s in sites(trace).values())
        return {n: s["value"] for n, s in sites(q).items()}, total(p), total(q)

    return jax.tree.map(np.asarray, run(jax.random.key(seed), data))


def _log_prob(site):
    inner = site.get("intermediates")
    return site["fn"].log_prob(site["value"], inner) if inner else site["fn"].log_prob(site["value"])


def direct(backend):
    def read(program, params, data, k, latents, seed):
        trace = run_trace(get_runtime(backend, program), params, data, k, seed, latents)
        return trace.values, sum(trace.log_p.values()), sum(trace.log_q.values())

    return read


def run_trace(runtime, params, data, k, seed=0, latents=None, kl=False):
    """`Runtime.trace` on NumPy arrays, over all data."""
    index = np.arange(len(next(iter(data.values()))))
    return runtime.trace(runtime.put(params), runtime.put(data), index, k, seed, latents, kl)


READINGS = {
    "Pyro's handlers": by_pyro_handlers,
    "NumPyro's handlers": by_numpyro_handlers,
    "direct over torch": direct("pyro"),
    "direct over JAX": direct("numpyro"),
}


def train(backend, program, data, params=None, steps=3, rate=0.1, engine=None, seed=0, optimiser="sgd", compile=False):
    """Parameters (and buffers) after some steps over all of the data, and the history; no `fit` around it."""
    engine, runtime = engine or SVI(), RUNTIMES[backend](program, "cpu")
    size = len(next(iter(data.values())))
    first = runtime.initialise(0, data, "float32") | (params or {})
    run_trace(runtime, first, data, 1, kl=True)  # as `fit` does: torch can't compile its first look at a KL formula
    trainer = make_trainer(runtime, engine, runtime.put(first), seed, size, Optimiser(name=optimiser), compile=compile)
    index = np.tile(np.arange(size, dtype=np.int32), (steps, 1))
    weight, rates = np.ones((steps, size), np.float32), np.full(steps, rate, np.float32)
    history = trainer.run(make_plan(engine, index, weight, rates, 0, steps), runtime.put(data))
    return trainer.values(), history
