"""Losses by hand of `benchmarks/densities` are those of ppdgm; its tables are measured at toy size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from readings import BACKENDS
from trainers import make_plan, make_trainer

from benchmarks.densities.cases import MAKERS, Sizes
from benchmarks.programs.__main__ import page, table_of
from benchmarks.programs.common import Options
from benchmarks.programs.ops_jax import JaxOps
from benchmarks.programs.ops_torch import TorchOps
from ppdgm.inference import Optimiser
from ppdgm.registry import backend as load_backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MAKERS)
def test_losses_by_hand_have_ppdgms_value_and_gradient(name, backend):
    case = MAKERS[name](Sizes(side=4 if name == "glow" else 6, channels=4, layers=2, depth=2, batch=5))
    x = case.data[:5]
    rng = np.random.default_rng(1)
    first = {n: v + 0.1 * rng.standard_normal(v.shape).astype("float32") for n, v in case.first().items()}
    still = {n for n in first if n.endswith((".sign", ".permutation"))}
    first |= {n: v for n, v in case.first().items() if n in still}
    runtime = load_backend(backend).Runtime(case.program, "cpu")
    trainer = make_trainer(
        runtime, case.engine, runtime.put(first), data_size=5, optimiser=Optimiser(name="sgd"), metrics=("objective",)
    )
    plan = make_plan(
        case.engine, np.arange(5, dtype="int32")[None], np.ones((1, 5), "float32"), np.ones(1, "float32"), 0, 1
    )
    value = -trainer.run(plan, runtime.put({"x": x}))["objective"][0]
    slope = {n: first[n] - v for n, v in trainer.values().items()}
    if backend == "numpyro":
        of = lambda p: case.by_hand(JaxOps(jax.random.key(0)), p, jnp.asarray(x))
        by_hand, found = jax.jit(jax.value_and_grad(of))({n: jnp.asarray(v) for n, v in first.items()})
    else:
        there = {n: torch.tensor(v, requires_grad=True) for n, v in first.items()}
        loss = case.by_hand(TorchOps(), there, torch.from_numpy(x))
        loss.backward()
        by_hand, found = loss.detach(), {n: v.grad for n, v in there.items() if v.grad is not None}
    np.testing.assert_allclose(float(by_hand), value, rtol=1e-5)
    for n in first.keys() - still:
        assert np.abs(slope[n]).max() > 1e-5, n
        np.testing.assert_allclose(np.asarray(found[n]), slope[n], rtol=1e-3, atol=5e-5, err_msg=n)


def test_tables_are_measured_and_written():
    options = Options(
        only=("torch-by-hand", "fast-pyro", "full-pyro"), stretch=0.01, rounds=1, force=True, quick=True,
        say=lambda line: None,
    )  # fmt: skip
    record = {"machine": {"cpu": "some"}, "cores": [0], "device": "cpu", "tables": {}}
    for name in ("density-steps", "density-draws"):
        for found in table_of(name).measure(options):
            record["tables"][name] = {**found, "quick": True}
    written = page(json.loads(json.dumps(record)))
    assert set(record["tables"]) == {"density-steps", "density-draws"}
    assert "| torch-by-hand |" in written and "fast-pyro is " in written and "its figures mean nothing" in written
