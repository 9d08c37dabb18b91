"""Bits per dimension: by hand, wherever a bound is shown, and never of real numbers."""

import json
from math import log

import numpy as np
import numpyro
import pyro
import pytest
import torch
from readings import BACKENDS
from typer.testing import CliRunner

import ppdgm
from ppdgm import Fit, Program
from ppdgm.cli.app import app
from ppdgm.diagnostics.bits import bits_per_dimension
from ppdgm.diagnostics.page_parts import key_numbers
from ppdgm.models import (
    MADE,
    MLP,
    PPCA,
    VAE,
    AutoregressiveModel,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Dequantised,
    DiscretisedLogistic,
    FlowModel,
    FlowPrior,
    Gaussian,
    Laplace,
    Poisson,
    RealNVP,
)

RNG = np.random.default_rng(0)
NET = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))}
BITS = RNG.integers(2, size=(20, 2, 3)).astype("float32")


def made(program, backend="pyro", data=None):
    return Fit(program, program.initialise(0, data), backend)


def test_by_hand():
    assert bits_per_dimension(-8 * log(2), 8) == 1.0
    assert bits_per_dimension(-64 * log(256), 64) == pytest.approx(8.0)  # a uniform model of bytes
    assert bits_per_dimension(-2000.0, 784) == pytest.approx(2000 / 784 * 1.4426950408889634)
    assert np.allclose(bits_per_dimension(np.array([0.0, -log(2)]), 1), [0, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_uniform_model_needs_the_bits_of_its_levels(backend):
    """A Categorical whose logits are 0 codes each of 4 levels in 2 bits; a Bernoulli in 1."""
    x = RNG.integers(4, size=(20, 2, 3)).astype("float32")
    zero = lambda program: {n: 0 * v for n, v in program.initialise(0).items()}
    for likelihood, data, bits in ((Categorical(levels=4), x, 2.0), (Bernoulli(), BITS, 1.0)):
        program = AutoregressiveModel(event_shape=(2, 3), net=MADE(hidden=(5,)), likelihood=likelihood)
        found = Fit(program, zero(program), backend).elbo(data)
        assert found.dimensions == 6 and found.bits_per_dimension == pytest.approx(bits, rel=1e-6)
        assert str(found).endswith(f"; {bits:.4f} ± 0.0000 bits/dim")


WHOLE = [Bernoulli(), Categorical(levels=3), DiscretisedLogistic(levels=3), Poisson()]
REAL = [Gaussian(), Laplace(), ContinuousBernoulli()]


@pytest.mark.parametrize("likelihood", [*WHOLE, *REAL], ids=lambda each: type(each).__name__)
def test_only_of_whole_numbers(likelihood):
    fit = made(VAE(event_shape=(2, 3), latent=2, likelihood=likelihood, **NET))
    assert likelihood.discrete == (likelihood in WHOLE)
    for found in (fit.elbo(BITS, k=1), fit.elbo(BITS, k=3), fit.log_likelihood(BITS, k=3)):
        if likelihood in WHOLE:
            assert found.dimensions == 6
            assert found.bits_per_dimension == pytest.approx(-found.mean / 6 / log(2))
            assert "bits/dim" in str(found)
        else:
            assert found.dimensions is found.bits_per_dimension is None and "bits" not in str(found)


def test_a_dequantised_density_is_one_of_whole_numbers_but_a_flow_alone_is_not():
    x = RNG.integers(4, size=(20, 6)).astype("float32")
    flow = RealNVP(depth=2, hidden=(4,))
    whole = made(Dequantised(event_shape=(6,), levels=4, prior=FlowPrior(flow=flow)))
    assert whole.elbo(x, k=2).dimensions == 6
    assert made(FlowModel(event_shape=(6,), flow=flow)).elbo(x + 0.5, k=2).dimensions is None
    assert made(PPCA(event_shape=(6,), latent=2)).elbo(x, k=2).dimensions is None


class Two(Program):
    """Two fields: counts of shape (3,), and one number that is whole or real."""

    real: bool = False
    masked: bool = False

    def build(self, c):
        c.param("rate", (3,))

    def model(self, P, x, y):
        with P.plate("data", x):
            there = y >= 0 if self.masked else None
            P.sample("x", P.dist.Poisson(P.xp.exp(P.param("rate"))).to_event(1), obs=x)
            rest = P.dist.Normal(P.full((), 0.0), 1.0) if self.real else P.dist.Bernoulli(logits=P.full((), 0.0))
            P.sample("y", rest, obs=y, mask=there)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_of_your_own_needs_whole_numbers_at_all_its_sites(backend):
    data = {"x": RNG.poisson(1.0, (9, 3)).astype("float32"), "y": RNG.integers(2, size=9).astype("float32")}
    for fields, dimensions in (({}, 4), ({"real": True}, None), ({"masked": True}, None)):
        assert made(Two(**fields), backend).elbo(data).dimensions == dimensions, fields


def pyro_pair(d):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", d(), obs=x)

    return Program.from_pyro(model, None)


def numpyro_pair(d):
    def model(x):
        p = numpyro.param("p", 0.3)
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", d(p), obs=x)

    return Program.from_numpyro(model, None)


def test_plain_pairs():
    x = BITS.reshape(20, 6)
    whole = lambda: pyro.distributions.Bernoulli(torch.full((6,), 0.5)).to_event(1)
    found = Fit(pyro_pair(whole), {}, "pyro").elbo(x)
    assert found.dimensions == 6 and found.bits_per_dimension == pytest.approx(1.0)
    grey = lambda: pyro.distributions.Bernoulli(torch.full((6,), 0.5), validate_args=False).to_event(1)
    assert Fit(pyro_pair(grey), {}, "pyro").elbo(x).dimensions is None  # data may be any numbers
    assert (
        Fit(pyro_pair(lambda: pyro.distributions.Normal(torch.zeros(6), 1.0).to_event(1)), {}, "pyro")
        .elbo(x)
        .dimensions
        is None
    )
    one_hot = lambda: pyro.distributions.OneHotCategorical(torch.full((6,), 1 / 6))
    assert Fit(pyro_pair(one_hot), {}, "pyro").elbo(np.eye(6, dtype="float32")).dimensions is None
    pair = numpyro_pair(lambda p: numpyro.distributions.Bernoulli(p + np.zeros(6)).to_event(1))
    assert Fit(pair, {"p": np.float32(0.5)}, "numpyro").elbo(x).bits_per_dimension == pytest.approx(1.0)


def test_the_diagnosis_shows_them():
    fit = made(VAE(event_shape=(2, 3), latent=2, **NET))
    found = fit.diagnose(BITS, parts="likelihood", k=20)
    bits = f"{found.log_likelihood.bits_per_dimension:.4f} bits/dim"
    assert bits in str(found)
    assert found.table()["log_likelihood"]["bits_per_dimension"] == found.log_likelihood.bits_per_dimension
    real = made(VAE(event_shape=(2, 3), latent=2, likelihood=Gaussian(), **NET)).diagnose(
        BITS, parts="likelihood", k=20
    )
    assert "bits" not in str(real) and real.table()["elbo"]["bits_per_dimension"] is None
    assert key_numbers(found).count("bits/dim") == 3 and bits in key_numbers(found)
    assert "bits" not in key_numbers(real)


def cli(*arguments):
    found = CliRunner().invoke(app, [str(a) for a in arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


def test_the_command_line_shows_them(tmp_path):
    np.save(tmp_path / "x.npy", BITS.reshape(20, 6))
    np.save(tmp_path / "y.npy", RNG.normal(size=(20, 6)).astype("float32"))
    small = ("--set", "program.latent=2", "--set", "data.test=5", "--set", "data.validation=5", "--backend", "pyro")
    runs = tmp_path / "runs"
    for name, file, given in (("whole", "x", ()), ("real", "y", ("--set", "program.likelihood=Gaussian"))):
        said = cli("fit", "vae", "--data", tmp_path / f"{file}.npy", "--steps", 2, "--out", runs / name, *small, *given)
        assert said.count("bits/dim") == (2 if name == "whole" else 0)  # validation and test
        page = json.loads(cli("evaluate", runs / name, "--k", 20, "--json"))
        for part in ("elbo", "log_likelihood"):
            bits = page[part].get("bits_per_dimension")
            assert bits == (pytest.approx(-page[part]["mean"] / 6 / log(2)) if name == "whole" else None)
    found = {r["name"]: r for r in json.loads(cli("runs", runs, "--json"))}
    assert found["whole"]["bits_per_dimension"] == pytest.approx(-found["whole"]["validation"] / 6 / log(2))
    assert found["real"]["bits_per_dimension"] is None
    lines = {line.split()[0]: line for line in cli("runs", runs).splitlines()}
    assert "bits/dim" in lines["run"] and f"{found['whole']['bits_per_dimension']:.4f}" in lines["whole"]
    assert ppdgm.load(runs / "whole").info["dimensions"] == 6 and ppdgm.load(runs / "real").info["dimensions"] is None
