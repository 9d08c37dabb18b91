"""Evaluation in chunks: within the memory that was given, with the same estimand; estimates that say what they are."""

from dataclasses import replace

import numpy as np
import pytest
from checks import check_error_is_right
from planted import data, fit_of, log_likelihood

import ppdgm
from ppdgm.errors import PpdgmError
from ppdgm.inference.evaluation.estimates import Estimate, parse_memory
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.inference.inputs.feed import Feed
from ppdgm.models import MLP, VAE
from ppdgm.registry import backend as load_backend

BACKENDS = ("numpyro", "pyro")
X = (np.random.default_rng(0).random((50, 30)) < 0.5).astype("float32")
PROGRAM = VAE(event_shape=(30,), latent=3, encoder=MLP(hidden=(40,)), decoder=MLP(hidden=(40,)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("memory", "k"), [(20_000, 1), (200_000, 1), (200_000, 500), (5_000_000, 500)])
def test_chunks_fit_the_memory(backend, memory, k):
    """What a chunk's reading writes stays within the limit, and isn't a tenth of it where there is more to do."""
    runtime = load_backend(backend).Runtime(PROGRAM)
    params, feed = runtime.put(PROGRAM.initialise(0)), Feed(runtime, {"x": X})
    particles, rows = Evaluator(runtime, params, feed, memory)._plan(k)
    written = runtime.bytes_written(params, feed.native, particles, rows)
    assert written <= memory * 1.25 or (particles, rows) == (1, 1)
    assert written > 0.1 * memory or (particles, rows) == (k, len(X))
    for whole, part in ((len(X), rows), (k, particles)):  # hardly more is computed than is asked
        chunks = -(-whole // part)
        assert chunks * part - whole < chunks


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_changes_draws_only(backend):
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), backend)
    whole, cut = fit.log_likelihood(X, k=2000), fit.log_likelihood(X, k=2000, memory="300 kB")
    assert not np.array_equal(whole.values, cut.values)
    assert abs(whole.mean - cut.mean) < 4 * np.hypot(whole.monte_carlo_error, cut.monte_carlo_error)
    assert np.array_equal(fit.log_weights(X, k=3, seed=1), ppdgm.log_weights(PROGRAM, fit.params, X, 3, backend, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_log_likelihood_reduces_the_log_weights(backend):
    """In NumPy, by hand, from the same draws."""
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), backend)
    weights = np.exp(fit.log_weights(X, k=50).astype(np.float64) + 20)
    estimate = fit.log_likelihood(X, k=50)
    without = np.log((weights.sum(0) - weights) / 49)
    assert np.allclose(estimate.values, np.log(weights.mean(0)) - 20, rtol=1e-6)
    assert np.allclose(estimate.errors, (49 * without.var(0)) ** 0.5, rtol=1e-5)
    assert estimate.bias == pytest.approx(49 * (without.mean() - np.log(weights.mean(0)).mean()), rel=1e-3)


@pytest.mark.statistical
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shrink", "k"), [(0.5, 20), (2.0, 20)])
def test_errors_and_biases_of_few_particles_are_those_of_repetition(shrink, k, backend):
    """PPCA with guides that are too narrow or too wide; 100 seeds, whose spread is known to 7 %."""
    fit, x = fit_of(shrink=shrink, backend=backend), data(60)
    found = [fit.log_likelihood(x, k=k, seed=seed) for seed in range(100)]
    check_error_is_right([(e.mean, e.monte_carlo_error) for e in found])
    off, told = np.mean([e.mean for e in found]) - log_likelihood(x).mean(), np.mean([e.bias for e in found])
    error = np.std([e.mean - e.bias for e in found], ddof=1) / 10
    assert off - 4 * error < told < 0.25 * off + 4 * error and off < 0  # a part of it; all, where weights are fair
    assert shrink < 1 or abs(told - off) < 4 * error


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_of_what_comes_back(backend):
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), backend)
    assert fit.encode(X).shape == (50, 3) and fit.encode(X, k=4).shape == (4, 50, 3)
    assert fit.reconstruct(X).shape == (50, 30) and ((fit.reconstruct(X) > 0) & (fit.reconstruct(X) < 1)).all()
    assert fit.sample(7).shape == (7, 30) and set(np.unique(fit.sample(7))) <= {0.0, 1.0}
    assert np.array_equal(fit.sample(7, seed=3), fit.sample(7, seed=3))
    assert not np.array_equal(fit.sample(7, seed=3), fit.sample(7, seed=4))
    one = fit.encode(X[:1])
    assert np.allclose(one, fit.encode(X)[:1], atol=1e-6)


def test_estimates_say_what_they_are():
    estimate = Estimate(np.array([1.0, 2.0, 4.0]), np.array([0.3, 0.4, 0.0]), 7)
    assert estimate.mean == pytest.approx(7 / 3)
    assert estimate.standard_error == pytest.approx(np.std([1, 2, 4], ddof=1) / 3**0.5)
    assert estimate.monte_carlo_error == pytest.approx(0.5 / 3)
    assert str(estimate) == "2.333 ± 0.882 nats (N = 3, k = 7, Monte Carlo error 0.1667)" and estimate.bias == 0
    low = replace(estimate, biases=np.array([0.0, -0.3, -0.6]))
    assert low.bias == pytest.approx(-0.3) and "Monte Carlo error 0.1667, too low by 0.3000 or more)" in str(low)
    assert "too low" not in str(replace(low, biases=0.1 * low.biases))  # less than the error


def test_memory_in_words():
    assert parse_memory("512 MiB", "cpu") == 2**29 and parse_memory("2GB", "cpu") == 2 * 10**9
    assert parse_memory(123, "cpu") == 123 and parse_memory("auto", "cuda:0") > parse_memory("auto", "cpu")
    for wrong in ("lots", "-1 GiB", 0, 2.5, None, "MiB", True):
        with pytest.raises(PpdgmError, match="memory: got"):
            parse_memory(wrong, "cpu")
