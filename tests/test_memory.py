"""The memory of a training step, which is estimated before the first one."""

import weakref

import numpy as np
import pytest
import torch
from readings import BACKENDS

import ppdgm
from ppdgm.inference import IWAE, SVI
from ppdgm.inference.training import memory
from ppdgm.models import MLP, VAE
from ppdgm.registry import backend as load_backend

X = np.random.default_rng(0).integers(0, 2, (20, 50)).astype("float32")
WIDTHS = (30, 400)
PROGRAM = VAE(event_shape=(50,), latent=2, encoder=MLP(hidden=(5,)), decoder=MLP(hidden=WIDTHS))
both = pytest.mark.parametrize("backend", BACKENDS)


def needed(backend, k, b):
    runtime = load_backend(backend).Runtime(PROGRAM, "cpu")
    data = runtime.put({"x": X})
    return runtime.bytes_of_step(runtime.put(PROGRAM.initialise(0)), data, k, b)


@both
def test_a_step_needs_the_layers_results(backend):
    """tanh keeps its result, the Bernoulli its logits: the decoder's widths, and three of the widest, everywhere."""
    least = 4 * (sum(WIDTHS) + 50 + 3 * max(WIDTHS))
    for k, b in ((40, 6), (80, 6), (40, 12)):
        assert least < needed(backend, k, b) / (k * b) < 2 * least
    slope = (needed(backend, 80, 12) - needed(backend, 40, 12)) / (40 * 12)
    assert least <= slope < 2 * least


@both
def test_a_run_that_will_not_fit_is_warned_before_its_first_step(backend, monkeypatch, capsys):
    how = {"engine": IWAE(k=30), "steps": 1, "batch_size": 10, "backend": backend, "progress": False, "compile": False}
    full = needed(backend, 30, 10)
    monkeypatch.setattr(memory, "MOST_LAYERS", 10**9)
    for free, told in ((full // 2, True), (full * 2, False)):
        monkeypatch.setattr(memory, "free_on_host", lambda free=free: free)
        ppdgm.fit(PROGRAM, X, **how)
        said = capsys.readouterr().err
        assert ("A step with 30 particles of 10 rows needs about" in said) == told
        assert ("Give a particle_chunk, a smaller batch_size" in said) == told
    monkeypatch.setattr(memory, "free_on_host", lambda: full // 2)
    for less in ({"particle_chunk": 3}, {"accumulate": 5}):
        ppdgm.fit(PROGRAM, X, **less, **how)
        assert "A step with" not in capsys.readouterr().err


@pytest.mark.parametrize("engine", [IWAE(k=30), SVI(k=30, free_bits=0.5)], ids=["iwae", "means of all pieces"])
def test_torch_keeps_the_graph_of_one_piece(engine):
    """The largest number of bytes that are kept for gradients at one time."""
    assert kept(engine, 5) < 0.25 * kept(engine, 1)


def kept(engine, accumulate):
    now = most = 0

    def count(change):
        nonlocal now, most
        now += change
        most = max(most, now)

    class Kept:
        def __init__(self, value):
            self.value, size = value, value.nbytes
            count(size)
            weakref.finalize(self, count, -size)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.value):
        how = {"steps": 2, "batch_size": 20, "backend": "pyro", "progress": False, "compile": False}
        ppdgm.fit(PROGRAM, X, engine=engine, accumulate=accumulate, **how)
    return most


def test_what_is_free_is_the_least_of_machine_and_group(tmp_path, monkeypatch):
    for name, text in (("max", "5000"), ("used", "2000"), ("none", "max")):
        (tmp_path / name).write_text(text + "\n")
    of = lambda limit: ((str(tmp_path / limit), str(tmp_path / "used")),)
    monkeypatch.setattr(memory, "_GROUPS", of("max"))
    assert memory.free_on_host() == 3000
    for limit in ("none", "missing"):
        monkeypatch.setattr(memory, "_GROUPS", of(limit))
        assert memory.free_on_host() is None or memory.free_on_host() > 10**6  # the machine's
