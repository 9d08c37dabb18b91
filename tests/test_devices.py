"""Training over several devices: the step of one device, up to rounding."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from programs_over_devices import DATA, HOW, PROGRAM, Running
from trainers import make_trainer

from ppdgm import fit, load, resume
from ppdgm.backends.numpyro.devices import find_devices
from ppdgm.backends.pyro.loop import Trainer as TorchTrainer
from ppdgm.backends.pyro.ranks import Ranks, find_ranks
from ppdgm.backends.pyro.row_noise import RowNoise
from ppdgm.backends.pyro.runtime import find_device
from ppdgm.errors import PpdgmError, TrainingError, UnsupportedByBackend
from ppdgm.inference import IWAE, SVI, WakeSleep
from ppdgm.inference.engines.engine import hyperparameters_of
from ppdgm.inference.runs.settings import Training
from ppdgm.inference.training.devices import check_devices
from ppdgm.language.shares import Share
from ppdgm.models import PPCA, FlowPosterior, Planar
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
there = one.over("all")
assert np.abs(one.elbo(data[:16], seed=2).values - there.elbo(data[:16], seed=2).values).max() < 1e-10
assert there._runtime.place == "8 × cpu"
assert eight.info["device"] == "8 × cpu" and one.info["device"] == "cpu"
assert "all-reduce" in texts[8] and "all-reduce" not in texts[1]
assert "f64[3,7]" in texts[8] and "f64[24,7]" not in texts[8] and "f64[24,7]" in texts[1]
"""


def start(*command, **environment):
    """A process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def free_port():
    """A port of this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


class Simulated(Ranks):
    """A process without the others: sums are its own part of them."""

    def total(self, arrays):
        return {n: a.detach().clone() for n, a in arrays.items()}

    def largest(self, numbers):
        return numbers


FLOW = PROGRAM.replace(posterior=FlowPosterior(flow=Planar(depth=2)))  # whose draws are made of others


@pytest.mark.parametrize(
    "engine, program",
    [(SVI(k=3), PROGRAM), (IWAE(k=2, estimator="dreg"), PROGRAM), (WakeSleep(), PROGRAM), (SVI(k=2), FLOW)],
    ids=["svi", "dreg", "wake-sleep", "flow"],
)
def test_the_gradients_of_two_processes_add_up_to_that_of_one(engine, program, monkeypatch):
    monkeypatch.setattr(TorchTrainer, "_agree", lambda self: None)
    runtime = load_backend("pyro").Runtime(program, "cpu")
    params, data = runtime.put(program.initialise(dtype="float64")), runtime.put({"x": DATA})
    index, weight = torch.arange(12), torch.tensor([1.0] * 10 + [0.0] * 2)
    found = []
    for share in (Ranks(), Simulated(2, 0, 2), Simulated(2, 1, 2)):
        runtime.share = share
        trainer = make_trainer(runtime, engine, params, seed=4)
        for j, step in enumerate(trainer._steps):
            now = {n: torch.tensor(v[0]) for n, v in hyperparameters_of(engine, np.zeros(1))[j].items()}
            with trainer._drawing():
                found.append(step.gradients(data, index, weight, (now, {})))
    phases = len(found) // 3
    for whole, first, second in zip(found[:phases], found[phases : 2 * phases], found[2 * phases :], strict=True):
        assert whole[0].keys() == first[0].keys() == second[0].keys() and whole[0]
        for n, gradient in whole[0].items():
            torch.testing.assert_close(first[0][n] + second[0][n], gradient, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(first[1] + second[1], whole[1], rtol=1e-5, atol=1e-5, equal_nan=True)  # in float32


def test_processes_that_were_not_started():
    message = "torchrun is not used. Start them: torchrun --nproc-per-node 2 FILE.py"
    with pytest.raises(PpdgmError, match=message):
        find_ranks(2, find_device, "cpu", {})
    with pytest.raises(PpdgmError, match=r"devices: got 2, .* torchrun started 4. Give devices=4, or devices='all'"):
        find_ranks(2, find_device, "cpu", {"WORLD_SIZE": "4"})
    assert find_ranks("all", find_device, "cpu", {})[0].devices == 1
    assert find_ranks(None, find_device, "cpu", {"WORLD_SIZE": "4"})[0].devices == 1


@pytest.mark.parametrize("shape, lead, axis", [
    ((3, 5, 2), None, 1), ((5, 2), None, 0), ((10, 2), None, 0), ((3, 2), None, None), ((), None, None),
    ((3, 5, 2), 3, 1), ((15, 2), 3, 0), ((2, 3, 5), 6, 2),
])  # fmt: skip
def test_the_axis_of_rows(shape, lead, axis):
    assert RowNoise(Ranks(2, 0, 2), 5).axis(shape, lead) == axis


@pytest.mark.parametrize("shape, lead", [((5, 5), None), ((3, 10), None), ((3, 3, 5), 3)])
def test_an_axis_of_rows_that_is_not_known(shape, lead):
    with pytest.raises(UnsupportedByBackend, match="devices: random numbers of shape"):
        RowNoise(Ranks(2, 0, 2), 5).axis(shape, lead)


def test_two_torch_processes_take_the_step_of_one(tmp_path):
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    script = str(Path(__file__).parent / "ranks.py")
    processes = [start(script, str(tmp_path), **there, RANK=str(r), LOCAL_RANK=str(r)) for r in range(2)]
    told = [p.communicate(timeout=300) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], told
    assert told[0][0] == "told\n" and not told[1][0]
    # draws for all rows, and sums over processes: the numbers of one process
    assert load(tmp_path / "two").params.keys() == PROGRAM.initialise().keys()
    one = fit(PROGRAM, DATA, **HOW)
    assert largest_difference(one.params, load(tmp_path / "two").params) < 1e-12
    np.testing.assert_allclose(load(tmp_path / "two").history["elbo"], one.history["elbo"], rtol=1e-5)
    others = {"running": fit(Running(), DATA, **HOW), "sleep": fit(PROGRAM, DATA, **{**HOW, "engine": WakeSleep()})}
    for name, each in others.items():
        for rank in range(2):
            assert largest_difference(each.params, np.load(tmp_path / f"{name}-{rank}.npz")) < 1e-12, name
    # a run goes on with another number of devices, and from the last checkpoint before a process died
    more = fit(PROGRAM, DATA, **{**HOW, "steps": 9})
    assert largest_difference(more.params, resume(tmp_path / "two", DATA, steps=9, devices=1).params) < 1e-12
    lost = resume(tmp_path / "lost", DATA, devices=1)
    assert largest_difference(one.params, lost.params) < 1e-12


def largest_difference(one, other):
    """Of two sets of arrays by name."""
    assert set(one) == set(other)
    return max(np.abs(one[n] - other[n]).max() for n in one)


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


# Two processes with two devices each, as on two hosts.
ON_TWO_HOSTS = """
import sys
import numpy as np
import ppdgm
from programs_over_devices import DATA
from ppdgm.models import PPCA

seen, program, data = [], PPCA(event_shape=(6,), latent=2), DATA.astype(np.float32)
how = {"steps": 5, "batch_size": 16, "seed": 1, "progress": False, "validation": data[:8]}
fit = ppdgm.fit(program, data, devices="all", out=sys.argv[1], callbacks=[lambda now: seen.append(now.step)], **how)
there = fit.over("all")
assert abs(there.elbo(data[:8], seed=1).mean - fit.elbo(data[:8], seed=1).mean) < 1e-5
assert np.abs(there.encode(data[:9]) - fit.encode(data[:9])).max() < 1e-5
print(fit.info["device"], bool(seen), float(fit.elbo(data[:8], seed=1).mean), sep=";")
"""


def test_two_jax_processes_take_the_step_of_one(tmp_path):
    how = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"}
    how |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    processes = [start("-c", ON_TWO_HOSTS, str(tmp_path / "run"), **how, JAX_PROCESS_ID=str(r)) for r in range(2)]
    told = [p.communicate(timeout=300) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], told
    program, data = PPCA(event_shape=(6,), latent=2), DATA.astype(np.float32)
    one = fit(program, data, steps=5, batch_size=16, seed=1, progress=False, validation=data[:8])
    (place, seen, elbo), second = (out.splitlines()[-1].split(";") for out, _ in told)  # Gloo prints a line of its own
    assert [place, seen] == ["4 × cpu in 2 processes", "True"] and second == [place, "False", elbo]
    assert abs(float(elbo) - one.elbo(data[:8], seed=1).mean) < 1e-5
    assert largest_difference(one.params, load(tmp_path / "run").params) < 1e-5


def test_a_jax_process_that_lacks_its_number():
    with pytest.raises(PpdgmError, match="Set JAX_NUM_PROCESSES to their number too, and JAX_PROCESS_ID"):
        find_devices("cpu", 2, {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2"})
