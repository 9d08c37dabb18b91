"""What the tests of plain Pyro pairs share: runs of a pair, and its terms by hand."""

import numpy as np
import pyro
import pyro.distributions as dist
import pyro_pairs as pairs
import pytest
import torch
from trainers import make_plan, make_trainer

from ppdgm.backends.pyro import Runtime
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.inputs.batches import Batches
from ppdgm.program import Program

N, B, K, X, Z = 12, 4, 3, pairs.X, pairs.Z

STYLES = {"functions": pairs.Functions, "PyroModules": pairs.Modules, "methods": pairs.VAE}


@pytest.fixture(autouse=True)
def quiet():
    """One thread, a fixed seed, and the global store as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    assert not len(pyro.get_param_store())


def draw(n=N, width=X, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def start(pair, x, seed=0):
    """(runtime, parameters on the device, data on the device) of a pair over x, or over named fields."""
    data = x if isinstance(x, dict) else {"x": x}
    runtime = Runtime(Program.from_pyro(*pair), "cpu")
    return runtime, runtime.put(runtime.initialise(seed, data, "float32")), runtime.put(data)


def log_weights(runtime, params, data, index, k, seed=0):
    return runtime.evaluate(bounds.log_weights, params, data, np.asarray(index), k, (seed,), False)


def train(trainer, steps, b, n=N, first=0, rate=1e-2, seed=0):
    index, weight = Batches(n, b, seed).rows(first, steps, steps)
    plan = make_plan(trainer.engine, index, weight, np.full(steps, rate, np.float32), first, steps)
    return trainer.run(plan, trainer.data)


def trainer_of(started, engine=None, seed=0, n=N):
    runtime, params, data = started
    trainer = make_trainer(runtime, engine or SVI(), params, seed, n)
    trainer.data = data  # for `train`
    return trainer


def by_hand(nets, x, z, scale=0.8):
    """log p(z) + log p(x | z) and log q(z | x), [K, B], of the pairs that share these nets."""
    encoder, decoder = nets
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + dist.Normal(decoder(z), scale).log_prob(x).sum(-1)
    loc, sd = encoder(x)
    return log_p, dist.Normal(loc, sd).log_prob(z).sum(-1)


def snapshot(module):
    return {n: t.clone() for n, t in module.state_dict().items()} | {n: m.training for n, m in module.named_modules()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[n]) if torch.is_tensor(v) else v == b[n] for n, v in a.items())
