"""Latents that all data share: one log-weight for the whole set, and their draws for ArviZ, with right values by hand.

x_n ~ N(m + z_n, σ²), z_n ~ N(0, 1), m ~ N(0, 4): X is normal with covariance (σ² + 1) I + 4.
"""

import importlib

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import ppdgm
from ppdgm import Program
from ppdgm.errors import PpdgmError, ProgramError

N, SCALE = 12, 0.7
X = (np.random.default_rng(0).normal(size=N) * 1.3 + 0.8).astype("float32")
LIBRARIES = {"numpyro": (numpyro, numpyro_dist, jnp), "pyro": (pyro, pyro_dist, torch)}
SPREAD = 1 + SCALE**2


def fitted(backend, shared=True):
    """A guide that is the posterior: q(m) with its moments, and z_n given m."""
    lib, dist, xp = LIBRARIES[backend]
    variance = 1 / (1 / 4 + N / SPREAD)
    mean = variance * X.sum() / SPREAD

    def model(x):
        m = lib.sample("m", dist.Normal(xp.zeros(()), 2.0)) if shared else 0.0
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(0.0 * x, 1.0))
            lib.sample("x", dist.Normal(m + z, SCALE), obs=x)

    def guide(x):
        wide = lib.param("wide", xp.ones(()) * 1.3)  # wider than the posterior: no exact guide
        m = lib.sample("m", dist.Normal(xp.zeros(()) + mean, wide * variance**0.5)) if shared else 0.0
        with lib.plate("data", len(x)):
            lib.sample("z", dist.Normal((x - m) / SPREAD, wide * SCALE / SPREAD**0.5))

    pair = getattr(Program, f"from_{backend}")(model, guide)
    return ppdgm.fit(pair, X, steps=1, learning_rate=1e-9, progress=False)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_the_set_has_one_bound(backend):
    fit = fitted(backend)
    found = fit.log_evidence(X, k=4000)
    right = multivariate_normal(np.zeros(N), SPREAD * np.eye(N) + 4.0).logpdf(X)
    assert found.pareto_k < 0.7 and 0 < found.monte_carlo_error < 0.2
    assert found.value == pytest.approx(right, abs=4 * found.monte_carlo_error)
    assert "all N = 12 rows together" in str(found)
    assert fit.elbo(X, k=200).mean * N < right
    with pytest.raises(ProgramError, match=r"log_evidence"):
        fit.log_likelihood(X)
    with pytest.raises(ProgramError, match="there are none"):
        fitted(backend, shared=False).log_evidence(X)
    with pytest.raises(PpdgmError, match="k: got 29; expected a whole number of particles, at least 30"):
        fit.log_evidence(X, k=29)


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("how", ["guide", "importance"])
def test_what_all_rows_share_goes_to_arviz(how, backend):
    fit = fitted(backend)
    idata = fit.to_arviz(X, draws=500, how=how, k=4000)
    m, z = idata["posterior"]["m"], idata["posterior"]["z"]
    assert m.dims == ("chain", "draw") and z.dims == ("chain", "draw", "datum")
    seen = idata["sample_stats"]["log_p_x"].values[0]
    expected = norm(m.values[0][:, None] + z.values[0], SCALE).logpdf(X)
    np.testing.assert_allclose(seen, expected, atol=1e-3)
    spread = (1 / (1 / 4 + N / SPREAD)) ** 0.5 * (1.3 if how == "guide" else 1.0)
    assert m.values.std() == pytest.approx(spread, rel=0.15)
    if how == "guide":
        assert idata["sample_stats"]["log_weight"].dims == ("chain", "draw")


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("guide", ["AutoNormal", "AutoMultivariateNormal"])
def test_the_bound_of_an_autoguide_does_not_depend_on_chunks(guide, backend, monkeypatch):
    """It draws u and puts m at f(u): the chunks after the first have this m, and no u of their own."""
    lib, dist, xp = LIBRARIES[backend]

    def model(x):
        m = lib.sample("m", dist.HalfNormal(xp.ones(()) * 2.0))
        with lib.plate("data", len(x)):
            lib.sample("x", dist.Normal(m, SCALE), obs=x)

    auto = getattr(importlib.import_module(f"{backend}.infer.autoguide"), guide)(model)
    fit = ppdgm.fit(getattr(Program, f"from_{backend}")(model, auto), X, steps=100, learning_rate=0.05, progress=False)
    at_once = fit.log_evidence(X, k=100)
    monkeypatch.setattr(
        "ppdgm.inference.evaluation.whole_set.CHUNK_DRAWS", 500
    )  # 5 rows in a chunk, and the last one filled up
    assert fit.log_evidence(X, k=100).value == pytest.approx(at_once.value, rel=1e-5)
    loc = np.linspace(0, 12, 24_001)
    density = norm(loc[:, None], SCALE).logpdf(X).sum(1) + norm(0, 2).logpdf(loc) + np.log(2)
    right = logsumexp(density) + np.log(loc[1])
    assert at_once.value == pytest.approx(right, abs=max(0.02, 4 * at_once.monte_carlo_error))


@pytest.mark.parametrize("backend", LIBRARIES)
def test_leaving_one_out_weighs_the_draws_of_the_first_chunk(backend):
    """An exact guide: m, then v = c + s u at a point that carries u. In a later chunk u is another one."""
    lib, dist, xp = LIBRARIES[backend]
    x, y = np.random.default_rng(1).normal([[0.3], [-1.0]], size=(2, 300)).astype("float32")
    precision = 0.25 + 300 / SCALE**2  # of the posterior of m, and of v
    means = [float(a.sum() / SCALE**2 / precision) for a in (x, y)]

    def model(x, y):
        m, v = (lib.sample(n, dist.Normal(xp.zeros(()), 2.0)) for n in "mv")
        with lib.plate("data", len(x)):
            lib.sample("x", dist.Normal(m, SCALE), obs=x)
            lib.sample("y", dist.Normal(v, SCALE), obs=y)

    def guide(x, y):
        scale = lib.param("scale", xp.ones(()) * precision**-0.5)
        lib.sample("m", dist.Normal(xp.zeros(()) + means[0], scale))
        u = lib.sample("u", dist.Normal(xp.zeros(()), 1.0), infer={"is_auxiliary": True})
        lib.sample("v", dist.Delta(means[1] + scale * u, log_density=-xp.log(scale)))

    rows = {"x": x, "y": y}
    fit = ppdgm.fit(getattr(Program, f"from_{backend}")(model, guide), rows, steps=1, learning_rate=0.0, progress=False)
    found, right = fit.loo(rows, draws=500), 0.0
    for a, mean in zip((x.astype(float), y.astype(float)), means, strict=True):
        rest = precision - 1 / SCALE**2
        right += norm((mean * precision - a / SCALE**2) / rest, (SCALE**2 + 1 / rest) ** 0.5).logpdf(a).sum()
    assert found.elpd.value == pytest.approx(right, abs=4 * found.elpd.error)
    assert found.elpd.error < 0.15 and not found.guide_k > 0.3  # constant weights have no tail


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_point_leaves_nothing_out(backend):
    """All draws are one: log p(x_n | θ̂) of every row was reported, without an error."""
    lib, dist, xp = LIBRARIES[backend]

    def model(x):
        m = lib.sample("m", dist.Normal(xp.zeros(()), 2.0))
        with lib.plate("data", len(x)):
            lib.sample("x", dist.Normal(m, SCALE), obs=x)

    for guide in ("AutoDelta", "AutoLaplaceApproximation"):
        auto = getattr(importlib.import_module(f"{backend}.infer.autoguide"), guide)(model)
        fit = ppdgm.fit(getattr(Program, f"from_{backend}")(model, auto), X, steps=1, progress=False)
        with pytest.raises(ProgramError, match="Site 'm': the guide is a point mass there"):
            fit.loo(X)


class Line(Program):
    """t ~ N(w0 + w1 x, 0.5²) for all rows, w ~ N(0, I), and with `twice` an observed u ~ N(w0, 1)."""

    event_shape: tuple[int, ...] = (1,)
    twice: bool = False

    def build(self, c):
        c.param("loc", (2,), lambda rng, shape, data: np.array([0.6, 0.6]), label="guide")
        c.param("log_scale", (2,), lambda rng, shape, data: np.full(2, -2.0), label="guide")

    def model(self, P, x, t):
        w = P.sample("w", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
        with P.plate("data", x):
            P.sample("t", P.dist.Normal(w[..., :1] + w[..., 1:] * x, P.full((1,), 0.5)).to_event(1), obs=t)
            if self.twice:
                P.sample("x", P.dist.Normal(w[..., :1] + 0 * x, P.full((1,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x, t):
        P.sample("w", P.dist.Normal(P.param("loc"), P.xp.exp(P.param("log_scale"))).to_event(1))


@pytest.mark.parametrize("backend", LIBRARIES)
def test_coefficients_of_a_regression_go_to_arviz_by_their_names(backend):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 1)) + 1.0
    rows = {"x": x.astype("float32"), "t": (0.3 + 0.8 * x + 0.5 * rng.normal(size=(30, 1))).astype("float32")}
    fit = ppdgm.inference.Fit(Line(), Line().initialise(0), backend)
    found = fit.to_arviz(rows, draws=2000, how="importance", k=40_000, coords={"w_dim": ["w0", "w1"]})
    w = found["posterior"]["w"]
    assert w.dims == ("chain", "draw", "w_dim") and list(w.coords["w_dim"].values) == ["w0", "w1"]
    design = np.hstack([np.ones_like(x), x])
    covariance = np.linalg.inv(np.eye(2) + design.T @ design / 0.25)
    mean, sd = covariance @ design.T @ rows["t"][:, 0] / 0.25, np.sqrt(np.diag(covariance))
    error = sd * (1 / 2000 + 1 / 22_000) ** 0.5  # of the draws, and of 22,000 effective ones that they come from
    assert (np.abs(w.values[0].mean(0) - mean) < 4 * error).all()
    assert np.corrcoef(w.values[0].T)[0, 1] == pytest.approx(covariance[0, 1] / sd.prod(), abs=0.08)
    seen = found["log_likelihood"]["t"]
    assert seen.dims == ("chain", "draw", "datum") and list(found["log_likelihood"]) == ["t"]
    right = norm(w.values[0] @ design.T, 0.5).logpdf(rows["t"][:, 0])
    np.testing.assert_allclose(seen.values[0], right, rtol=1e-4, atol=1e-4)
    assert found["posterior_predictive"]["t"].dims == ("chain", "draw", "datum", "t_dim")
    assert list(found["observed_data"]) == ["t"] and list(found["constant_data"]) == ["x"]
    assert "All rows share w" in found["posterior"].attrs["left_out_prior"]
    both = ppdgm.inference.Fit(Line(twice=True), Line().initialise(0), backend).to_arviz(rows, draws=5, predictive=0)
    assert list(both["log_likelihood"]) == ["joint"]
    two = norm(both["posterior"]["w"].values[0][:, :1], 1.0).logpdf(x[:, 0])
    two = two + norm(both["posterior"]["w"].values[0] @ design.T, 0.5).logpdf(rows["t"][:, 0])
    np.testing.assert_allclose(both["log_likelihood"]["joint"].values[0], two, rtol=1e-4, atol=1e-3)
    with pytest.raises(PpdgmError, match=r"outside the data plate.*how='importance'"):
        fit.to_arviz(rows, how="mcmc")
