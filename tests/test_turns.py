"""What engines with turns are for: lagging inference where SVI collapses, and a point estimate of θ under a prior."""

import numpy as np
import pytest
from readings import BACKENDS
from scipy.stats import multivariate_normal

import ppdgm
from ppdgm import Program
from ppdgm.inference import SVI, LaggingInference, Linear, VariationalEM
from ppdgm.inference.evaluation.information import mutual_information
from ppdgm.inference.inputs.feed import Feed
from ppdgm.models import PPCA
from ppdgm.program import zeros
from ppdgm.registry import backend as load_backend

both = pytest.mark.parametrize("backend", BACKENDS)


class FullCovariance(Program):
    """x ~ N(wz + μ, Σ) with any covariance Σ: log p(x) is as high without z as with it."""

    event_shape: tuple[int, ...]

    def build(self, c):
        (width,) = self.event_shape
        for name, shape in (("weight", (width,)), ("loc", (width,)), ("root", (width, width))):
            c.param(name, shape, zeros)
        for name, shape in (("slope", (width, 1)), ("log_scale", (1,))):
            c.param(f"guide.{name}", shape, zeros, label="guide")

    def model(self, P, x):
        root, (width,) = P.param("root"), self.event_shape
        root = root * P.constant(np.tri(width, k=-1)) + P.xp.exp(root) * P.constant(np.eye(width))  # Σ = root rootᵀ
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            mean = z * P.param("weight") + P.param("loc")
            P.sample("x", P.dist.MultivariateNormal(mean, scale_tril=root), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            scale = P.xp.exp(P.param("guide.log_scale"))
            P.sample("z", P.dist.Normal(x @ P.param("guide.slope"), scale).to_event(1))


@both
@pytest.mark.statistical
def test_lagging_inference_keeps_the_information_that_svi_loses(backend):
    rng = np.random.default_rng(0)
    y = 0.1 * (rng.normal(size=(1000, 1)) @ rng.normal(size=(1, 6)) + 0.5 * rng.normal(size=(1000, 6)))
    y = (y - y.mean(0)).astype("float32")
    covariance, program = np.cov(y.T, bias=True), FullCovariance(event_shape=(6,))
    start = PPCA(event_shape=(6,), latent=1).maximum_likelihood(y)
    params = program.initialise(0) | {"weight": start["weight"][:, 0], "root": start["log_scale"] * np.eye(6)}
    params = {n: np.asarray(v, "float32") for n, v in params.items()}
    highest = multivariate_normal.logpdf(y, y.mean(0), covariance).mean()
    kept = {}
    for engine, steps in ((SVI(), 3000), (LaggingInference(window=20, most=20, every=30), 6000)):
        fit = ppdgm.fit(
            program, y, engine=engine, steps=steps, batch_size=200, learning_rate=2e-3, params=params, backend=backend,
            compile=False, progress=False,
        )  # fmt: skip
        w, root = fit.params["weight"], fit.params["root"]
        root = np.tril(root, -1) + np.diag(np.exp(np.diag(root)))
        reached = multivariate_normal.logpdf(y, fit.params["loc"], np.outer(w, w) + root @ root.T).mean()
        assert highest - 0.05 < reached <= highest + 1e-4  # the same likelihood, with z or without
        slope = fit.params["guide.slope"][:, 0] / np.exp(fit.params["guide.log_scale"])
        runtime = load_backend(backend).Runtime(program, "cpu")
        kept[type(engine).__name__] = mutual_information(runtime, runtime.put(fit.params), Feed(runtime, {"x": y}))
        exact = 0.5 * np.log1p(slope @ covariance @ slope)  # for normal data
        assert abs(kept[type(engine).__name__] - exact) < 0.1  # 500 draws: a standard error is some 0.03
    assert kept["SVI"] < 0.05 and kept["LaggingInference"] > 0.8


class Shift(Program):
    """z ~ N(0, 1), x ~ N(z + θ, 1), with θ ~ N(0, τ²) at a point: p(x|θ) = N(θ, 2)."""

    event_shape: tuple[int, ...] = (1,)
    tau: float = 0.3

    def build(self, c):
        c.param("theta", (1,), zeros, label="model")
        for name in ("slope", "loc", "log_scale"):
            c.param(f"guide.{name}", (1,), zeros, label="guide")

    def model(self, P, x):
        theta = P.sample("theta", P.dist.Normal(P.full((1,), 0.0), P.full((1,), self.tau)).to_event(1))
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z + theta, P.full((1,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        P.sample("theta", P.dist.Delta(P.param("theta"), event_dim=1))
        with P.plate("data", x):
            loc = x * P.param("guide.slope") + P.param("guide.loc")
            P.sample("z", P.dist.Normal(loc, P.xp.exp(P.param("guide.log_scale"))).to_event(1))


@both
@pytest.mark.parametrize("engine", [VariationalEM(e_steps=3), SVI()], ids=lambda e: type(e).__name__)
def test_a_point_estimate_under_a_prior_is_the_maximum_a_posteriori(engine, backend):
    x = np.random.default_rng(1).normal(1.0, np.sqrt(2.0), (20, 1)).astype("float32")
    fit = ppdgm.fit(
        Shift(), x, engine=engine, steps=3000, batch_size=20, backend=backend, progress=False, weight_average=0.99,
        learning_rate=Linear(start=0.05, end=1e-4, steps=3000),
    )  # fmt: skip
    best = x.sum() / (len(x) + 2 / 0.3**2)
    assert abs(fit.params["theta"][0] - best) < 0.02 and abs(best - x.mean()) > 0.3  # and not the likelihood's
    assert abs(fit.params["guide.slope"][0] - 0.5) < 0.02  # mean-field, and exact here
    assert abs(np.exp(2 * fit.params["guide.log_scale"][0]) - 0.5) < 0.02
