"""The hierarchical VAE on digits: ten levels stay finite, 200 steps learn; what `fit` and the command line give."""

import numpy as np
import pytest
from checks import SIGMAS
from readings import BACKENDS
from scipy.special import logsumexp
from test_cli import ppdgm as command

import ppdgm
from ppdgm.models import MLP, HierarchicalVAE, Program

every_guide = pytest.mark.parametrize("guide", ["factorised", "bottom_up", "top_down"])


def digits(count=600):
    data = ppdgm.load_data("digits")
    return data.train[:count], data.test


def coins(train, test):
    """log p(x) per datum of a Bernoulli for each pixel."""
    flat, x = (a.reshape(len(a), -1).astype(float) for a in (train, test))
    p = (flat.sum(0) + 1) / (len(flat) + 2)
    return x @ np.log(p) + (1 - x) @ np.log(1 - p)


SMALL = {n: MLP(hidden=(64,)) for n in ("encoder", "decoder", "levels")} | {"features": 64}


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_ten_levels_train(backend, rate):
    train, test = digits()
    program = HierarchicalVAE(event_shape=(8, 8), latent=(4,) * 10, **SMALL)
    fit = ppdgm.fit(
        program, train, steps=200, batch_size=100, learning_rate=rate, seed=1, backend=backend, compile=False
    )
    assert np.isfinite(fit.history["elbo"]).all()
    assert fit.info["skipped"] == 0
    assert all(np.isfinite(v).all() for v in fit.params.values())
    assert fit.elbo(test).mean > coins(train, test).mean() - 2.0  # near what it is without any use of latents


@every_guide
def test_200_steps_beat_coins(guide):
    """On held-out data, by ELBO and by likelihood."""
    train, test = digits(None)
    program = HierarchicalVAE(event_shape=(8, 8), latent=(16, 8), inference=guide, **SMALL)
    options = {"batch_size": 100, "learning_rate": 3e-3, "seed": 0, "backend": "pyro", "compile": False}
    weights = ppdgm.fit(program, train, steps=200, **options).log_weights(test, k=50)
    for values in (weights.mean(0), logsumexp(weights, axis=0) - np.log(50)):
        gain = values - coins(train, test)
        assert gain.mean() > SIGMAS * gain.std() / len(gain) ** 0.5


@every_guide
def test_what_a_fit_gives_of_levels(guide):
    program = HierarchicalVAE(event_shape=(2, 3), latent=(4, 2), inference=guide, skip="decoder", **SMALL)
    fit = ppdgm.Fit(program, program.initialise(0), backend="pyro")
    x = np.zeros((7, 2, 3), np.float32)
    assert {n: v.shape for n, v in fit.encode(x).items()} == {"z1": (7, 4), "z2": (7, 2)}
    assert {n: v.shape for n, v in fit.encode(x, k=3).items()} == {"z1": (3, 7, 4), "z2": (3, 7, 2)}
    assert fit.reconstruct(x).shape == fit.sample(7).shape == x.shape
    assert Program.from_toml(program.to_toml()) == program


def test_the_command_line_knows_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = ["latent=[4,2]", "inference=factorised", *(f"{n}.hidden=[8]" for n in ("encoder", "decoder", "levels"))]
    sets = [part for field in fields for part in ("--set", f"program.{field}")]
    command("fit", "hierarchicalvae", "--data", "digits", "--steps", 2, "--out", "run", *sets)
    fit = ppdgm.load("run")
    assert (fit.program.latent, fit.program.inference) == ((4, 2), "factorised")
