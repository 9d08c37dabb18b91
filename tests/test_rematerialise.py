"""`rematerialise=True`: the same draws and gradient, and less memory, because nets keep only their inputs."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import ppdgm
from ppdgm import Program
from ppdgm.backends.numpyro.recomputed import recomputed
from ppdgm.backends.numpyro.runtime import precision
from ppdgm.errors import TrainingError
from ppdgm.inference import IWAE, SVI, Minimise
from ppdgm.inference.engines.engine import hyperparameters_of
from ppdgm.inference.engines.optimisers import as_optimiser
from ppdgm.inference.inputs.batches import Plan
from ppdgm.language.trainer import TrainerSettings
from ppdgm.models import IAF, MLP, VAE, FlowPosterior, HierarchicalVAE
from ppdgm.registry import backend as load_backend

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
X = np.random.default_rng(0).integers(0, 2, (12, 6)).astype(np.float32)
NET = MLP(hidden=(7, 5))
LADDER = HierarchicalVAE(event_shape=(6,), latent=(3, 2), encoder=NET, decoder=NET, levels=NET, features=4)
IAFS = FlowPosterior(flow=IAF(depth=2, hidden=(5,)))
FLOW = VAE(event_shape=(6,), latent=3, encoder=NET, decoder=NET, posterior=IAFS)


class Slopes(Program):
    """loss = |∇ₓ f(x)|² + f(x), with nets inside P.vjp and outside."""

    def build(self, context):
        context.net("f", NET, (6,), (1,))

    def loss(self, P, x):
        value, pull = P.vjp(P.net("f"), x)
        slope = pull(P.xp.ones_like(value))
        return P.xp.sum(slope**2, axis=-1) + P.net("f")(x)[..., 0]


CASES = {
    "ladder": (LADDER, {"engine": SVI(k=2)}),
    "flow": (FLOW, {"engine": IWAE(k=3, estimator="dreg")}),
    "chunks": (LADDER, {"engine": IWAE(k=4), "particle_chunk": 2}),
    "pieces": (LADDER, {"accumulate": 2}),
    "slopes": (Slopes(), {"engine": Minimise()}),
}


@both
@pytest.mark.parametrize("case", CASES)
def test_the_same_draws_and_gradient(case, backend):
    """Steps of gradient descent in float64: other draws would be far away."""
    program, how = CASES[case]
    how = {"steps": 2, "batch_size": 6, "optimiser": "sgd", "learning_rate": 0.1, "dtype": "float64", **how}
    with precision("float64") if backend == "numpyro" else nullcontext():
        kept, again = (
            ppdgm.fit(program, X, backend=backend, compile=False, progress=False, rematerialise=on, **how)
            for on in (False, True)
        )
    first = program.initialise(0, {"x": X}, "float64")
    np.testing.assert_allclose(again.history["objective"], kept.history["objective"], rtol=1e-6)
    for name, value in kept.params.items():
        moved = np.abs(value - first[name]).max()
        np.testing.assert_allclose(again.params[name], value, rtol=0, atol=1e-9 * max(moved, 1e-3))
    assert any((v != first[n]).any() for n, v in kept.params.items())


WIDE = MLP(hidden=(40,) * 6)
DEEP = HierarchicalVAE(event_shape=(6,), latent=(2, 2), encoder=WIDE, decoder=WIDE, levels=WIDE, features=2)
ROWS, K = 50, 10


def trainer_of(backend, on):
    module = load_backend(backend)
    x = np.resize(X, (ROWS, 6))
    runtime = module.Runtime(DEEP, "cpu")
    data, settings = runtime.put({"x": x}), TrainerSettings(0, ROWS, as_optimiser("adam", None), rematerialise=on)
    params = runtime.put(runtime.initialise(0, {"x": x}, "float32"))
    return module.Trainer(runtime, SVI(k=K), params, settings), data, params


def plan():
    one = np.ones((1, ROWS), np.float32)
    rows, now = np.arange(ROWS, dtype=np.int32)[None], hyperparameters_of(SVI(k=K), np.zeros(1))
    return Plan(index=rows, weight=one, rate=one[:, 0], hyperparameters=now, first=0, count=1)


@both
def test_nets_keep_only_their_inputs(backend):
    """What is kept of a row and particle: without, the results of 6 layers of 40 of each net; with, inputs."""
    needed = []
    for on in (False, True):
        trainer, data, params = trainer_of(backend, on)
        needed.append(trainer.runtime.bytes_of_step(params, data, K, ROWS, on) / (4 * K * ROWS))
    layers = 3 * 6 * 40  # at least: of the model's two nets, and of the guide's that reads a latent
    assert needed[0] > layers and needed[1] < 0.25 * needed[0]


def test_jax_needs_less_memory():
    """By XLA's own account. It must not find that both computations are the same, and keep the results of the first."""
    weights, x = np.full((6, 3, 20, 20), 0.1, np.float32), np.ones((500, 20), np.float32)

    def temporary(again):
        def loss(weights, x):
            for net in weights:
                layers = lambda x, net=net: jnp.tanh(jnp.tanh(jnp.tanh(x @ net[0]) @ net[1]) @ net[2])
                x = again(layers, x)
            return x.sum()

        return jax.jit(jax.grad(loss)).lower(weights, x).compile().memory_analysis().temp_size_in_bytes

    assert temporary(recomputed) < 0.7 * temporary(lambda f, x: f(x))


def test_torch_needs_less_memory():
    """The largest number of bytes that are allocated at one time in a step."""
    most = []
    for on in (False, True):
        trainer, data, _ = trainer_of("pyro", on)
        trainer.run(plan(), data)  # the optimiser's state
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            trainer.run(plan(), data)
        events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        events.sort(key=lambda e: e.start_ns())
        most.append(np.cumsum([e.nbytes() for e in events]).max())
    assert most[1] < 0.5 * most[0]


@both
def test_plain_pairs_and_own_modules_are_refused(backend):
    pair = getattr(Program, f"from_{backend}")(lambda x: None, lambda x: None)
    with pytest.raises(TrainingError, match="rematerialise: does not change your own modules and plain pairs"):
        ppdgm.fit(pair, X, steps=1, rematerialise=True, progress=False)


def test_a_run_is_repeated_with_it(tmp_path):
    how = {"steps": 2, "rematerialise": True, "progress": False, "backend": "pyro", "out": tmp_path / "run"}
    fit = ppdgm.fit(LADDER, X, **how)
    assert fit.training.rematerialise and not fit.info["compile"]
    assert "rematerialise = true" in (tmp_path / "run" / "recipe.toml").read_text()
