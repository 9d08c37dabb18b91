"""From a fit to ArviZ, leave-one-out for latents of all data, and what of it plain pairs can have."""

import warnings

import numpy as np
import pytest
from planted import LATENT, WIDTH, data, fit_of, log_likelihood
from readings import BACKENDS
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.errors import DataError, ProgramError
from ppdgm.inference import Fit
from ppdgm.models import MLP, ConditionalVAE, Gaussian, HierarchicalVAE, VampPrior
from ppdgm.program import zeros

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

both = pytest.mark.parametrize("backend", BACKENDS)
X = data(23)
GROUPS = {
    "posterior", "sample_stats", "posterior_predictive", "prior", "prior_predictive", "observed_data",
}  # fmt: skip


def groups(found):
    return set(found.groups()) if hasattr(found, "posterior") and callable(found.groups) else set(found.children)


@both
def test_every_group_with_named_axes(backend):
    fit = fit_of(backend=backend)
    found = fit.to_arviz(X, draws=40, predictive=7, prior=50, coords={"datum": [f"d{i}" for i in range(len(X))]})
    assert groups(found) == GROUPS
    z = found.posterior["z"]
    assert z.dims == ("chain", "draw", "datum", "z_dim") and z.shape == (1, 40, len(X), LATENT)
    assert list(z["datum"].values[:2]) == ["d0", "d1"]
    assert found.posterior_predictive["x"].shape == (1, 7, len(X), WIDTH)
    assert found.prior["z"].shape == (1, 50, LATENT) and found.prior_predictive["x"].shape == (1, 50, WIDTH)
    assert np.array_equal(found.observed_data["x"].values, X)
    assert found.posterior.attrs["inference_library"] == backend
    # log p(x, z) = log p(z) + log p(x|z), and the weight is that less log q
    draws = z.values[0]
    prior = norm.logpdf(draws).sum(-1)
    seen = found.sample_stats["log_p_x"].values[0]
    mean = draws @ np.asarray(fit.params["weight"]).T + fit.params["loc"]
    assert np.abs(seen - norm.logpdf(X, mean, np.exp(fit.params["log_scale"])).sum(-1)).max() < 1e-4
    assert np.abs(found.sample_stats["lp"].values[0] - prior - seen).max() < 1e-4
    assert np.abs(found.sample_stats["log_weight"].values[0] - log_likelihood(X)).max() < 1e-3  # an exact guide
    table = arviz.summary(found, var_names=["z"], kind="stats")
    assert len(table) == len(X) * LATENT


def test_arviz_finds_no_leave_one_out_of_each_datums_latents():
    """A guide half as wide as the posterior: az.loo found -3.7 nats a row with k̂ < 0.7, where log p(x) is -6.2."""
    found = fit_of(shrink=0.5).to_arviz(X, draws=40, predictive=0, prior=0)
    with pytest.raises((TypeError, KeyError, ValueError, AttributeError)):
        arviz.loo(found)
    assert "fit.log_likelihood() of held-out data" in found["posterior"].attrs["left_out_log_likelihood"]


@both
def test_predictions_are_of_the_draws_beside_them(backend):
    found = fit_of(backend=backend).to_arviz(X[:3], draws=400, predictive=400, prior=0)
    assert "prior" not in groups(found)
    x, z = found.posterior_predictive["x"].values[0], found.posterior["z"].values[0]
    fit = fit_of()
    off = (x - z @ np.asarray(fit.params["weight"]).T - fit.params["loc"]) / np.exp(fit.params["log_scale"])
    assert abs(off.mean()) < 4 / np.sqrt(off.size) and abs(off.std() - 1) < 4 / np.sqrt(2 * off.size)
    shuffled = x - z[::-1] @ np.asarray(fit.params["weight"]).T - fit.params["loc"]
    assert shuffled.std() > 1.1 * np.exp(fit.params["log_scale"])  # a wrong twin: other draws' predictions


@both
def test_several_sites_and_a_coupled_prior(backend):
    program = HierarchicalVAE(event_shape=(4, 3), latent=(3, 2), levels=MLP(hidden=(4,)), encoder=MLP(hidden=(6,)),
                              decoder=MLP(hidden=(6,)), prior=VampPrior(components=4))  # fmt: skip
    x = (np.random.default_rng(0).random((10, 4, 3)) < 0.5).astype("float32")
    found = Fit(program, program.initialise(0, {"x": x}), backend).to_arviz(x, draws=5, how="importance", k=40)
    assert found.posterior["z1"].dims == ("chain", "draw", "datum", "z1_dim")
    assert found.posterior["z2"].shape == (1, 5, 10, 2)
    assert found.observed_data["x"].dims == ("datum", "x_row", "x_column")
    assert "log_weight" not in found.sample_stats


@both
def test_chains_have_an_axis_of_their_own(backend):
    found = fit_of(backend=backend).to_arviz(X[:2], how="mcmc", draws=30, warmup=30, chains=2, predictive=5, prior=0)
    for group in ("posterior", "sample_stats"):
        assert dict(found[group].sizes)["chain"] == 2 and dict(found[group].sizes)["draw"] == 30
    z, lp = found["posterior"]["z"].values, found["sample_stats"]["lp"].values
    params = fit_of().params
    mean = z @ np.asarray(params["weight"]).T + params["loc"]
    exact = norm.logpdf(z).sum(-1) + norm.logpdf(X[:2], mean, np.exp(params["log_scale"])).sum(-1)
    assert np.abs(lp - exact).max() < 1e-3  # each draw's own, in its own chain
    assert "2 Markov chains" in found["posterior"].attrs["sampling"]


class Mean(Program):
    """θ ~ N(0, 1) for all data, x ~ N(θ, 1)."""

    event_shape: tuple[int, ...] = (1,)

    def build(self, c):
        c.param("loc", (1,), zeros, label="guide")
        c.param("log_scale", (1,), zeros, label="guide")

    def model(self, P, x):
        theta = P.sample("theta", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(theta, P.full((1,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        P.sample("theta", P.dist.Normal(P.param("loc"), P.xp.exp(P.param("log_scale"))).to_event(1))


@both
@pytest.mark.statistical
def test_leave_one_out_where_all_data_share_a_latent(backend):
    x = np.random.default_rng(1).normal(0.5, 1.0, (30, 1)).astype("float32")
    total, n = float(x.sum()), len(x)
    scale = np.sqrt(1.2 / (n + 1))  # somewhat too wide, as guides are not exact
    params = {"loc": np.array([total / (n + 1)]), "log_scale": np.array([np.log(scale)])}
    fit = Fit(Mean(), {k: v.astype("float32") for k, v in params.items()}, backend)
    found = fit.loo(x, draws=4000)
    without = (total - x[:, 0]) / n  # the posterior without a datum is N(Σ/n, 1/n)
    exact = norm.logpdf(x[:, 0], without, np.sqrt(1 + 1 / n))
    assert np.abs(found.values - exact).max() < 0.02
    assert abs(found.elpd.value - exact.sum()) < 4 * found.elpd.error + 1e-3
    plain = norm.logpdf(x[:, 0], params["loc"][0], np.sqrt(1 + scale**2))  # a wrong twin: nothing left out
    assert abs(plain.sum() - exact.sum()) > 10 * found.elpd.error


def test_a_program_without_a_latent_of_each_datum_is_diagnosed_as_far_as_that_goes():
    fit = Fit(Mean(), {"loc": np.zeros(1, "float32"), "log_scale": np.zeros(1, "float32")})
    found = fit.diagnose(X[:, :1], k=40, simulated=50, replicated=10, few=3, refit_steps=5)
    assert {"likelihood", "latents", "surgery"} <= set(found.withheld) and "all rows share" in found.withheld["latents"]
    assert found.pictures.codes == {}
    assert str(found) and found.table()


def test_leave_one_out_is_refused_for_a_latent_of_each_datum():
    with pytest.raises(ProgramError, match=r"each row has its own latent 'z'.*log_likelihood"):
        fit_of().loo(X)
    shared = Fit(Mean(), {"loc": np.zeros(1, "float32"), "log_scale": np.zeros(1, "float32")})
    assert "log_likelihood" in groups(shared.to_arviz(X[:, :1], draws=5, predictive=0))  # there it is well-posed


def test_a_plain_numpyro_pair():
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            loc = z @ numpyro.param("w", 0.5 * jnp.ones((2, WIDTH)))
            numpyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        slope = numpyro.param("a", 0.1 * jnp.ones((WIDTH, 2)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(x @ slope, 0.7).to_event(1))

    _check_pair(Program.from_numpyro(model, guide))


def test_a_plain_pyro_pair():
    import pyro
    import pyro.distributions as dist
    import torch

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ pyro.param("w", 0.5 * torch.ones(2, WIDTH))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        slope = pyro.param("a", 0.1 * torch.ones(WIDTH, 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ slope, torch.tensor(0.7)).to_event(1))

    _check_pair(Program.from_pyro(model, guide))


def _check_pair(pair):
    fit = ppdgm.fit(pair, X, steps=60, batch_size=len(X), learning_rate=0.02, progress=False)
    found = fit.diagnose(X, k=100, draws=5, few=4, refit_steps=60)
    assert set(found.withheld) == {"calibration", "predictive", "annealing"}
    assert "Predictive" in found.withheld["predictive"]
    w = np.asarray(fit.params["w"], float)
    covariance = np.eye(WIDTH) + w.T @ w  # p(x) = N(0, I + wᵀw)
    exact = -0.5 * (
        np.einsum("ni,ij,nj->n", X, np.linalg.inv(covariance), X)
        + np.linalg.slogdet(covariance)[1]
        + WIDTH * np.log(2 * np.pi)
    )
    assert (np.abs(found.gaps.log_likelihood - exact[found.gaps.index]) < 4 * found.gaps.errors + 2e-3).all()
    assert found.use.sites[0].name == "z" and found.surgery.kl.value > 0
    arrays = fit.to_arviz(X, draws=6)
    assert groups(arrays) == GROUPS - {"posterior_predictive", "prior", "prior_predictive"}
    assert "left_out_prior" in arrays.posterior.attrs


def test_data_that_the_program_does_not_take_are_refused():
    for ask in (lambda fit, x: fit.posterior(x), lambda fit, x: fit.to_arviz(x), lambda fit, x: fit.diagnose(x)):
        with pytest.raises(DataError, match="event_shape"):
            ask(fit_of(), X[:, :3])


@both
def test_what_nothing_draws_is_constant_data(backend):
    """ArviZ's posterior predictive plot takes every variable of observed_data, and a label has no predictions."""
    program = ConditionalVAE(event_shape=(WIDTH,), classes=2, latent=1, likelihood=Gaussian(),
                             encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))  # fmt: skip
    rows = {"x": X[:10], "label": np.arange(10) % 2}
    fit = Fit(program, program.initialise(0), backend)
    found = fit.to_arviz(rows, draws=4, predictive=3, prior=2)
    assert set(found.observed_data.data_vars) == set(found.posterior_predictive.data_vars) == {"x"}
    assert found.constant_data["label"].values.tolist() == rows["label"].tolist()
    with pytest.raises(DataError, match=r"coords\['datum'\]: got 9 labels, expected 10, one for each row"):
        fit.to_arviz(rows, coords={"datum": range(9)})
    with pytest.raises(
        DataError, match=r"coords: got .datm., which is not an axis of these arrays\. Did you mean .datum."
    ):
        fit.to_arviz(rows, draws=4, predictive=0, prior=0, coords={"datm": range(10)})
    assert "± nan" not in str(fit.elbo({n: v[:1] for n, v in rows.items()})) + str(
        fit.diagnose({n: v[:1] for n, v in rows.items()}, parts="likelihood", k=40)
    )


class Twice(Program):
    """x and a second measurement of z, which is often missing."""

    def build(self, c):
        c.param("a", (1,))

    def model(self, P, x, y, there):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.param("a")[0] + P.full((), 0.0), 1.0))
            P.sample("x", P.dist.Normal(z, 1.0), obs=x)
            P.sample("y", P.dist.Normal(z, 1.0), obs=y, mask=there)

    def guide(self, P, x, y, there):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(0.5 * x, 1.0))


@both
def test_numbers_that_are_only_filled_in_are_no_observed_data(backend):
    """ArviZ would compare predictions with −99."""
    there = np.arange(10) % 3 == 0
    rows = {"x": X[:10, 0], "y": np.where(there, 1.0, -99.0), "there": there}
    program = Twice()
    found = Fit(program, program.initialise(0), backend).to_arviz(rows, draws=4, predictive=3, prior=2)
    assert set(found.observed_data.data_vars) == {"x"} and set(found.constant_data.data_vars) == {"y", "there"}
    assert "y is observed under a mask" in found.posterior.attrs["left_out_observed_data"]
