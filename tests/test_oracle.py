"""PPCA, where everything is known: each bound against the exact value, on both backends."""

import numpy as np
import pytest
from checks import (
    assert_within,
    check_bound_rises,
    check_error_is_right,
    check_every_draw,
    check_independent,
    check_minibatches,
    check_reaches_exact,
    check_single_particle,
)
from oracle import ppca, ppca_elbo, ppca_log_likelihood, two_latents, weigher
from readings import BACKENDS, precision
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

import ppdgm
from ppdgm.errors import DataError
from ppdgm.models import PPCA

SIZES = [((16,), 3), ((2, 3), 4), ((1,), 1), ((2,), 5)]  # event shape, width of z
both = pytest.mark.parametrize("backend", BACKENDS)
statistical = pytest.mark.statistical


def make(seed=0, **options):
    return ppca(np.random.default_rng(seed), **options)


def make_fit(program, params, backend):
    return ppdgm.Fit(program=program, params=params, backend=backend, device="cpu")


# --- the closed forms themselves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "latent"), SIZES)
def test_closed_forms_are_those_of_the_joint_gaussian(shape, latent):
    program, params, x = make(latent, posterior="exact", shape=shape, latent=latent, dtype="float64")
    w, loc, width = params["weight"], params["loc"], int(np.prod(shape))
    joint = np.block([[np.eye(latent), w.T], [w, w @ w.T + np.exp(2 * params["log_scale"]) * np.eye(width)]])
    zz, zx, xx = joint[:latent, :latent], joint[:latent, latent:], joint[latent:, latent:]
    gain = zx @ np.linalg.inv(xx)
    flat = x.reshape(len(x), width)

    mean, covariance = program.exact_posterior(params, x)
    np.testing.assert_allclose(mean, (flat - loc) @ gain.T, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(covariance, zz - gain @ zx.T, rtol=1e-9, atol=1e-10)
    expected = multivariate_normal(loc, xx).logpdf(flat)
    np.testing.assert_allclose(program.exact_log_likelihood(params, x), expected, rtol=1e-10)


def test_maximum_likelihood_is_that_of_principal_components():
    program, _, x = make(1, posterior="exact", shape=(3, 2), latent=2, size=60, dtype="float64")
    best, pca = program.maximum_likelihood(x), PCA(2).fit(x.reshape(60, 6))
    covariance = best["weight"] @ best["weight"].T + np.exp(2 * best["log_scale"]) * np.eye(6)
    biased = 59 / 60  # scikit-learn divides by N − 1
    assert np.exp(2 * best["log_scale"]) == pytest.approx(pca.noise_variance_ * biased, rel=1e-10)
    np.testing.assert_allclose(covariance, pca.get_covariance() * biased, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(best["loc"], pca.mean_, rtol=1e-10)
    # scikit-learn's own score, at its slightly larger covariance, is a little less.
    assert (
        pca.score(x.reshape(60, 6)) < program.exact_log_likelihood(best, x).mean() < pca.score(x.reshape(60, 6)) + 0.01
    )


def test_maximum_likelihood_is_where_an_optimiser_ends():
    program, _, x = make(2, posterior="exact", shape=(4,), latent=1, size=40, dtype="float64")
    cuts = np.cumsum([4, 4])

    def loss(flat):
        weight, loc, log_scale = np.split(flat, cuts)
        values = {"weight": weight.reshape(4, 1), "loc": loc, "log_scale": log_scale[0]}
        return -ppca_log_likelihood(values, x).mean()

    found = minimize(loss, np.random.default_rng(3).normal(size=9), options={"gtol": 1e-7})
    best = ppca_log_likelihood(program.maximum_likelihood(x), x).mean()
    assert -found.fun == pytest.approx(best, abs=1e-8)


def test_maximum_likelihood_needs_data_wider_than_the_latent():
    with pytest.raises(DataError, match="more than the latent width 3"):
        PPCA(event_shape=(3,), latent=3).maximum_likelihood(np.zeros((5, 3)))


# --- the exact guide ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize(("shape", "latent"), SIZES)
def test_exact_guide_weighs_every_draw_alike(backend, shape, latent, dtype, tolerance):
    program, params, x = make(latent, posterior="exact", shape=shape, latent=latent, dtype=dtype)
    fit = make_fit(program, params, backend)
    with precision(dtype):
        terms = ppdgm.trace(program, params, x, k=7, backend=backend, seed=1)
        log_weights, estimate = fit.log_weights(x, k=7, seed=2), fit.log_likelihood(x, k=7)
    log_p, log_q = (sum(t.values()).astype(float) for t in (terms.log_p, terms.log_q))
    assert len(np.unique(terms.values["z"].round(6), axis=0)) == 7  # the draws do differ
    exact, magnitude = program.exact_log_likelihood(params, x), np.abs(log_p) + np.abs(log_q)
    check_every_draw(log_p - log_q, exact, magnitude, tolerance)
    check_every_draw(log_weights, exact, magnitude.mean(0), tolerance)
    check_every_draw(estimate.values, exact, magnitude.mean(0), tolerance)  # so, for any number of draws
    assert np.all(estimate.errors <= 10 * tolerance * magnitude.mean(0))


@both
def test_exact_guide_draws_from_the_posterior(backend):
    program, params, x = make(3, posterior="exact", size=6)
    mean, covariance = program.exact_posterior(params, x)
    z = make_fit(program, params, backend).encode(x, k=20_000, seed=0)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (z - mean)[..., None])[..., 0]
    check_independent(whitened)
    assert_within((whitened[..., 0] * whitened[..., 1]).mean(), 0.0, (6 * 20_000) ** -0.5, "correlation")
    assert_within((whitened**2).mean(), 1.0, (2 / whitened.size) ** 0.5, "variance")


# --- the linear guide -----------------------------------------------------------------------------------------------


@both
@statistical
def test_one_particle_gives_the_elbo(backend):
    program, params, x = make(4)
    exact, fit = ppca_elbo(params, x), make_fit(program, params, backend)
    check_single_particle(weigher(program, params, backend), x, exact, seed=0)
    estimate = fit.elbo(x, k=4000, seed=5)
    assert_within(estimate.mean, exact.mean(), estimate.monte_carlo_error, small=True)
    assert_within(estimate.values, exact, estimate.errors)


@both
@statistical
def test_bound_rises_to_the_exact_value(backend):
    program, params, x = make(4)
    exact = ppca_log_likelihood(params, x)
    check_bound_rises(weigher(program, params, backend), x, exact, seed=0)
    check_reaches_exact(make_fit(program, params, backend).log_likelihood(x, k=10_000), exact)


@both
@statistical
def test_chunks_of_particles_and_data_reach_the_exact_value_too(backend):
    program, params, x = make(5, size=11)
    fit = make_fit(program, params, backend)
    estimate = fit.log_likelihood(x, k=2500, memory="100 KiB")
    assert not np.array_equal(estimate.values, fit.log_likelihood(x, k=2500).values)  # it was cut in chunks
    check_reaches_exact(estimate, ppca_log_likelihood(params, x))


@both
@statistical
@pytest.mark.parametrize("quantity", ["elbo", "log_likelihood"])
def test_monte_carlo_error_is_the_spread_over_seeds(backend, quantity):
    program, params, x = make(4, size=8)
    estimate = getattr(make_fit(program, params, backend), quantity)
    found = [estimate(x, k=200, seed=seed) for seed in range(60)]
    check_error_is_right([(e.mean, e.monte_carlo_error) for e in found])


def test_standard_error_is_that_of_a_mean_over_data():
    _, params, x = make(4, size=50)
    values = ppca_log_likelihood(params, x)
    estimate = ppdgm.Estimate(values, np.zeros(50), 1)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.standard_error == pytest.approx(np.sqrt(((values - values.mean()) ** 2).sum() / 49 / 50))


@both
@statistical
@pytest.mark.parametrize("batch_size", [4, 5])
def test_bounds_of_minibatches_average_to_the_full_one(backend, batch_size):
    program, params, x = make(4, size=12)
    check_minibatches(weigher(program, params, backend), x, batch_size, seed=0)


# --- a guide that does not look at the data --------------------------------------------------------------------------


@both
@statistical
def test_sites_that_do_not_depend_on_data_reach_the_exact_value(backend):
    program, params, x, exact = two_latents(np.random.default_rng(0))
    check_reaches_exact(make_fit(program, params, backend).log_likelihood(x, k=60_000), exact)


@both
@statistical
def test_sites_that_do_not_depend_on_data_are_drawn_for_each_particle_and_datum(backend):
    program, params, x, _ = two_latents(np.random.default_rng(0), size=40)
    z = ppdgm.trace(program, params, x, k=50, backend=backend, seed=0).values
    noise = {site: (z[site] - params[f"{site}.loc"]) / np.exp(params[f"{site}.log_scale"]) for site in ("z1", "z2")}
    check_independent(noise["z1"])
    check_independent(noise["z2"])
    assert_within((noise["z1"] * noise["z2"]).mean(), 0.0, noise["z1"].size ** -0.5, "correlation of the sites")
