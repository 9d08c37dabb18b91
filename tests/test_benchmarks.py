"""Losses by hand of `benchmarks/programs` are those of ppdgm; each table is measured at toy size."""

import json
import math
import shutil
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from readings import BACKENDS
from trainers import make_plan, make_trainer

from benchmarks.programs import by_pythae, by_torch, epoch, growth, likelihood, probe, steps
from benchmarks.programs.__main__ import TABLES, page, table_of
from benchmarks.programs.cases import MAKERS, Sizes, make
from benchmarks.programs.common import Options
from benchmarks.programs.ops_jax import JaxOps
from benchmarks.programs.ops_torch import TorchOps
from ppdgm.inference import Optimiser
from ppdgm.registry import backend as load_backend

SMALL = Sizes(side=4, hidden=6, latent=3, components=2, level=2, levels=3, groups=2, classes=3, k=4, draws=4)
BATCH = 5


def noise(shape):
    """Depends only on the number of elements, so that every order of draws gives the same."""
    return np.random.default_rng(0).standard_normal(math.prod(shape)).astype(np.float32).reshape(shape)


def toy(name):
    """A case of a few rows, and parameters with which no term is near 0."""
    sizes = SMALL if name != "convolutional" else Sizes(side=8, latent=3)
    case = make(name, sizes, batch=BATCH, rows_of=BATCH)
    rng = np.random.default_rng(1)
    return case, {n: v + 0.1 * rng.standard_normal(v.shape).astype("float32") for n, v in case.first().items()}


@pytest.mark.parametrize("name", [n for n in MAKERS if n not in ("vae-20", "gumbel")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_by_hand_have_ppdgms_value_and_gradient(name, backend, monkeypatch):
    """At equal parameters and draws; ppdgm's gradient is a step of plain descent at rate 1."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape=(), dtype=None: jnp.asarray(noise(shape)))
    monkeypatch.setattr(
        torch.distributions.normal, "_standard_normal", lambda shape, dtype, device: torch.from_numpy(noise(shape))
    )
    monkeypatch.setattr(torch, "randn", lambda shape, device=None: torch.from_numpy(noise(shape)))
    case, params = toy(name)
    runtime = load_backend(backend).Runtime(case.program, "cpu")
    trainer = make_trainer(
        runtime, case.engine, runtime.put(params), data_size=BATCH, optimiser=Optimiser(name="sgd"),
        metrics=("objective",),
    )  # fmt: skip
    ones = np.ones((1, BATCH), "float32")
    plan = make_plan(case.engine, np.arange(BATCH, dtype="int32")[None], ones, np.ones(1, "float32"), 0, 1)
    loss = -trainer.run(plan, runtime.put({"x": case.data}))["objective"][0]
    slope = {n: params[n] - v for n, v in trainer.values().items()}
    if backend == "numpyro":
        there = {n: jnp.asarray(v) for n, v in params.items()}
        of = lambda p: case.by_hand(JaxOps(jax.random.key(0)), p, jnp.asarray(case.data))
        value, found = jax.jit(jax.value_and_grad(of))(there)
    else:
        there = {n: torch.tensor(v, requires_grad=True) for n, v in params.items()}
        value = case.by_hand(TorchOps(), there, torch.from_numpy(case.data))
        value.backward()
        found = {n: v.grad for n, v in there.items()}
        value = value.detach()
    np.testing.assert_allclose(float(value), loss, rtol=1e-5)
    assert set(found) == set(slope)
    for n, g in found.items():
        assert np.abs(slope[n]).max() > 1e-4, n
        np.testing.assert_allclose(np.asarray(g), slope[n], rtol=1e-3, atol=2e-5, err_msg=n)


def test_the_doubly_reparameterised_gradient_is_another_one():
    """The two bounds of the same draws have one value and two gradients: `doubly` is no plain bound."""
    (plain, params), (dreg, _) = toy("iwae"), toy("iwae-dreg")

    def of(case):
        return jax.value_and_grad(lambda p: case.by_hand(JaxOps(jax.random.key(0)), p, jnp.asarray(case.data)))

    (a, slope), (b, other) = jax.jit(lambda p: (of(plain)(p), of(dreg)(p)))(params)
    assert float(a) == pytest.approx(float(b), rel=1e-6)
    assert np.abs(slope["encoder.layers.0.weight"] - other["encoder.layers.0.weight"]).max() > 1e-3
    np.testing.assert_allclose(slope["decoder.layers.0.weight"], other["decoder.layers.0.weight"], rtol=1e-4, atol=1e-6)


def test_tables_are_measured_and_written(monkeypatch):
    """Each table with a contestant of torch alone, at toy size; processes are not started."""
    for name, small in MAKERS.items():
        monkeypatch.setitem(MAKERS, name, lambda sizes, small=small: small(SMALL))
    monkeypatch.setattr(epoch, "images", lambda rows: make("vae", rows_of=200).data)
    fake = {"imported": 1.0, "ready": 2.0, "first": 3.0, "seconds_per_step": 1e-3, "peak": 2**30, "rise": 2**20}
    monkeypatch.setattr(probe, "run", lambda spec, environment=None: fake)
    monkeypatch.setenv("PPDGM_DATA", "nowhere")
    said = []
    only = ("torch-by-hand", "python", "ppdgm-pyro-chunked", "ppdgm-pyro-eager")
    options = Options(only=only, stretch=0.01, rounds=2, force=True, quick=True, say=said.append)
    record = {"machine": {"cpu": "some"}, "cores": [0], "device": "cpu", "tables": {}}
    names = [n for n, (module, _) in TABLES.items() if module.startswith("programs.")]
    for name in names:
        chosen = options if name == "growth" else replace(options, programs=("vae",))
        for found in table_of(name).measure(chosen):
            record["tables"][name] = {**found, "quick": True}
    written = page(json.loads(json.dumps(record)))
    assert set(record["tables"]) == set(names)
    assert written.count("| torch-by-hand |") >= len(names) - 1
    assert "its figures mean nothing" in written
    assert "nan" not in written


def test_targets_are_judged():
    growth_found = {"rounds": 1, "axes": {"K": {
        "50": {"ppdgm-numpyro": [{"seconds_per_step": 1.0, "first": 2.0, "imported": 1.0, "peak": 100}]},
        "5000": {"ppdgm-numpyro-chunked": [{"seconds_per_step": 1.0, "first": 2.0, "imported": 1.0, "peak": 140}]},
    }}}  # fmt: skip
    assert "MISSED" in growth.page(growth_found)[-1] and "1.40, at most 1.30" in growth.page(growth_found)[-1]
    seconds = {"ppdgm-pyro": [1.0, 2.0], "torch-by-hand": [2.0, 2.0], "pyro-svi": [2.0, 2.0]}
    program = {"seconds": seconds, "loss": {}, "unavailable": {}, "batch": 20, "particles": 1, "others": [0, 0]}
    lines = steps.page({"programs": {"vae-20": program}})
    assert "- Met: ppdgm-pyro ÷ torch-by-hand: 0.75, at most 1.00." in lines
    assert "- MISSED: ppdgm-pyro ÷ pyro-svi: 0.75, at most 0.33." in lines


def test_a_process_is_measured(monkeypatch):
    """Seconds in order, and a peak that is above what the step added."""
    spec = {"task": "train", "contestant": "torch-by-hand", "case": "vae", "changes": {"batch": 3, "rows_of": 50}}
    found = probe.run({**spec, "sizes": {"hidden": 20}, "device": "cpu", "timed": 0.01})
    assert 0 < found["imported"] < found["ready"] < found["first"]
    assert found["peak"] > found["rise"] > 0
    assert found["seconds_per_step"] > 0
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(probe.ProbeFailed, match="exit code 1"):
        probe.run(spec)


def test_pythae_has_the_same_losses_and_likelihood():
    """With the same parameters, where it is installed."""
    pytest.importorskip("pythae", reason="pythae is no dependency")
    case, _ = toy("vae")
    contestant = by_pythae.trainer(case)(np.tile(np.arange(BATCH), (200, 1)))
    theirs = contestant()
    ours = by_torch.by_hand(case)(np.tile(np.arange(BATCH), (200, 1)))()
    assert theirs[:20].mean() == pytest.approx(ours[:20].mean(), abs=0.3)
    near = likelihood.as_near_prior(case)
    judged = [by_pythae.likelihood(near, 50)(case.data, 500), by_torch.likelihood(near, 50)(case.data, 500).mean()]
    assert judged[0] == pytest.approx(judged[1], abs=0.05)
