"""Products are in full float32 on every device, but in training with `tf32=True`; shown without a GPU."""

import re

import jax
import numpy as np
import pytest
import torch
from jax import export

import ppdgm
from ppdgm.backends.numpyro.loop import Trainer as JaxTrainer
from ppdgm.backends.numpyro.precision import products as jax_products
from ppdgm.backends.pyro import loop, runtime
from ppdgm.backends.pyro.precision import products
from ppdgm.errors import TrainingError
from ppdgm.inference.training import job
from ppdgm.models import VAE, ConvDecoder, ConvEncoder

X = (np.random.default_rng(0).random((8, 1, 8, 8)) < 0.5).astype("float32")
NETS = {"encoder": ConvEncoder(channels=(4,)), "decoder": ConvDecoder(channels=(4,))}
HOW = {"steps": 2, "batch_size": 4, "progress": False}
SEEN: list[object] = []
CUDA = torch.device("cuda")


class Noting(VAE):
    """Notes how its products are computed."""

    def model(self, P, x):
        super().model(P, x)
        SEEN.append(torch_now() if isinstance(x, torch.Tensor) else jax.config.jax_default_matmul_precision)


def noted(function):
    SEEN.clear()
    function()
    return set(SEEN)


@pytest.fixture
def allowed(monkeypatch):
    """As if the device were a GPU."""
    monkeypatch.setattr(job, "check_tf32", lambda training, place: None)
    for module in (loop, runtime):
        monkeypatch.setattr(module, "products", lambda device, tf32=False: products(CUDA, tf32))


def torch_now():
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("tf32", [False, True])
def test_training_rounds_if_told_and_evaluations_never(tf32, allowed):
    program = Noting(event_shape=(1, 8, 8), latent=2, **NETS)
    full, rounded = ("ieee", "ieee"), ("tf32", "tf32")
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        full, rounded = (False, False), (True, True)
    before, fits = torch_now(), []
    seen = noted(lambda: fits.append(ppdgm.fit(program, X, backend="pyro", tf32=tf32, compile=False, **HOW)))
    assert (rounded in seen) == tf32 and full in seen
    assert noted(lambda: fits[0].elbo(X)) == noted(lambda: fits[0].log_likelihood(X, k=3)) == {full}
    assert torch_now() == before

    seen = noted(lambda: fits.append(ppdgm.fit(program, X, backend="numpyro", tf32=tf32, **HOW)))
    assert ("tensorfloat32" in seen, "float32" in seen) == (tf32, not tf32)
    for judge in (lambda: fits[1].elbo(X), lambda: fits[1].log_likelihood(X, k=3)):
        assert {"float32"} <= noted(judge) <= {"float32", None}  # None where only shapes are computed
    assert jax.config.jax_default_matmul_precision is None


@pytest.mark.parametrize(("tf32", "kind"), [(False, "HIGHEST"), (True, "HIGH")])
def test_every_product_of_a_step_on_cuda(tf32, kind, allowed, monkeypatch):
    """In the program that XLA is given for CUDA."""
    texts = []
    start = JaxTrainer.start

    def started(self, params, state):
        start(self, params, state)
        compiled = self._stretch

        def lower(*args):
            texts.append(export.export(compiled, platforms=["cuda"])(*args).mlir_module())
            raise KeyboardInterrupt

        self._stretch, self._singly = lower, False

    monkeypatch.setattr(JaxTrainer, "start", started)
    with pytest.raises(KeyboardInterrupt):
        ppdgm.fit(VAE(event_shape=(1, 8, 8), latent=2, **NETS), X, tf32=tf32, **HOW)
    lines = [line for line in texts[0].splitlines() if re.search(r"stablehlo\.(dot_general|convolution)\b", line)]
    assert len(lines) > 5
    assert all(re.findall(r"\b(DEFAULT|HIGHEST|HIGH)\b", line) == [kind, kind] for line in lines), lines


def test_flags_come_back_after_an_error():
    before = torch_now()
    for tf32 in (False, True):
        with pytest.raises(ZeroDivisionError), products(CUDA, tf32):
            assert torch_now() != before
            raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError), jax_products(tf32):
            raise ZeroDivisionError
    assert torch_now() == before and jax.config.jax_default_matmul_precision is None


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_it_is_refused_where_there_is_none(backend):
    program = VAE(event_shape=(1, 8, 8), latent=2, **NETS)
    with pytest.raises(TrainingError, match=r"tf32: got True, but the device is cpu. Only NVIDIA GPUs"):
        ppdgm.fit(program, X, backend=backend, tf32=True, device="cpu", **HOW)
    with pytest.raises(TrainingError, match="tf32: got True with dtype='float64'"), jax.enable_x64(True):
        ppdgm.fit(program, X.astype("float64"), backend=backend, tf32=True, dtype="float64", **HOW)
