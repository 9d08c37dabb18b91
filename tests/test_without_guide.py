"""Programs and pairs without a guide: nothing is left to draw, and the bound is log p(x), "exact"."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.cli import main
from ppdgm.errors import ProgramError
from ppdgm.models import MLP, VAE

BACKENDS = ("numpyro", "pyro")
RNG = np.random.default_rng(0)
LEFT, RIGHT = RNG.normal(-2.0, 0.5, (300, 1)), RNG.normal(1.0, 0.8, (300, 1))
X = np.where(RNG.random((300, 1)) < 0.3, LEFT, RIGHT).astype("float32")


class Mixture(Program):
    """x | c ~ N(μ_c, σ_c²) with c summed out; trained by gradient."""

    event_shape: tuple[int, ...] = (1,)

    def build(self, context):
        context.param("logits", (2,), lambda rng, shape, data: np.zeros(shape))
        context.param("loc", (2,), lambda rng, shape, data: np.array([-1.0, 1.0]))
        context.param("log_scale", (2,), lambda rng, shape, data: np.zeros(shape))

    def model(self, P, x):
        with P.plate("data", x):
            c = P.sample("c", P.dist.Categorical(logits=P.param("logits")), infer={"enumerate": "parallel"})
            loc, scale = P.param("loc")[c], P.xp.exp(P.param("log_scale"))[c]
            P.sample("x", P.dist.Normal(loc[..., None], scale[..., None]).to_event(1), obs=x)


class Latent(Program):
    event_shape: tuple[int, ...] = (1,)

    def build(self, context):
        context.param("loc", (1,), lambda rng, shape, data: np.zeros(shape))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.param("loc"), P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z, P.full((1,), 1.0)).to_event(1), obs=x)


def log_density(params, x):
    weights = params["logits"] - logsumexp(params["logits"])
    return logsumexp(weights + norm.logpdf(x, params["loc"], np.exp(params["log_scale"])), axis=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mixture_by_gradient(backend, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", X)
    settings = {"steps": 400, "batch_size": 100, "learning_rate": 0.03, "progress": False, "compile": False}
    fit = ppdgm.fit(Mixture(), X, backend=backend, validation=X[:50], out=tmp_path / "run", **settings)
    right = log_density(fit.params, X)
    for found in (fit.elbo(X), fit.log_likelihood(X, k=20)):
        np.testing.assert_allclose(found.values, right, rtol=1e-5, atol=1e-5)
        assert found.exact and str(found).endswith("(N = 300, exact)")
        assert found.monte_carlo_error == found.bias == 0.0
    start = log_density({n: np.asarray(v) for n, v in Mixture().initialise(0).items()}, X)
    assert right.mean() > start.mean() + 0.1
    np.testing.assert_allclose(np.sort(fit.params["loc"]), [-2.0, 1.0], atol=0.25)
    verdict = str(fit.diagnose(X, parts=("likelihood",), k=20))
    assert f"log p(x) = {right.mean():.2f}" in verdict and "(exact)" in verdict
    drawn = fit.sample(2000)
    assert abs(drawn.mean() - X.mean()) < 5 * X.std() * (1 / 2000 + 1 / 300) ** 0.5
    ppdgm.load(tmp_path / "run", classes=[Mixture])
    where = ["--program", f"{__file__}:Mixture", "--data", str(tmp_path / "x.npy"), "--json", "--k", "5"]
    monkeypatch.setattr(sys, "argv", ["ppdgm", "evaluate", str(tmp_path / "run"), *where])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    said = json.loads(capsys.readouterr().out)
    assert said["elbo"]["exact"] and said["elbo"]["mean"] == pytest.approx(right.mean(), abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_latent_without_a_guide_is_refused(backend):
    with pytest.raises(ProgramError, match=r"'z' is latent in the model, but the guide does not draw it.*none"):
        ppdgm.fit(Latent(), X, backend=backend, steps=1, progress=False)


def test_draws_are_not_exact():
    program = VAE(event_shape=(1,), latent=1, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
    fit = ppdgm.fit(program, (X > 0).astype("float32"), steps=2, progress=False)
    assert not fit.elbo((X > 0).astype("float32"), k=5).exact


def plain(backend):
    """A density with two parameters, as each library writes it."""
    if backend == "pyro":
        import pyro as lib
        import torch as xp
        from pyro import distributions as dist
    else:
        import jax.numpy as xp
        import numpyro as lib
        from numpyro import distributions as dist

    def model(x):
        loc, log_scale = lib.param("loc", xp.zeros(1)), lib.param("log_scale", xp.zeros(1))
        with lib.plate("data", len(x)):
            lib.sample("x", dist.Normal(loc, xp.exp(log_scale)).to_event(1), obs=x)

    return (Program.from_pyro if backend == "pyro" else Program.from_numpyro)(model)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plain_model_without_a_guide(backend):
    fit = ppdgm.fit(plain(backend), X, steps=600, batch_size=300, learning_rate=0.02, progress=False)
    loc, scale = fit.params["loc"], np.exp(fit.params["log_scale"])
    found = fit.elbo(X)
    np.testing.assert_allclose(found.values, norm.logpdf(X, loc, scale)[:, 0], rtol=1e-5, atol=1e-5)
    assert found.exact
    np.testing.assert_allclose([loc[0], scale[0]], [X.mean(), X.std()], rtol=0.02, atol=0.02)


class Bit(Program):
    """A discrete latent whose draws are nearly all alike, and a guide that is not exact."""

    event_shape: tuple[int, ...] = (1,)

    def build(self, context):
        context.param("logit", (1,), lambda rng, shape, data: np.full(shape, -8.0), label="guide")
        context.param("loc", (1,), lambda rng, shape, data: np.ones(shape))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Bernoulli(logits=P.full((1,), 0.0)).to_event(1))
            P.sample("x", P.dist.Normal(P.param("loc") * z, P.full((1,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Bernoulli(logits=P.param("logit")).to_event(1))


class Point(Latent):
    """A guide that is a point: its bound is a density of x and z there."""

    def build(self, context):
        super().build(context)
        context.param("at", (1,), lambda rng, shape, data: np.zeros(shape), label="guide")

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Delta(P.param("at")).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", [Bit, Point])
def test_draws_that_are_all_alike_are_not_exact(program, backend):
    """Few draws of a discrete latent, and points: the same number each time, and not log p(x)."""
    fit = ppdgm.fit(program(), X[:3], backend=backend, steps=1, learning_rate=0.0, progress=False)
    found = fit.elbo(X[:3], k=4)
    assert (found.errors == 0).all() and not found.exact and "exact" not in str(found)
    if program is Bit:
        assert not fit.log_likelihood(X[:3], k=4).exact
        assert "(exact)" not in str(fit.diagnose(X[:3], parts=("likelihood",), k=4))
    else:
        assert "with z at a point" in str(found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_program_in_contributing(backend):
    """Its text runs as it stands, and its ELBO is the closed form, "exact"."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = {"Program": Program}
    exec(re.search(r"```python\n(class TwoNormals.*?)```", text, re.S)[1], names)
    fit = ppdgm.fit(names["TwoNormals"](), X, backend=backend, steps=5, progress=False, compile=False)
    found = fit.elbo(X)
    exact = logsumexp(norm.logpdf(X, fit.params["loc"]), axis=1) - np.log(2)
    assert found.mean == pytest.approx(exact.mean(), abs=1e-5) and "exact" in str(found)
