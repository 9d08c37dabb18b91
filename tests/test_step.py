"""The compiled step's optimisers equal torch's own; a compiled run equals an eager one where there is no noise."""

import numpy as np
import pytest
import torch

import ppdgm
from ppdgm.backends.pyro import step as steps
from ppdgm.inference import Linear, Optimiser
from ppdgm.models import MLP, VAE


@pytest.mark.parametrize(
    ("name", "momentum"), [("adam", 0.0), ("adamw", 0.0), ("adamax", 0.0), ("rmsprop", 0.0), ("sgd", 0.0), ("sgd", 0.9)]
)
def test_rules_equal_torchs_optimisers(name, momentum):
    spec = Optimiser(name=name, momentum=momentum)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    theirs, ours = start.clone().requires_grad_(), start.clone()
    optimiser = steps.torch_optimiser(spec, [theirs])
    first, second = torch.zeros_like(ours), torch.zeros_like(ours)
    for t in range(20):
        theirs.grad = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        rate = 0.1 / (t + 1)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        row = torch.tensor(steps.corrected(spec, np.array([rate]), t)[0])
        steps.RULES[name](spec, ours, theirs.grad.clone(), first, second, row)
    assert (ours - start).abs().min() > 1e-3
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7)  # the rates are float32


class Unruly(VAE):
    """A program that torch can't compile."""

    def guide(self, P, x):
        if x.sum() > 0:  # a branch that depends on data
            super().guide(P, x)


def test_a_program_that_does_not_compile_runs_eagerly_unless_told():
    program = Unruly(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
    x = (np.random.default_rng(0).random((41, 6)) < 0.3).astype("float32")
    options = {"backend": "pyro", "batch_size": 8, "progress": False}
    with pytest.raises(ppdgm.PpdgmError, match="can't compile this program"):
        ppdgm.fit(program, x, steps=3, compile=True, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppdgm.inference.training.job.COMPILE_FROM_STEPS", 3)
        tried = ppdgm.fit(program, x, steps=3, compile="auto", **options)
    eager = ppdgm.fit(program, x, steps=3, compile=False, **options)
    assert tried.info["compile"] is False
    assert all(np.array_equal(tried.params[n], eager.params[n]) for n in eager.params)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_compiled_run_equals_an_eager_one(clip_norm):
    """A decoder that ignores z has a gradient without noise, so that other draws make no difference."""
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
    x = (np.random.default_rng(0).random((41, 6)) < 0.3).astype("float32")
    params = program.initialise(0)
    params["decoder.layers.0.weight"][:] = 0.0
    params["decoder.layers.1.weight"][:] = 0.0
    for n in params:  # q(z|x) = p(z), so that the KL has no gradient but through the encoder's output layer
        if n.startswith("encoder.layers.1"):
            params[n][:] = 0.0
    ends = [
        ppdgm.fit(
            program, x, backend="pyro", params=params, steps=10, batch_size=8, progress=False, compile=compiled,
            clip_norm=clip_norm, learning_rate=Linear(start=0.1, end=0.01, steps=10),
        ).params["decoder.layers.1.bias"]
        for compiled in (True, False)
    ]  # fmt: skip
    assert np.abs(ends[0]).min() > 0.01
    assert np.allclose(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_each_compiled_run_has_a_code_object_of_its_own():
    """torch refuses the ninth graph of one code object in a process: a notebook trains more programs than that."""
    one, other = (steps.CompiledStep(lambda *arguments: None, {}, [], Optimiser())._step for _ in range(2))
    assert one._torchdynamo_orig_callable.__code__ is not other._torchdynamo_orig_callable.__code__
