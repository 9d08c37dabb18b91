"""Latents that all data share: one draw, and one mean, for all the chunks that data are read in.

θ ~ N(0, 1) is one for all data, z ~ N(θ, 1), x ~ N(z, 1); the guide has z ~ N(θ + x, 0.001), so that z − x is θ.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pyro
import pyro.distributions as pd
import pytest
import torch

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.inference.evaluation import evaluator
from ppdgm.inference.evaluation.information import mutual_information

ROWS = 8  # of a chunk
X = np.random.default_rng(0).normal(size=(2 * ROWS + 3, 1)).astype("float32")


class Shared(Program):
    of_data: bool = False

    def build(self, c):
        c.param("loc", (), lambda rng, shape, data: np.full(shape, 0.5), label="guide")

    def model(self, P, x):
        theta = P.sample("theta", P.dist.Normal(P.full((), 0.0), 1.0))
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(theta[..., None], P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, P, x):
        theta = P.sample("theta", P.dist.Normal(P.param("loc") + (P.xp.mean(x) if self.of_data else 0.0), 1.0))
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(theta[..., None] + x, 0.001).to_event(1))


def torch_pair():
    def model(x):
        theta = pyro.sample("theta", pd.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pd.Normal(theta[..., None] * torch.ones(1), 1.0).to_event(1))
            pyro.sample("x", pd.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        theta = pyro.sample("theta", pd.Normal(0.5, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", pd.Normal(theta[..., None] + x, 0.001).to_event(1))

    return Program.from_pyro(model, guide)


def jax_pair():
    def model(x):
        theta = numpyro.sample("theta", nd.Normal(0.0, 1.0))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", nd.Normal(theta * jnp.ones(1), 1.0).to_event(1))
            numpyro.sample("x", nd.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        theta = numpyro.sample("theta", nd.Normal(0.5, 1.0))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", nd.Normal(theta + x, 0.001).to_event(1))

    return Program.from_numpyro(model, guide)


def own(backend, **fields):
    program = Shared(**fields)
    return ppdgm.Fit(program, program.initialise(0), backend)


FITS = {
    "pyro": lambda: own("pyro"),
    "numpyro": lambda: own("numpyro"),
    "pyro pair": lambda: ppdgm.Fit(torch_pair(), {}, "pyro"),
    "numpyro pair": lambda: ppdgm.Fit(jax_pair(), {}, "numpyro"),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(evaluator, "ROWS", ROWS)


@pytest.mark.parametrize("name", FITS)
def test_draws_and_means_are_one_for_all_chunks(name):
    fit = FITS[name]()
    drawn, means = fit.encode(X, k=5, seed=1), fit.encode(X)
    assert drawn["theta"].shape == (5, 1)
    assert drawn["z"].shape == (5, len(X), 1)
    assert np.ptp(drawn["theta"]) > 0.1
    np.testing.assert_allclose((drawn["z"] - X)[..., 0] - drawn["theta"], 0.0, atol=0.01)
    np.testing.assert_allclose(means["theta"], [0.5], rtol=1e-6)
    np.testing.assert_allclose(means["z"], 0.5 + X, rtol=1e-5)
    assert np.ptp((drawn["z"] - X)[0]) > 0  # and yet each datum has a draw of its own


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_latent_of_all_data_that_is_made_of_the_rows_at_hand_is_refused(backend):
    fit = own(backend, of_data=True)
    assert fit.encode(X[:ROWS])["theta"].shape == (1,)
    with pytest.raises(ProgramError, match="'theta' is one latent for all data"):
        mutual_information(fit._runtime, fit._native, fit._evaluator(X).feed)
    with pytest.raises(
        ProgramError, match=r"theta.* is one latent for all data, but the guide computes it from the current rows"
    ):
        fit.encode(X)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_predictive_checks_see_one_draw_of_what_data_share(backend):
    """Replicated data of all chunks move together: their mean has the spread of θ, and not of an average of θs."""
    fit = own(backend)
    at = fit._evaluator(X)
    drawing, seen = at.drawing(50), []

    def draw(data, index, i):
        z = drawing(data, index, at.stream("latents", i))
        seen.append(z["theta"])
        return fit._runtime.predictive(fit._native, data, index, z, i)

    again = at.over(draw, ROWS)["x"]
    assert again.shape == (50, len(X), 1)
    assert all(np.array_equal(theta, seen[0]) for theta in seen)
    noise = np.sqrt(1.0 / len(X))
    np.testing.assert_allclose(again.mean((1, 2)) - X.mean(), seen[0][:, 0], atol=5 * noise)
