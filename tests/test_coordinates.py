"""Coordinate ascent with conjugate blocks: closed forms, a bound that never falls, refusals."""

import numpy as np
import pytest
from readings import BACKENDS
from scipy.special import digamma, gammaln
from scipy.stats import gamma, norm

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError, TrainingError
from ppdgm.inference import CoordinateAscent
from ppdgm.program import constant, normal

RNG = np.random.default_rng(3)
NOISE = 0.5


class Regression(Program):
    """w ~ N(0, I), x_n ~ N(yᵀw, NOISE²), and q(w) = Π_j N(m_j, s_j²): one block for each coefficient."""

    width: int = 3

    def build(self, c):
        c.param("loc", (self.width,), normal(1.0), label="guide")
        c.param("log_scale", (self.width,), label="guide")

    def model(self, P, x, y):
        w = P.sample("w", P.dist.Normal(P.full((self.width,), 0.0), 1.0).to_event(1))
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.xp.sum(y * w, axis=-1), NOISE), obs=x)

    def guide(self, P, x, y):
        P.sample("w", P.dist.Normal(P.param("loc"), P.xp.exp(P.param("log_scale"))).to_event(1))

    def statistics(self, params, x, y):
        x, y = np.asarray(x, float), np.asarray(y, float)
        return {"yy": y.T @ y, "yx": y.T @ x, "xx": x @ x, "n": np.asarray(float(len(x)))}

    def updates(self):
        return [lambda params, s, j=j: self._coefficient(j, params, s) for j in range(self.width)]

    def _coefficient(self, j, params, s):
        precision, linear = np.eye(self.width) + s["yy"] / NOISE**2, s["yx"] / NOISE**2
        loc, log_scale = np.array(params["loc"], float), np.array(params["log_scale"], float)
        others = np.arange(self.width) != j
        loc[j] = (linear[j] - precision[j, others] @ loc[others]) / precision[j, j]
        log_scale[j] = -0.5 * np.log(precision[j, j])
        return {"loc": loc, "log_scale": log_scale}

    def bound(self, params, s):
        m, v = params["loc"], np.exp(2 * params["log_scale"])
        second = np.outer(m, m) + np.diag(v)
        squares = s["xx"] - 2 * m @ s["yx"] + (second * s["yy"]).sum()
        seen = -0.5 * s["n"] * np.log(2 * np.pi * NOISE**2) - 0.5 * squares / NOISE**2
        return float(seen - 0.5 * (v + m**2 - 1 - np.log(v)).sum())


class Unknown(Program):
    """x_n ~ N(μ, 1/τ), μ | τ ~ N(0, 1/(κ τ)), τ ~ Gamma(a, b); q = N(m, 1/r) Gamma(c, d). Bishop 2006, §10.1.3."""

    kappa: float = 0.5
    a: float = 2.0
    b: float = 1.0

    def build(self, c):
        for name in ("m", "log_r", "log_c", "log_d"):
            c.param(name, (), constant(0.3), label="guide")

    def model(self, P, x):
        tau = P.sample("tau", P.dist.Gamma(P.full((), self.a), P.full((), self.b)))
        mu = P.sample("mu", P.dist.Normal(P.full((), 0.0), (self.kappa * tau) ** -0.5))
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(mu, tau**-0.5), obs=x)

    def guide(self, P, x):
        e = lambda name: P.xp.exp(P.param(name))
        P.sample("tau", P.dist.Gamma(e("log_c"), e("log_d")))
        P.sample("mu", P.dist.Normal(P.param("m"), e("log_r") ** -0.5))

    def statistics(self, params, x):
        x = np.asarray(x, float)
        return {"n": np.asarray(float(len(x))), "sum": x.sum(), "squares": x @ x}

    def updates(self):
        return self.mean, self.precision

    def mean(self, params, s):
        tau = np.exp(params["log_c"] - params["log_d"])
        return {"m": s["sum"] / (s["n"] + self.kappa), "log_r": np.log((s["n"] + self.kappa) * tau)}

    def _around(self, params, s):
        """E[κ μ² + Σ (x − μ)²]."""
        second = params["m"] ** 2 + np.exp(-params["log_r"])
        return self.kappa * second + s["squares"] - 2 * params["m"] * s["sum"] + s["n"] * second

    def precision(self, params, s):
        return {
            "log_c": np.log(self.a + 0.5 * (s["n"] + 1)),
            "log_d": np.log(self.b + 0.5 * self._around(params, s)),
        }

    def bound(self, params, s):
        c, d, r = (np.exp(params[n]) for n in ("log_c", "log_d", "log_r"))
        log_tau, tau = digamma(c) - np.log(d), c / d
        seen = 0.5 * (s["n"] + 1) * (log_tau - np.log(2 * np.pi)) + 0.5 * np.log(self.kappa)
        seen -= 0.5 * tau * self._around(params, s)
        prior = self.a * np.log(self.b) - gammaln(self.a) + (self.a - 1) * log_tau - self.b * tau
        return float(seen + prior + gamma(c, scale=1 / d).entropy() + norm(scale=r**-0.5).entropy())


def regression_data(width=3, rows=40):
    rng = np.random.default_rng(width)
    y = rng.normal(size=(rows, width)) @ (np.eye(width) + 0.3 * rng.normal(size=(width, width)))
    return {
        "x": (y @ rng.normal(size=width) + NOISE * rng.normal(size=rows)).astype("float32"),
        "y": y.astype("float32"),
    }


def ascend(program, data, backend, steps):
    fit = ppdgm.fit(program, data, engine=CoordinateAscent(), backend=backend, steps=steps, progress=False)
    climbed = fit.history["elbo"]
    assert (np.diff(climbed) > -1e-9 * np.abs(climbed[1:])).all() and climbed[-1] > climbed[0]
    return fit


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 5])
def test_a_factorised_normal_has_the_exact_means_and_the_conditional_variances(width, backend):
    data = regression_data(width)
    fit = ascend(Regression(width=width), data, backend, 200)
    precision = np.eye(width) + data["y"].astype(float).T @ data["y"] / NOISE**2
    mean = np.linalg.solve(precision, data["y"].astype(float).T @ data["x"] / NOISE**2)
    np.testing.assert_allclose(fit.params["loc"], mean, atol=1e-5)
    np.testing.assert_allclose(np.exp(2 * fit.params["log_scale"]), 1 / np.diag(precision), rtol=1e-5)
    found = fit.elbo(data, k=1000)  # the bound of the run is that of the program
    assert abs(found.mean - fit.history["elbo"][-1]) < 4 * found.monte_carlo_error + 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_normal_with_unknown_mean_and_precision(backend):
    x = (2.0 + 0.7 * RNG.normal(size=30)).astype("float32")
    program = Unknown()
    fit = ascend(program, x, backend, 60)
    n, total, squares = 30.0, x.astype(float).sum(), (x.astype(float) ** 2).sum()
    m, c = total / (n + program.kappa), program.a + 0.5 * (n + 1)
    d = program.b  # the fixed point, by itself: d = b + ½ (S + (κ + n) / r), r = (κ + n) c / d
    scatter = squares - total**2 / (n + program.kappa)
    for _ in range(200):
        d = program.b + 0.5 * (scatter + d / c)
    np.testing.assert_allclose(fit.params["m"], m, rtol=1e-5)
    np.testing.assert_allclose(np.exp(fit.params["log_c"]), c, rtol=1e-5)
    np.testing.assert_allclose(np.exp(fit.params["log_d"]), d, rtol=1e-5)
    np.testing.assert_allclose(np.exp(fit.params["log_r"]), (n + program.kappa) * c / d, rtol=1e-5)
    found = fit.elbo(x, k=3000)
    assert abs(found.mean - fit.history["elbo"][-1]) < 4 * found.monte_carlo_error + 1e-4


def test_a_run_goes_on_where_it_stopped(tmp_path):
    x = RNG.normal(size=20).astype("float32")
    whole = ppdgm.fit(Unknown(), x, engine=CoordinateAscent(), backend="pyro", steps=6, progress=False)
    ppdgm.fit(Unknown(), x, engine=CoordinateAscent(), backend="pyro", steps=3, out=tmp_path / "a", progress=False)
    again = ppdgm.resume(tmp_path / "a", data=x, classes=[Unknown], steps=6, progress=False)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(again.params[name], value)


class Fresh(Program):
    """Two blocks; the second copies what the statistics saw of the first."""

    def build(self, c):
        c.param("a", label="guide")
        c.param("b", label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("a") + P.param("b"), 1.0), obs=x)

    def statistics(self, params, x):
        return {"a": len(x) * params["a"], "n": np.asarray(float(len(x)))}

    def updates(self):
        return (lambda params, s: {"a": params["a"] + 1.0}), (lambda params, s: {"b": s["a"] / s["n"]})

    def bound(self, params, s):
        return 0.0


def test_each_block_has_statistics_at_the_parameters_of_the_blocks_before():
    x = RNG.normal(size=5000).astype("float32")  # more rows than are read at a time
    fit = ppdgm.fit(Fresh(), x, engine=CoordinateAscent(), backend="pyro", steps=2, progress=False)
    assert (fit.params["a"], fit.params["b"]) == (2.0, 2.0)


class Few(Unknown):
    """An update that names no parameter."""

    def updates(self):
        return (lambda params, s: {"mm": 0.0},)


class NoBlocks(Unknown):
    def updates(self):
        return ()


class NoBound(Program):
    def build(self, c):
        c.param("m")

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("m"), 1.0), obs=x)


def test_refusals():
    x = RNG.normal(size=20).astype("float32")
    run = lambda program, **how: ppdgm.fit(
        program, x, engine=CoordinateAscent(), backend="pyro", steps=2, progress=False, **how
    )
    with pytest.raises(ProgramError, match=r"gives 'mm', which build\(\) does not declare"):
        run(Few())
    with pytest.raises(ProgramError, match=r"updates\(\): got \(\), expected"):
        run(NoBlocks())
    with pytest.raises(ProgramError, match=r"NoBound has no statistics, which CoordinateAscent\(\) needs"):
        run(NoBound())
    with pytest.raises(TrainingError, match=r"learning_rate: CoordinateAscent\(\) takes closed-form steps"):
        run(Unknown(), learning_rate=0.1)
    with pytest.raises(TrainingError, match="uses all 20 rows"):
        run(Unknown(), batch_size=5)


def test_a_wrong_update_falls():
    """The same blocks, one with a wrong sign: then the bound falls somewhere."""

    class Wrong(Unknown):
        def precision(self, params, s):
            return {**super().precision(params, s), "log_d": np.log(self.b)}

    x = (2.0 + 0.7 * RNG.normal(size=30)).astype("float32")
    fit = ppdgm.fit(Wrong(), x, engine=CoordinateAscent(), backend="pyro", steps=5, progress=False)
    assert (np.diff(fit.history["elbo"]) < -0.1).any()
