"""Threads: several of them give the numbers of one, bit for bit; trainings at once are right, or refused."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import ppdgm
from ppdgm.errors import TrainingError
from ppdgm.models import MLP, VAE, CategoricalPrior, GumbelSoftmax

X = (np.random.default_rng(0).random((12, 3)) < 0.5).astype("float32")
NETS = {"encoder": MLP(hidden=(3,)), "decoder": MLP(hidden=(3,))}
PROGRAM = VAE(event_shape=(3,), latent=2, **NETS)
GRID = VAE(event_shape=(3,), latent=(2,), prior=CategoricalPrior(), posterior=GumbelSoftmax(classes=3), **NETS)
THREADS = 4


def together(*functions, rounds=1):
    """What each function gives, in a thread of its own; all begin at once, and round after round."""
    barrier = Barrier(len(functions), timeout=120)

    def work(function):
        found = []
        for _ in range(rounds):
            barrier.wait()
            found.append(function())
        return found

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(work, f) for f in functions]]


def questions(fit, i):
    """Of other data with another seed in each thread; of the same shapes, because JAX compiles for each."""
    return {
        "elbo": fit.elbo(np.roll(X, i, axis=0), k=2, seed=i).values,
        "encode": fit.encode(X, k=2, seed=i),
        "sample": fit.sample(3, seed=i),
    }


def settings():
    """Those that belong to the process."""
    import numpyro.distributions as dist
    import torch

    return (
        torch.get_rng_state().numpy().tobytes(),
        torch.distributions.Distribution._validate_args,
        torch.get_default_dtype(),
        dist.Distribution._validate_args,
        list(warnings.filters),
    )


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("backend, program", [("numpyro", PROGRAM), ("pyro", PROGRAM), ("pyro", GRID)])
def test_several_threads_give_the_numbers_of_one(backend, program):
    fit = ppdgm.Fit(program, program.initialise(0), backend)
    alone = [questions(fit, i) for i in range(THREADS)]
    fresh = ppdgm.Fit(program, program.initialise(0), backend)  # which compiles in several threads at once
    for used, rounds in ((fresh, 1), (fit, 5)):
        found = together(*(lambda i=i, used=used: questions(used, i) for i in range(THREADS)), rounds=rounds)
        assert all(same(f, alone[i]) for i, each in enumerate(found) for f in each)


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_the_process_keeps_its_settings(backend):
    """What an evaluation sets for a while, such as checks of arguments, is as before when all threads are done."""
    before = settings()
    kinds = ["float32", "float64", "float32", "float64"] if backend == "pyro" else ["float32"] * 4
    fits = [ppdgm.Fit(PROGRAM, PROGRAM.initialise(0, dtype=kind), backend) for kind in kinds]
    found = together(*(lambda f=f: f.elbo(X, k=1).values for f in fits), rounds=3)
    assert settings() == before
    assert np.array_equal(found[0][0], found[2][2]) and np.array_equal(found[1][0], found[3][2])
    assert np.array_equal(found[0][0], fits[0].elbo(X, k=1).values)


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_two_trainings_at_once(backend):
    def train(seed):
        return ppdgm.fit(PROGRAM, X, backend=backend, steps=40, batch_size=4, seed=seed, progress=False, compile=False)

    alone = [train(seed).params for seed in (0, 1)]
    busy = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), backend)
    before, process = busy.elbo(X, k=2).values, settings()
    first, second, beside = together(lambda: train(0), lambda: train(1), lambda: busy.elbo(X, k=2).values, rounds=1)
    assert same(first[0].params, alone[0]) and same(second[0].params, alone[1])
    assert np.array_equal(beside[0], before) and settings() == process


def pyro_pair():
    import pyro
    import pyro.distributions as dist
    import torch

    net = torch.nn.Linear(3, 2)

    def model(x):
        weights = pyro.param("weights", torch.zeros(2, 3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z @ weights).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    return ppdgm.Program.from_pyro(model, guide)


def numpyro_pair():
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def model(x):
        weights = numpyro.param("weights", jnp.zeros((2, 3)))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=z @ weights).to_event(1), obs=x)

    def guide(x):
        shift = numpyro.param("shift", jnp.zeros((3, 2)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(x @ shift, 1.0).to_event(1))

    return ppdgm.Program.from_numpyro(model, guide)


@pytest.mark.parametrize("make", [pyro_pair, numpyro_pair])
def test_plain_pairs(make):
    """Their libraries keep one stack of handlers, and Pyro one store of parameters, for the whole process."""
    fit = ppdgm.fit(make(), X, steps=3, progress=False)
    elbo = lambda i: fit.elbo(np.roll(X, i, axis=0), k=2, seed=i).values
    alone = [elbo(i) for i in range(THREADS)]
    found = together(*(lambda i=i: elbo(i) for i in range(THREADS)), rounds=3)
    assert all(np.array_equal(v, alone[i]) for i, each in enumerate(found) for v in each)


def test_a_pyro_pair_is_trained_by_one_thread():
    """Training moves the user's own modules."""
    pair = pyro_pair()

    def again(progress):
        with pytest.raises(TrainingError, match=r"is being trained already.*second pair"):
            ppdgm.fit(pair, X, steps=1, progress=False)

    ppdgm.fit(pair, X, steps=2, progress=False, callbacks=[again])
    ppdgm.fit(pair, X, steps=1, progress=False)  # afterwards it may
