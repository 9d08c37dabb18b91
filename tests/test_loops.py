"""Loops: one compile, no host sync within a stretch, ragged batches without bias, no side effects."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainers import make_plan, make_trainer

from ppdgm.inference import SVI, Linear, Optimiser
from ppdgm.inference.inputs.batches import Batches, Plan
from ppdgm.models import MLP, VAE
from ppdgm.registry import backend as load_backend

BACKENDS = ("numpyro", "pyro")
X = (np.random.default_rng(0).random((41, 6)) < 0.5).astype("float32")


def make(backend, compile=False, engine=None, **options):
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
    module = load_backend(backend)
    runtime = module.Runtime(program)
    params = runtime.put(program.initialise(0))
    engine = engine or SVI(k=3, beta=Linear(steps=7))
    optimiser = options.pop("optimiser", Optimiser(clip_norm=1.0))
    return make_trainer(runtime, engine, params, 0, len(X), optimiser, compile=compile, **options)


def run(trainer, *where):
    return trainer.run(plan(trainer, *where), trainer.runtime.put({"x": X}))


def plan(trainer, first, count, capacity=9, batch=8):
    """41 = 5·8 + 1: a stretch of six steps or more has a ragged minibatch of one datum."""
    index, weight = Batches(len(X), batch, 0).rows(first, count, capacity)
    return make_plan(trainer.engine, index, weight, np.full(capacity, 1e-3, np.float32), first, count)


@pytest.mark.parametrize("binarise", [False, True])
def test_jax_compiles_one_stretch_and_copies_nothing(binarise):
    trainer = make("numpyro", binarise=binarise)
    run(trainer, 0, 9)
    with jax.transfer_guard("disallow"):  # explicit puts and gets at the ends of a stretch are allowed
        run(trainer, 9, 9)
        run(trainer, 18, 4)
    assert trainer.compilations() == 1


class _Reads(TorchDispatchMode):
    """Counts what makes the host wait for a value."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return func(*args, **(kwargs or {}))


def test_torch_reads_nothing_within_a_stretch():
    trainer = make("pyro")
    with _Reads() as reads:
        torch.ones(()).item()
    assert reads.count == 1  # the counter counts
    with _Reads() as reads:
        run(trainer, 0, 9)
    assert reads.count == 0


def test_torch_compiles_once_ragged_batches_included():
    from torch._dynamo.utils import counters

    before = torch.distributions.Distribution._validate_args
    trainer, eager = make("pyro", compile=True), make("pyro")
    counters.clear()
    first = run(trainer, 0, 9)
    run(trainer, 9, 9)
    run(trainer, 18, 4)
    assert counters["stats"]["unique_graphs"] == 1
    assert torch.distributions.Distribution._validate_args is before
    again = run(eager, 0, 9)
    assert np.allclose(first["elbo"], again["elbo"], atol=5.0)  # other draws, the same quantity


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_has_no_influence(backend):
    """The padded rows of a ragged minibatch may hold anything: the step is that of its one real datum."""
    trainer, other = make(backend), make(backend)
    row = plan(trainer, 5, 1)
    assert row.weight[0].tolist() == [1] + [0] * 7
    shuffled = Plan(row.index.copy(), row.weight, row.rate, row.hyperparameters, row.first, row.count)
    shuffled.index[0, 1:] = row.index[0, 1:][::-1]
    data = trainer.runtime.put({"x": X})
    a, b = trainer.run(row, data), other.run(shuffled, data)
    assert a["elbo"][0] == pytest.approx(b["elbo"][0], rel=1e-6)
    for n, v in trainer.values().items():
        assert np.allclose(v, other.values()[n], atol=1e-7), n


def test_every_datum_once_an_epoch():
    batches = Batches(41, 8, seed=3)
    index, weight = batches.rows(0, 12, 12)
    for epoch in (slice(0, 6), slice(6, 12)):
        assert sorted(index[epoch][weight[epoch] == 1]) == list(range(41))
    assert index[0].tolist() != index[6].tolist()
    again, _ = Batches(41, 8, seed=3).rows(6, 6, 6)  # any step can be planned by itself
    assert np.array_equal(again, index[6:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_callers_parameters_are_left_alone(backend):
    module = load_backend(backend)
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
    runtime = module.Runtime(program)
    first = program.initialise(0)
    params = runtime.put(first)
    trainer = make_trainer(runtime, SVI(), params, 0, len(X))
    run(trainer, 0, 3)
    kept = runtime.fetch(params)
    assert all(np.array_equal(kept[n], first[n]) for n in first)
    assert not np.array_equal(trainer.values()["encoder.layers.0.bias"], first["encoder.layers.0.bias"])


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    trainer = make("pyro")
    run(trainer, 0, 3)
    assert torch.equal(torch.rand(3), expected)


def test_import_is_light_and_changes_nobody():
    code = """
import sys, ppdgm
assert not {"torch", "jax", "pyro", "numpyro"} & set(sys.modules), "import ppdgm is not lazy"
import ppdgm.models, ppdgm.inference, ppdgm.data
assert not {"torch", "jax", "pyro", "numpyro"} & set(sys.modules), "models are not backend-free"
import torch, jax
before = torch.distributions.Distribution._validate_args, torch.get_default_dtype(), jax.config.jax_enable_x64
import pyro, numpyro
import ppdgm.backends.pyro, ppdgm.backends.numpyro
assert before == (torch.distributions.Distribution._validate_args, torch.get_default_dtype(), jax.config.jax_enable_x64)
assert len(pyro.get_param_store()) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)
