"""Training over several devices: the step of one device, up to rounding."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ppdgm.errors import PpdgmError, TrainingError
from ppdgm.inference.runs.settings import Training
from ppdgm.inference.training.devices import check_devices
from ppdgm.language.shares import Share
from ppdgm.models import PPCA
from ppdgm.registry import backend as load_backend

# The minibatch's rows divided by 8 are 3: an array of the compiled step with 3 rows shows that they are divided.
ON_EIGHT = """
import numpy as np
import ppdgm
from ppdgm.backends.numpyro.loop import Trainer
from ppdgm.models import PPCA

data = np.random.default_rng(0).normal(size=(40, 7))
program, texts = PPCA(event_shape=(7,), latent=2), {}
run = Trainer.run

def watched(self, plan, data):
    carry = np.int32(0), self.params, self.state, self.average, np.zeros((len(plan.rate), 3), np.float32)
    lowered = self._stretch.lower(carry, data, self._put(plan), np.int32(1))
    texts[self.runtime.share.devices] = lowered.compile().as_text()
    return run(self, plan, data)

Trainer.run = watched
how = {"steps": 3, "batch_size": 24, "seed": 1, "dtype": "float64", "progress": False}
one, eight = (ppdgm.fit(program, data, devices=n, **how) for n in (1, 8))
assert max(np.abs(one.params[n] - v).max() for n, v in eight.params.items()) < 1e-10
assert np.abs(one.history["elbo"] - eight.history["elbo"]).max() < 1e-5  # kept in float32
assert np.abs(one.elbo(data[:16], seed=2).values - eight.elbo(data[:16], seed=2).values).max() < 1e-10  # row by row
assert eight.info["device"] == "8 × cpu" and one.info["device"] == "cpu"
assert "all-reduce" in texts[8] and "all-reduce" not in texts[1]
assert "f64[3,7]" in texts[8] and "f64[24,7]" not in texts[8] and "f64[24,7]" in texts[1]
"""


def child(code, **environment):
    """Run code in a fresh process, which takes its number of devices from its environment."""
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


def test_eight_jax_devices_take_the_step_of_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    child(ON_EIGHT, XLA_FLAGS=flags, JAX_ENABLE_X64="1")


@pytest.mark.parametrize("batch_size, accumulate", [(10, 1), (12, 2), (3, 1)])
def test_devices_have_the_same_number_of_rows(batch_size, accumulate):
    runtime = SimpleNamespace(share=Share(devices=4), tracer=SimpleNamespace(subsamples=False))
    training = Training(steps=1, devices=4, accumulate=accumulate)
    check_devices(training, runtime, 4 * accumulate * 5)
    with pytest.raises(TrainingError, match=f"batch_size: got {batch_size}, expected a multiple of {4 * accumulate}"):
        check_devices(training, runtime, batch_size)


def test_a_program_that_takes_its_own_minibatch_is_not_divided():
    runtime = SimpleNamespace(share=Share(devices=2), tracer=SimpleNamespace(subsamples=True))
    with pytest.raises(TrainingError, match="takes its minibatch out of all data by itself"):
        check_devices(Training(steps=1, devices=2), runtime, 4)


def test_devices_that_are_not_there():
    with pytest.raises(PpdgmError, match=r"devices: got 4, but JAX found 1 of kind 'cpu'.*devices=1"):
        load_backend("numpyro").Runtime(PPCA(event_shape=(2,), latent=1), "cpu", 4)
    with pytest.raises(PpdgmError, match="which is one device, with devices=2"):
        load_backend("numpyro").Runtime(PPCA(event_shape=(2,), latent=1), "cpu:0", 2)
    assert load_backend("numpyro").Runtime(PPCA(event_shape=(2,), latent=1), "cpu", "all").share.devices == 1
