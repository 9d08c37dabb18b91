"""Exact EM: the likelihood never falls, and ends where closed forms and scikit-learn do."""

import tracemalloc
import warnings

import numpy as np
import pytest
from readings import BACKENDS, precision
from scipy.stats import norm
from sklearn import decomposition, mixture
from sklearn.exceptions import ConvergenceWarning

import ppdgm
from ppdgm import Program
from ppdgm.inference import EM
from ppdgm.models import PPCA, FactorAnalysis, GaussianMixture
from ppdgm.models.covariances import regressions
from ppdgm.program import zeros

TYPES = {"full": "full", "diagonal": "diag", "spherical": "spherical", "tied": "tied"}
PROGRAMS = {
    "ppca": PPCA(event_shape=(5,), latent=2),
    "ppca, linear guide, of a shape": PPCA(event_shape=(5, 1), latent=2, posterior="linear"),
    "factor analysis": FactorAnalysis(event_shape=(5,), latent=2),
    "factor analysis, more latents than dimensions": FactorAnalysis(event_shape=(5,), latent=7),
} | {kind: GaussianMixture(event_shape=(5,), components=3, covariance=kind) for kind in TYPES}
every_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
every_covariance = pytest.mark.parametrize("covariance", TYPES)


def factors(rows=300, width=5, seed=0):
    """Two factors, with a noise of its own for each dimension, far from the origin."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.3, 1.0, width) * rng.normal(size=(rows, width))
    return 5.0 + rng.normal(size=(rows, 2)) @ rng.normal(size=(2, width)) + noise


def clusters(rows=300):
    """Three that overlap, each with its own covariance."""
    rng = np.random.default_rng(11)
    roots, means = rng.normal(size=(3, 5, 5)), 2.0 * rng.normal(size=(3, 5))
    which = rng.integers(3, size=rows)
    return np.einsum("nij,nj->ni", roots[which], rng.normal(size=(rows, 5))) + means[which]


def start(program, x, seed=0):
    """First values, moved by noise."""
    rng = np.random.default_rng(seed)
    return {n: v + 0.3 * rng.normal(size=v.shape) for n, v in program.initialise(seed, {"x": x}).items()}


def data(program):
    x = clusters() if isinstance(program, GaussianMixture) else factors()
    return x.reshape(-1, *program.event_shape)


def climb(program, params, x, steps, twist=lambda statistics, params: statistics):
    """The last parameters, and the log-likelihood of the data before each step and at the end."""
    history = []
    for _ in range(steps):
        statistics = program.e_step(params, x)
        history.append(float(statistics["log_likelihood"]))
        params = params | program.m_step(params, twist(statistics, params))
    return params, np.array([*history, float(program.e_step(params, x)["log_likelihood"])])


def fall(history):
    """The largest fall in one step, relative to the log-likelihood."""
    return np.max((history[:-1] - history[1:]) / np.abs(history[:-1]))


# --- what holds for every program ------------------------------------------------------------------------------------


@every_program
def test_the_likelihood_never_falls(program):
    x = data(program)
    params, history = climb(program, start(program, x), x, 200)
    assert fall(history) < 1e-9
    assert history[-1] > history[0] + 0.1 * abs(history[0])  # and there was something to climb
    declared = program.declarations().params
    assert {n: v.shape for n, v in params.items()} == {n: s.shape for n, s in declared.items()}


def spread(params):
    """The covariance of p(z|x)."""
    weight, variance = params["weight"], np.exp(2 * params["log_scale"]) * np.ones(len(params["weight"]))
    return np.linalg.inv(weight.T @ (weight / variance[:, None]) + np.eye(weight.shape[1]))


def without_the_trace(statistics, params):
    """The variance of the noise without that of Wz given x."""
    trace = ((params["weight"] @ spread(params)) * params["weight"]).sum(1)
    return statistics | {"residual": statistics["residual"] - statistics["count"] * trace}


def without_the_spread(statistics, params):
    """E[r]E[z]ᵀ in the place of E[rzᵀ]."""
    cross = statistics["cross"].copy()
    cross[:, :-1] += statistics["count"] * params["weight"] @ spread(params)
    return statistics | {"cross": cross}


def with_wide_covariances(statistics, params):
    return statistics | {"second": 1.1 * statistics["second"]}


def with_means_that_overshoot(statistics, params):
    return statistics | {"first": statistics["first"] + 0.05 * statistics["taken"][:, None]}


LINEAR, MIXTURES = (without_the_trace, without_the_spread), (with_wide_covariances, with_means_that_overshoot)
TWINS = [(name, twin) for name in PROGRAMS for twin in (MIXTURES if name in TYPES else LINEAR) if "more" not in name]


@pytest.mark.parametrize(("name", "twin"), TWINS)
def test_a_wrong_step_lets_it_fall(name, twin):
    """From where the right ones end: from a poor start a wrong step climbs too."""
    program = PROGRAMS[name]
    x = data(program)
    best, _ = climb(program, start(program, x), x, 500)
    assert fall(climb(program, best, x, 20)[1]) < 1e-9
    assert fall(climb(program, best, x, 20, twin)[1]) > 1e-6


@every_program
def test_statistics_add_up_over_chunks(program):
    x = data(program)
    params = start(program, x)
    whole, parts = program.e_step(params, x), [program.e_step(params, part) for part in (x[:100], x[100:])]
    for name, value in whole.items():
        np.testing.assert_allclose(parts[0][name] + parts[1][name], value, rtol=1e-10, atol=1e-10, err_msg=name)
    assert whole["count"] == 300
    exact = program.exact_log_likelihood(params, x).sum()
    assert whole["log_likelihood"] == pytest.approx(exact, rel=1e-12)


@every_program
def test_float32_counts_as_float64(program):
    x = data(program).astype(np.float32)
    params = {n: v.astype(np.float32) for n, v in start(program, x).items()}
    wide = {n: v.astype(float) for n, v in params.items()}
    found = program.m_step(params, program.e_step(params, x))
    expected = program.m_step(wide, program.e_step(wide, x.astype(float)))
    for name, value in expected.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12)


# --- principal components and factors --------------------------------------------------------------------------------


def marginal(params):
    return params["weight"] @ params["weight"].T + np.exp(2 * params["log_scale"]) * np.eye(len(params["loc"]))


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in TYPES])
def test_a_step_is_the_regression_of_data_on_latents(name):
    """Rubin & Thayer's, with z lengthened by a one: W = Σ x E[z]ᵀ (Σ E[zzᵀ])⁻¹, Ψ = diag Σ (x − W E[z]) xᵀ / N."""
    program = PROGRAMS[name]
    x = data(program)
    params, flat = start(program, x), x.reshape(len(x), -1)
    mean, covariance = program.exact_posterior(params, x)
    z = np.hstack([mean, np.ones((len(x), 1))])
    weight = np.linalg.solve(z.T @ z + len(x) * np.pad(covariance, (0, 1)), z.T @ flat).T
    variance = ((flat - z @ weight.T) * flat).mean(0)
    found = program.m_step(params, program.e_step(params, x))
    np.testing.assert_allclose(found["weight"], weight[:, :-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["loc"], weight[:, -1], rtol=0, atol=1e-9)
    expected = variance.mean() if isinstance(program, PPCA) else variance
    np.testing.assert_allclose(np.exp(2 * found["log_scale"]), expected, rtol=1e-9)


def test_ppca_ends_at_maximum_likelihood():
    program, x = PROGRAMS["ppca"], factors()
    params, history = climb(program, start(program, x), x, 1500)
    best = program.maximum_likelihood(x)
    assert history[-1] == pytest.approx(program.exact_log_likelihood(best, x).sum(), rel=1e-8)
    np.testing.assert_allclose(marginal(params), marginal(best), rtol=0, atol=1e-5)
    np.testing.assert_allclose(params["loc"], best["loc"], rtol=0, atol=1e-5)


def test_factor_analysis_ends_where_scikit_learns_does():
    program, x = FactorAnalysis(event_shape=(8,), latent=2), factors(width=8)
    theirs = decomposition.FactorAnalysis(2, tol=1e-12, max_iter=5000, svd_method="lapack").fit(x)
    params, history = climb(program, start(program, x), x, 3000)
    assert history[-1] == pytest.approx(theirs.score_samples(x).sum(), rel=1e-8)
    np.testing.assert_allclose(marginal(params), theirs.get_covariance(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(params["loc"], theirs.mean_, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [PPCA, FactorAnalysis])
def test_wide_data_need_no_square_arrays(kind):
    program, width = kind(event_shape=(3000,), latent=2), 3000
    x = factors(20, width)
    params = start(program, x)
    tracemalloc.start()
    program.m_step(params, program.e_step(params, x))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * width**2 / 10


@pytest.mark.parametrize("kind", [PPCA, FactorAnalysis])
def test_data_without_noise_end_at_the_floor(kind):
    """All on a line, three dimensions constant, and far off."""
    x = factors()
    x[:, 1:] = 1000.0
    x[:, 3] = 2 * x[:, 0]
    program = kind(event_shape=(5,), latent=2)
    params, history = climb(program, start(program, x), x, 200)
    assert np.isfinite(history).all() and fall(history) < 1e-9
    np.testing.assert_allclose(np.exp(2 * params["log_scale"]), 1e-12, rtol=1e-9)


# --- mixtures --------------------------------------------------------------------------------------------------------


def theirs_after(steps, covariance, weights, means, covariances, x):
    """scikit-learn's mixture after so many steps."""
    precisions = 1 / covariances if covariance in ("diagonal", "spherical") else np.linalg.inv(covariances)
    model = mixture.GaussianMixture(
        3, covariance_type=TYPES[covariance], reg_covar=0, tol=0, max_iter=steps, weights_init=weights,
        means_init=means, precisions_init=precisions,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x)


def first_mixture(covariance, x):
    """Weights, means and covariances to start from."""
    variances = np.stack([x.var(0), x.var(0) + 1, x.var(0) + 2])
    first = {
        "full": lambda: 0.5 + np.stack([np.diag(v) for v in variances]),
        "tied": lambda: 0.5 + np.diag(variances[0]),
        "diagonal": lambda: variances,
        "spherical": lambda: variances.mean(1),
    }[covariance]()
    return np.array([0.2, 0.3, 0.5]), x[:3], first


@every_covariance
@pytest.mark.parametrize("steps", [1, 5, 30])
def test_mixtures_equal_scikit_learns_step_for_step(covariance, steps):
    x = clusters()
    first = first_mixture(covariance, x)
    program = GaussianMixture(event_shape=(5,), components=3, covariance=covariance, min_scale=0.0)
    theirs = theirs_after(steps, covariance, *first, x)
    found, history = climb(program, program.parameters(*first), x, steps)
    expected = program.parameters(theirs.weights_, theirs.means_, theirs.covariances_)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-8, err_msg=name)
    assert history[-1] == pytest.approx(theirs.score_samples(x).sum(), rel=1e-10)


@every_covariance
def test_a_floor_is_kept_and_the_likelihood_never_falls(covariance):
    """On repeated data, where a component could fall onto one, and with dimensions that others determine."""
    x = np.repeat(np.random.default_rng(0).integers(4, size=(8, 5)).astype(float), 3, axis=0)
    x[:, 1], x[:, 2] = 3.0, x[:, 0]
    program = GaussianMixture(event_shape=(5,), components=4, covariance=covariance, min_scale=0.05)
    params, history = climb(program, start(program, x), x, 200)
    scale = 0.05 + np.logaddexp(0, params["raw_scale"])
    assert fall(history) < 1e-9
    assert np.isfinite(history).all() and scale.min() == pytest.approx(0.05 + 1e-6, rel=1e-9)


def test_singular_covariances_are_regressions_too():
    """One of rank 2 whose third dimension is a sum and whose fourth is constant, and one that is not singular."""
    root = np.random.default_rng(0).normal(size=(5, 2))
    root[2], root[3] = root[0] + root[1], 0.0
    covariance = np.stack([root @ root.T, root @ root.T + np.eye(5)])
    regression, scale = regressions(covariance)
    rest = np.eye(5) - np.tril(regression, -1)  # the part that counts
    expected = scale[:, :, None] ** 2 * np.eye(5)
    np.testing.assert_allclose(rest @ covariance @ np.swapaxes(rest, 1, 2), expected, rtol=0, atol=1e-13)
    assert (scale[0, :2] > 0.1).all() and (scale[0, 2:] == 0).all() and (scale[1] >= 1).all()


@every_covariance
def test_a_component_without_data_stays_where_it_is(covariance):
    x = clusters()
    program = GaussianMixture(event_shape=(5,), components=3, covariance=covariance)
    params = start(program, x)
    params["loc"][1] = 1e4
    found, history = climb(program, params, x, 20)
    assert fall(history) < 1e-9
    assert all(np.isfinite(v).all() for v in found.values())
    assert (found["loc"][1] == 1e4).all() and np.exp(found["weight_logits"][1]) < 1e-16
    if covariance != "tied":
        for name in params.keys() - {"weight_logits"}:
            np.testing.assert_array_equal(found[name][1], params[name][1])


class Shift(Program):
    """z ~ N(0, 1), x ~ N(z + θ, 1), with closed-form steps of its own."""

    event_shape: tuple[int, ...] = (1,)

    def build(self, c):
        c.param("theta", (1,), zeros, label="model")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z + P.param("theta"), P.full((1,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(0.5 * (x - P.param("theta")), P.full((1,), 0.5**0.5)).to_event(1))

    def e_step(self, params, x):
        off = x - params["theta"]
        log_p = norm(params["theta"], np.sqrt(2.0)).logpdf(x).sum()
        return {"shift": (x - 0.5 * off).sum(0), "count": float(len(x)), "log_likelihood": log_p}

    def m_step(self, params, statistics):
        return {"theta": statistics["shift"] / statistics["count"]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_of_ones_own_with_two_methods(backend):
    x = np.random.default_rng(0).normal(3.0, np.sqrt(2.0), (10_000, 1))
    with precision("float64"):
        fit = ppdgm.fit(Shift(), x, engine=EM(), steps=60, dtype="float64", backend=backend, progress=False)
    assert fit.params["theta"] == pytest.approx(x.mean(0), abs=1e-10)  # halving the way at each step
    assert (np.diff(fit.history["objective"]) > -1e-12).all()
    assert fit.history["objective"][-1] == pytest.approx(norm(x.mean(), np.sqrt(2.0)).logpdf(x).mean(), abs=1e-12)


def test_columns_that_are_constant_or_determined_have_no_part_in_the_others():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(200, 4)), np.full((200, 2), 1 / 3), rng.normal(size=(200, 2))], axis=1)
    x = np.concatenate([x, x[:, :1] + x[:, 1:2]], axis=1)
    program = GaussianMixture(event_shape=(9,), components=2)
    fit = ppdgm.fit(program, x.astype("float32"), engine=EM(), steps=30, progress=False)
    assert np.abs(fit.params["regression"]).max() < 100
    found = fit.elbo(x.astype("float32"))
    assert np.isfinite(found.values).all() and fit.stopped == "done"
    assert found.mean == pytest.approx(fit.history["objective"][-1], abs=2.0)  # float32, of scales at the floor
