"""Deliberately wrong twins: each statistical check of the oracle tests fails for them, so it can fail."""

import numpy as np
import pytest
from checks import (
    check_bound_rises,
    check_error_is_right,
    check_every_draw,
    check_expected_step,
    check_independent,
    check_minibatches,
    check_padding,
    check_reaches_exact,
    check_single_particle,
    importance_estimate,
)
from measure import measure_steps
from oracle import (
    Shared,
    gradient,
    ppca,
    ppca_draws,
    ppca_elbo,
    ppca_log_likelihood,
    shared_elbo,
    two_latents,
)
from readings import precision

import ppdgm
from ppdgm import SVI

BACKEND = "pyro"  # what is wrong here is so before any backend; pyro compiles nothing
KNOBS = {"beta": np.float32(1.0)}
PROGRAM, PARAMS, X = ppca(np.random.default_rng(4), size=12)
EXACT, ELBO = ppca_log_likelihood(PARAMS, X), ppca_elbo(PARAMS, X)


def terms_of(x, k, seed, shape=None):
    """The trace for draws of the guide with noise of `shape`, (particles, data); its own draws without one."""
    values = None if shape is None else {"z": ppca_draws(PARAMS, x, k, seed, shape)}
    return ppdgm.trace(PROGRAM, PARAMS, x, k=k, backend=BACKEND, seed=seed, values=values)


def log_weights_of(terms):
    return sum(terms.log_p.values()) - sum(terms.log_q.values())


def scale_inside(x, k, seed):
    """N/B multiplies log p before the log-sum-exp, as a subsampled plate does by itself."""
    terms = terms_of(x, k, seed)
    return len(X) / len(x) * sum(terms.log_p.values()) - sum(terms.log_q.values())


def whole_scale_inside(x, k, seed):
    """N/B multiplies log w before the log-sum-exp."""
    return len(X) / len(x) * log_weights_of(terms_of(x, k, seed))


def double_scale(x, k, seed):
    """A scale of 2 inside the log-sum-exp, at any batch size."""
    return 2.0 * log_weights_of(terms_of(x, k, seed))


def without_log_q(x, k, seed):
    return sum(terms_of(x, k, seed).log_p.values())


def one_draw_for_all_particles(x, k, seed):
    return log_weights_of(terms_of(x, k, seed, (1, len(x))))


def one_draw_for_all_data(x, k, seed):
    return log_weights_of(terms_of(x, k, seed, (k, 1)))


def estimate(log_weights):
    return ppdgm.Estimate(*importance_estimate(log_weights), k=len(log_weights))


def spread(weigh, seeds=60, k=200):
    """(mean, Monte Carlo error) of the log-likelihood over seeds."""
    found = [estimate(weigh(X, k, seed)) for seed in range(seeds)]
    return [(e.mean, e.monte_carlo_error) for e in found]


def named(*functions):
    return pytest.mark.parametrize("weigh", functions, ids=lambda f: f.__name__)


def fails(message):
    return pytest.raises(AssertionError, match=message)


# --- with independent draws everything passes: what makes the twins is right ------------------------------------------


def test_right_weights_pass_every_check():
    def weigh(x, k, seed):
        return log_weights_of(terms_of(x, k, seed, (k, len(x))))

    check_single_particle(weigh, X, ELBO, seed=0)
    check_bound_rises(weigh, X, EXACT, seed=0)
    check_reaches_exact(estimate(weigh(X, 10_000, 0)), EXACT)
    check_error_is_right(spread(weigh))
    check_minibatches(weigh, X, 5, seed=0)


# --- importance weights ---------------------------------------------------------------------------------------------


@named(double_scale, without_log_q)
def test_every_draw(weigh):
    program, params, x = ppca(np.random.default_rng(3), posterior="exact")
    terms = ppdgm.trace(program, params, x, k=7, backend=BACKEND)
    log_p, log_q = sum(terms.log_p.values()), sum(terms.log_q.values())
    wrong = {double_scale: 2.0 * (log_p - log_q), without_log_q: log_p}[weigh]
    with fails("relative error"):
        check_every_draw(wrong, program.exact_log_likelihood(params, x), np.abs(log_p) + np.abs(log_q), 1e-5)


@named(double_scale, without_log_q, one_draw_for_all_particles)
def test_single_particle(weigh):
    with fails("errors of"):
        check_single_particle(weigh, X, ELBO, seed=0)


@named(double_scale, without_log_q, one_draw_for_all_particles)
def test_bound_rises(weigh):
    with fails("rises|above|far from"):
        check_bound_rises(weigh, X, EXACT, seed=0, draws=2**15)


@named(double_scale, without_log_q, one_draw_for_all_particles)
def test_reaches_exact(weigh):
    with fails("errors of"):
        check_reaches_exact(estimate(weigh(X, 10_000, 0)), EXACT)


@named(one_draw_for_all_particles, one_draw_for_all_data)
def test_error_is_right(weigh):
    with fails("spread / reported"):
        check_error_is_right(spread(weigh))


@named(scale_inside, whole_scale_inside)
@pytest.mark.parametrize("batch_size", [4, 5])
def test_minibatches(weigh, batch_size):
    with fails("errors of"):
        check_minibatches(weigh, X, batch_size, seed=0)


# --- draws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "over"), [((1, 12), "particles"), ((50, 1), "data")])
def test_independent(shape, over):
    z = ppca_draws(PARAMS, X, 50, 0, shape)
    mean = X @ PARAMS["guide.weight"].T + PARAMS["guide.bias"]
    with fails(f"means over {over}"):
        check_independent((z - mean) / np.exp(PARAMS["guide.log_scale"]))


@pytest.mark.parametrize("site", ["z1", "z2"])
def test_one_draw_of_one_site_for_all_particles(site):
    """As a guide's distribution of batch shape () gives, if it is not expanded."""
    program, params, x, exact = two_latents(np.random.default_rng(0))
    values = dict(ppdgm.trace(program, params, x, k=20_000, backend=BACKEND).values)
    values[site] = np.broadcast_to(values[site][:1], values[site].shape).copy()
    terms = ppdgm.trace(program, params, x, k=20_000, backend=BACKEND, values=values)
    with fails("errors of"):
        check_reaches_exact(estimate(log_weights_of(terms).astype(float)), exact)


# --- training -------------------------------------------------------------------------------------------------------


class SharedPerMinibatch(SVI):
    """A latent for all data counts once in each minibatch, rather than once in N data."""

    def __call__(self, trace, xp, weights, knobs, data_size, *whole):
        return super().__call__(trace, xp, weights, knobs, len(weights), *whole)


class SharedPerDatum(SVI):
    """A latent for all data counts once for each datum."""

    def __call__(self, trace, xp, weights, knobs, data_size, *whole):
        return super().__call__(trace, xp, weights, knobs, 1, *whole)


class DividedByBatch(SVI):
    """The sum over a ragged minibatch's data is divided by B, not by their number."""

    def __call__(self, trace, xp, weights, knobs, data_size, *whole):
        found = super().__call__(trace, xp, weights, knobs, data_size, *whole)
        return {n: v * xp.sum(weights) / len(weights) for n, v in found.items()}


class PaddingCounted(SVI):
    """Padding counts as data."""

    def __call__(self, trace, xp, weights, knobs, data_size, *whole):
        return super().__call__(trace, xp, xp.ones_like(weights), knobs, data_size, *whole)


@pytest.mark.parametrize("wrong", [SharedPerMinibatch, SharedPerDatum, DividedByBatch])
def test_expected_step(wrong):
    program = Shared(event_shape=(2,))
    x, params = np.random.default_rng(1).normal(size=(7, 2)) + 1.0, program.initialise(0, dtype="float64")
    closed = lambda p: shared_elbo(p, x)
    with precision("float64"), fails("errors of"):
        measure = lambda b: measure_steps(program, params, x, wrong(k=64), BACKEND, b)
        check_expected_step(measure, 3, closed(params), gradient(closed, params))


@pytest.mark.parametrize("wrong", [DividedByBatch, PaddingCounted])
def test_padding(wrong):
    weights = np.array([1.0] * 5 + [0.0] * 7)
    z = ppca_draws(PARAMS, X, 3, 0, (3, 12))
    padded, own = (
        ppdgm.trace(PROGRAM, PARAMS, X[:n], k=3, backend=BACKEND, values={"z": z[:, :n].copy()}) for n in (12, 5)
    )
    with fails("with padding"):
        check_padding(wrong(), own, padded, weights, KNOBS, 12)
    check_padding(SVI(), own, padded, weights, KNOBS, 12)
