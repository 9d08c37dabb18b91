"""Steps as CUDA graphs, as far as a machine without a GPU can tell.

A graph is emulated on the CPU: the operations of a step are recorded while it is captured, which changes nothing, and a
replay runs them again on the same memory. What a step computes outside of them, or reads from other memory, is lost.
"""

from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from test_gpu_ready import _rows as rows_of
from test_loops import X, make, plan, run
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trainers import make_trainer

import ppdgm
from ppdgm import Program
from ppdgm.backends.pyro.graphed import WARM
from ppdgm.backends.pyro.runtime import Runtime
from ppdgm.backends.pyro.step import gradients
from ppdgm.backends.pyro.vocabulary import unvalidated
from ppdgm.errors import TrainingError
from ppdgm.inference import IWAE, SVI, WakeSleep
from ppdgm.inference.engines.engine import hyperparameters_of
from ppdgm.models import PPCA
from ppdgm.registry import backend as load_backend


class Emulated:
    """A graph: operations, with the memory of their arguments and results."""

    def __init__(self):
        self.operations, self.replays = [], 0

    def replay(self):
        """Run them again, on the same memory."""
        self.replays += 1
        for func, args, kwargs, outs in self.operations:
            again = tree_leaves(func(*args, **kwargs))
            if not func.is_view and not func._schema.is_mutable:
                for out, new in zip(outs, again, strict=True):
                    if isinstance(out, torch.Tensor):
                        out.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph, self.before = graph, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            changed = [a for a, s in zip(args, func._schema.arguments, strict=False) if s.alias_info]
            self.before += [(t, t.clone()) for t in tree_leaves(changed) if isinstance(t, torch.Tensor)]
        out = func(*args, **kwargs)
        self.graph.operations.append((func, args, kwargs, tree_leaves(out)))
        return out


@contextmanager
def captured(graph, stream=None, capture_error_mode="global"):
    """In the place of `torch.cuda.graph`: what is captured changes no memory, and draws nothing."""
    assert capture_error_mode == "thread_local" and stream is not None
    random = torch.get_rng_state()
    with _Recorder(graph) as recorder:
        yield
    torch.set_rng_state(random)
    for t, value in reversed(recorder.before):
        t.copy_(value)


class Stream:
    """In the place of a GPU's."""

    def __init__(self, device=None):
        self.waits = 0

    def wait_stream(self, other):
        """Nothing runs beside."""
        self.waits += 1


@pytest.fixture
def emulated(monkeypatch):
    """CUDA's graphs on the CPU, of steps that are not compiled; the graphs that are made."""
    made = []
    monkeypatch.setattr(torch, "compile", lambda step, **how: step)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(Emulated()) or made[-1])
    monkeypatch.setattr(torch.cuda, "graph", captured)
    return made


def rows(trainer, *where):
    """A stretch of test_loops, on the same data."""
    trainer.kept = getattr(trainer, "kept", None) or trainer.runtime.put({"x": X})
    return plan(trainer, *where), trainer.kept


def others(trainer, *where):
    """The same in new memory, as streamed rows are."""
    return plan(trainer, *where), trainer.runtime.put({"x": X})


@pytest.mark.parametrize("options, data", [
    ({}, rows), ({"binarise": True, "average": 0.9}, rows), ({"engine": IWAE(k=3)}, rows), ({"pieces": 2}, rows),
    ({"engine": WakeSleep()}, rows), ({}, others),
], ids=["beta", "bits", "iwae", "pieces", "wake-sleep", "stream"])  # fmt: skip
def test_replays_are_the_steps(options, data, emulated):
    found = []
    for graphs in (True, False):
        trainer = make("pyro", compile=True, graphs=graphs, **options)
        metrics = [trainer.run(*data(trainer, *where)) for where in ((0, 9), (9, 9), (18, 4))]
        found.append((metrics, trainer.state_arrays()))
    (one, state), (other, expected) = found
    assert sum(graph.replays for graph in emulated) == 22 - WARM * len(trainer.phases)
    assert len(emulated) == len(trainer.phases) + (data is others)  # captured again once, when the data are others
    for a, b in zip(one, other, strict=True):
        assert all(np.array_equal(a[n], b[n], equal_nan=True) for n in b)
    assert state.keys() == expected.keys() and all(np.array_equal(state[n], v) for n, v in expected.items())


def test_what_the_caller_gave_is_not_overwritten(emulated):
    trainer = make("pyro", compile=True, graphs=True)
    first = {"x": torch.from_numpy(X.copy())}
    run = lambda data, *where: trainer.run(plan(trainer, *where), data)
    run(first, 0, 9)
    run({"x": torch.zeros(X.shape)}, 9, 3)
    run({"x": torch.ones(X.shape)}, 12, 3)
    assert np.array_equal(first["x"].numpy(), X)


class Small(Program):
    """x ~ N(m, 1), with a constant of NumPy's."""

    def build(self, context):
        context.param("m", (6,))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("m") * P.constant(np.arange(6)), P.full((6,), 1.0)).to_event(1), obs=x)


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_they_are_refused_where_there_are_none(backend):
    device = {"numpyro": "JAX always compiles every step", "pyro": "the device is cpu, and only NVIDIA GPUs have CUDA"}
    with pytest.raises(TrainingError, match=f"compile: got 'cudagraphs', but .*{device[backend]}"):
        ppdgm.fit(Small(), X, backend=backend, steps=2, compile="cudagraphs", progress=False)
    with pytest.raises(ppdgm.PpdgmError, match="compile: got 'graphs'"):
        ppdgm.fit(Small(), X, backend=backend, steps=2, compile="graphs", progress=False)


def test_a_run_and_one_that_goes_on(emulated, monkeypatch, tmp_path):
    monkeypatch.setattr(Runtime, "place", "cuda:0 (emulated)")
    options = {"backend": "pyro", "steps": 20, "batch_size": 8, "progress": False, "seed": 1}
    plain = ppdgm.fit(PPCA(event_shape=(6,), latent=2), X, compile=True, **options)
    crash = lambda now: 1 / 0 if now.step >= 12 else None
    with pytest.raises(ZeroDivisionError):
        how = {"compile": "cudagraphs", "checkpoint_steps": 6, "out": tmp_path / "run", "callbacks": crash}
        ppdgm.fit(PPCA(event_shape=(6,), latent=2), X, **how, **options)
    graphs = ppdgm.resume(tmp_path / "run", X, progress=False)
    assert emulated and all(np.array_equal(plain.params[n], v) for n, v in graphs.params.items())
    assert graphs.training.compile == "cudagraphs"


def test_a_step_that_can_not_be_a_graph_is_told(emulated, monkeypatch):
    @contextmanager
    def fails(*how, **settings):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        yield

    monkeypatch.setattr(torch.cuda, "graph", fails)
    trainer = make("pyro", compile=True, graphs=True)
    with pytest.raises(TrainingError, match=r"can't be a CUDA graph \(CUDA error: operation not.*compile=True"):
        run(trainer, 0, 9)


class _FromHost(TorchDispatchMode):
    """Operations that have an array of the host's."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        if any(t.device.type == "cpu" for t in tensors) or func == torch.ops.aten._local_scalar_dense.default:
            self.found.add(str(func))
        return out


@pytest.mark.parametrize("program", ["vae", "vae, iaf", "conditional", "semi-supervised", "vae, enumerated", "ppca"])
def test_no_step_copies_from_the_host(program, monkeypatch):
    """On the "meta" device, which has shapes alone: a graph can't contain such a copy, and each would be waited for."""
    made, x = rows_of(program)
    runtime = load_backend("pyro").Runtime(made, "cpu")
    meta = lambda arrays: {n: v.detach().to("meta") for n, v in arrays.items()}
    params, data = meta(runtime.put(made.initialise(0, x))), meta(runtime.put(x))
    runtime.device = torch.device("meta")
    trainer = make_trainer(runtime, SVI(estimator="enumerate" if "enumerated" in program else "auto"), params)
    index, weight = torch.zeros(16, dtype=torch.int64, device="meta"), torch.ones(16, device="meta")
    first = hyperparameters_of(trainer.engine, np.zeros(1))[0]
    row = meta({n: torch.tensor(v[0]) for n, v in first.items()}), {}
    with unvalidated():
        for _ in range(2):
            with _FromHost() as seen:
                gradients(partial(trainer._pieces_of, 0), trainer.params, trainer.groups[0], data, index, weight, row)
    assert not seen.found  # the first time, constants are put there
