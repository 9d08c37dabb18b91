"""Training steps and evaluations are ready for a GPU, as far as a machine without one can tell.

JAX lowers them for CUDA. torch runs them on its "meta" device, where arrays have shapes and no numbers: whatever reads
a number, or makes an array on another device, raises.
"""

from functools import partial

import jax
import pytest
import torch
from jax import export

import ppdgm
from benchmarks.engines.choices import ENGINES, PROGRAMS, data_of
from ppdgm.backends.numpyro.keys import make_key
from ppdgm.backends.numpyro.loop import Trainer as JaxTrainer
from ppdgm.backends.numpyro.runtime import Runtime as JaxRuntime
from ppdgm.backends.pyro.loop import Trainer as TorchTrainer
from ppdgm.backends.pyro.step import gradients
from ppdgm.backends.pyro.vocabulary import flushed, unvalidated

FITTING = {"svi, score": "vae, categorical", "svi, enumerate": "vae, enumerated", "iwae, vimco": "vae, categorical"}
# But exact EM, whose steps are NumPy's, and what one of the engines already has.
OWN = [p for p in PROGRAMS if not p.endswith("pair") and p not in ("gaussian mixture", "autoencoder")]
PAIRS = [(e, FITTING.get(e.removesuffix(", running").removesuffix(", learned"), "vae")) for e in ENGINES if e != "em"]
PAIRS += [("svi", p) for p in OWN if p not in ("vae", "vae, categorical", "vae, enumerated")]
every_pair = pytest.mark.parametrize(("engine", "program"), PAIRS)
without_chains = pytest.mark.parametrize(("engine", "program"), [p for p in PAIRS if p[0] != "markov chain em"])


class _Done(BaseException):  # so that nobody takes it for an error of the program
    """Everything that was to be seen was seen."""


def _rows(program):
    make, kind = PROGRAMS[program]
    train, _ = data_of(kind)
    return make(), {n: v[:32] for n, v in train.items()}


def _lowered(compiled, *args, **static):
    """The text of a compiled function for CUDA."""
    return export.export(compiled, platforms=["cuda"])(*args, **static).mlir_module()


@pytest.fixture
def lowers(monkeypatch):
    """Each stretch of training is lowered for CUDA in place of being run."""
    start = JaxTrainer.start

    def started(self, params, state):
        start(self, params, state)
        compiled = self._stretch

        def lower(*args):
            assert "while" in _lowered(compiled, *args)  # the loop over steps
            raise _Done

        self._stretch = lower
        self._singly = False

    monkeypatch.setattr(JaxTrainer, "start", started)


@every_pair
def test_jax_lowers_training_for_cuda(engine, program, lowers):
    made, x = _rows(program)
    with pytest.raises(_Done):
        ppdgm.fit(made, x, engine=ENGINES[engine], steps=1000, batch_size=16, progress=False)


@pytest.mark.parametrize("program", OWN)
def test_jax_lowers_evaluations_for_cuda(program, monkeypatch):
    made, x = _rows(program)
    lowered = []

    def ask(self, question, params, seed, *at, **how):
        compiled = jax.jit(lambda params, key, *at: question(self, params, key, *at, **how))
        lowered.append(_lowered(compiled, params, None if seed is None else make_key(*seed), *at))
        raise _Done

    monkeypatch.setattr(JaxRuntime, "ask", ask)
    with pytest.raises(_Done):
        ppdgm.log_weights(made, made.initialise(0), x, k=3)
    assert lowered


@pytest.fixture
def without_numbers(monkeypatch):
    """The gradient of each phase is computed from shapes alone."""

    def run(self, plan, data):
        meta = torch.device("meta")
        self.runtime.device = meta
        there = lambda arrays: {n: v.detach().to(meta).requires_grad_(v.requires_grad) for n, v in arrays.items()}
        params, data = there(self.params), there(data)
        index, weight, rows = self._put(plan)
        with unvalidated(), flushed(), self.tracer.training(params):
            for j, groups in enumerate(self.groups):
                where = data, index[0], weight[0], rows(j, 0)
                found, metrics, _ = gradients(partial(self._pieces_of, j), params, groups, *where)
                assert found
                assert {a.device for a in (*found.values(), metrics)} == {meta}
        raise _Done

    monkeypatch.setattr(TorchTrainer, "_run", run)


@without_chains  # Pyro's kernel decides on the host
def test_torch_needs_no_number_on_the_host(engine, program, without_numbers):
    made, x = _rows(program)
    options = {"engine": ENGINES[engine], "steps": 1000, "batch_size": 16, "progress": False, "compile": False}
    with pytest.raises(_Done):
        ppdgm.fit(made, x, backend="pyro", **options)
