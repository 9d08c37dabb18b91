"""Importance weights: Pareto k̂, effective sample size, bound curves and resampling, on a linear-Gaussian model."""

import tracemalloc
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from ppdgm.diagnostics import (
    WeightQuality,
    arrays,
    bound_curve,
    effective_sample_size,
    log_mean_exp,
    loo,
    pareto_k,
    psis,
    resample,
    to_arviz,
    weight_quality,
)
from ppdgm.diagnostics.log_mean import log_mean
from ppdgm.errors import DataError, PpdgmError


@dataclass
class LinearGaussian:
    """z ~ N(0, I), x = Wz + b + σε; its posterior N(m(x), L Lᵀ), and a guide that is s times as wide."""

    size: int = 200
    latent: int = 2
    width: int = 4
    noise: float = 0.5
    seed: int = 0

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        self.W, self.b = rng.normal(size=(self.width, self.latent)), rng.normal(size=self.width)
        self.z = rng.normal(size=(self.size, self.latent))
        self.x = self.z @ self.W.T + self.b + self.noise * rng.normal(size=(self.size, self.width))
        self.covariance = np.linalg.inv(np.eye(self.latent) + self.W.T @ self.W / self.noise**2)
        self.root = np.linalg.cholesky(self.covariance)
        self.means = (self.x - self.b) @ self.W @ self.covariance / self.noise**2

    def draws(self, number, scale=1.0, seed=1):
        """(z [K, N, D], log q(z|x) [K, N])."""
        noise = np.random.default_rng(seed).normal(size=(number, self.size, self.latent))
        log_q = norm.logpdf(noise).sum(-1) - np.linalg.slogdet(self.root)[1] - self.latent * np.log(scale)
        return self.means + scale * noise @ self.root.T, log_q

    def log_likelihood(self, z):
        return norm.logpdf(self.x, z @ self.W.T + self.b, self.noise).sum(-1)

    def log_weights(self, number, scale=1.0, seed=1):
        """[K, N]."""
        z, log_q = self.draws(number, scale, seed)
        return norm.logpdf(z).sum(-1) + self.log_likelihood(z) - log_q

    def log_evidence(self):
        """log p(x), [N]."""
        covariance = self.W @ self.W.T + self.noise**2 * np.eye(self.width)
        return multivariate_normal.logpdf(self.x, self.b, covariance)


MODEL = LinearGaussian()
NORMAL = np.random.default_rng(5).normal(size=(60, 3))


# --- Pareto k̂ --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cast_back", [False, True])
def test_the_weights_of_the_exact_posterior_are_exact(dtype, cast_back):
    log_w = MODEL.log_weights(500).astype(dtype)
    if dtype == "float32":  # as of sums that were rounded there
        log_w += (1e-6 * np.random.default_rng(0).normal(size=log_w.shape)).astype(dtype)
    quality = weight_quality(log_w.astype("float64") if cast_back else log_w)
    assert quality.exact.all() and (quality.pareto_k == -np.inf).all()
    np.testing.assert_allclose(quality.effective_sample_size, 500, rtol=1e-6)
    assert "exact" in str(quality)


@pytest.mark.parametrize(("dtype", "scale"), [("float64", 1 - 1e-9), ("float32", 0.999)])
def test_a_guide_that_is_hardly_wrong_is_not_exact(dtype, scale):
    quality = weight_quality(MODEL.log_weights(500, scale).astype(dtype))
    assert not quality.exact.any()
    assert (quality.pareto_k < 0.5).mean() > 0.95 and (quality.effective_sample_size > 499).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e5])
def test_no_spread_that_matters_counts_as_rounding(size, dtype):
    """Log-weights near −1e5 in float32 are multiples of 0.008; a guide 5 % too narrow is spread over 0.2 nats."""
    noise = np.random.default_rng(0).normal(size=(1000, 6))
    log_w = (0.05 * noise**2 * [0.0, 1.0, 1.0, 1.0, 1.0, 1.0] - size).astype(dtype)
    quality = weight_quality(log_w)
    assert quality.exact.tolist() == [True] + 5 * [False] and not (quality.pareto_k[1:] == -np.inf).any()
    assert "is exact" not in str(quality) and (effective_sample_size(log_w)[1:] < 999).all()
    seen = np.ascontiguousarray(log_w)  # of a guide of shared latents, whose correction is the same
    assert loo(seen, log_w[:, 1], np.zeros(1000)).guide_k > -np.inf


@pytest.mark.statistical
def test_a_narrow_guide_has_a_large_k():
    """w ∝ exp((1 − s²) ε²/2) has the tail t^(−1/(1 − s²)): k = 1 − s² = 0.19, 0.51 and 0.91 for K → ∞."""
    healthy, half, sick = (pareto_k(MODEL.log_weights(1000, s)) for s in (0.9, 0.7, 0.3))
    assert (healthy < 0.5).mean() > 0.97
    assert (sick > 0.7).mean() > 0.75 and (healthy > 0.7).mean() < 0.01
    assert np.median(healthy) < np.median(half) < np.median(sick)
    wide = pareto_k(MODEL.log_weights(1000, 1.2))  # bounded weights
    assert (wide < 0.2).all()
    line = LinearGaussian(size=20, latent=1)
    for scale in (0.5, 0.3):  # k̂'s standard error is (1 + k) / √M, with M = 3 √K draws in the tail
        k = pareto_k(line.log_weights(40_000, scale))
        assert abs(k.mean() - (1 - scale**2)) < 4 * (2 - scale**2) / np.sqrt(600 * 20) + 0.08  # and what K < ∞ leaves


@pytest.mark.parametrize("draws", [30, 224, 1000])
def test_k_is_that_of_arviz(draws):
    """By its public way to PSIS: leaving one out, where the log-weight is the negative of the log-likelihood."""
    log_w = MODEL.log_weights(draws, 0.6)
    data = to_arviz({"posterior": {"z": log_w}, "log_likelihood": {"x": -log_w}})
    with warnings.catch_warnings():  # that k̂ is large, which is meant
        warnings.simplefilter("ignore")
        expected = psis.arviz().loo(data, pointwise=True, reff=1.0).pareto_k.values
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(pareto_k(log_w), expected, rtol=0, atol=1e-12)
    turned = pareto_k(-log_w)  # a wrong sign would be seen
    assert np.abs(turned - expected).max() > 0.1


def test_weights_without_a_tail_to_fit():
    """Ties, zeros, and a datum that has no weight at all."""
    rng = np.random.default_rng(0)
    ordinary = rng.normal(size=100)
    two_values = np.where(np.arange(100) < 40, 0.0, -1.0)  # of a binary latent: no heavy tail
    few_on_top = np.where(np.arange(100) < 3, 0.0, -1.0)
    half_zero = np.where(np.arange(100) < 50, ordinary, -np.inf)
    one_left = np.where(np.arange(100) < 1, 0.0, -2000.0)
    none = np.full(100, -np.inf)
    log_w = np.stack([ordinary, two_values, few_on_top, half_zero, one_left, none], axis=1)
    quality = weight_quality(log_w)
    k = quality.pareto_k
    assert np.isfinite(k[[0, 3]]).all()
    assert k[1] == -np.inf and np.isnan(k[2]) and k[4] == k[5] == np.inf
    assert not quality.exact.any()
    np.testing.assert_allclose(quality.effective_sample_size[4:], [1, 0])
    assert list(quality.worst(2)) == [5, 4]
    assert "unknown" in str(quality)


def test_what_counts_as_equal_can_be_said():
    log_w = MODEL.log_weights(100, 0.999)
    spread = np.ptp(log_w, axis=0)
    assert weight_quality(log_w, tolerance=1.01 * spread.max()).exact.all()
    allowed = np.where(np.arange(200) < 50, 1.01 * spread, 0.0)
    assert (np.flatnonzero(weight_quality(log_w, allowed).exact) == np.arange(50)).all()


def test_the_worst_data_are_named():
    quality = WeightQuality(
        np.array([0.1, np.inf, 0.9, 0.9, -np.inf]), np.array([9.0, 1, 3, 2, 10]), np.zeros(5, bool), 100
    )
    assert list(quality.worst(4)) == [1, 3, 2, 0]
    assert quality.threshold == 0.5
    assert "row 1" in str(quality) and "3 above 0.7" in str(quality)


# --- effective sample size --------------------------------------------------------------------------------------------


def test_effective_sample_size_is_its_formula():
    log_w = np.random.default_rng(0).normal(size=(50, 4)) * [0.0, 1.0, 3.0, 30.0] - 700
    w = np.exp(log_w + 700)
    np.testing.assert_allclose(effective_sample_size(log_w), w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-10)
    assert effective_sample_size(log_w)[0] == pytest.approx(50)


@pytest.mark.statistical
def test_effective_sample_size_is_what_theory_says():
    """E[w]² / E[w²] = Π_d √(2 s² − 1) / s² for a guide of s > 1/√2 times the width; K = 5000, 4 standard errors."""
    scale = 1.3
    share = effective_sample_size(MODEL.log_weights(5000, scale)) / 5000
    expected = 2 / scale**2 - 1 / scale**4  # 1 / ∫ p²/q of normals, two dimensions
    error = share.std(ddof=1) / np.sqrt(len(share))
    assert abs(share.mean() - expected) < 4 * error + 1e-4
    assert abs(share.mean() - np.sqrt(expected)) > 40 * error


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_the_bound_curve_rises_from_the_elbo_to_the_evidence():
    """L_1 = log p(x) − D ((s² − 1)/2 − log s) exactly; all within 4 Monte Carlo errors."""
    scale = 0.7
    curve = bound_curve(MODEL.log_weights(2000, scale))
    truth = MODEL.log_evidence().mean()
    assert list(curve.k) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    gap = 2 * (0.5 * (scale**2 - 1) - np.log(scale))
    assert abs(curve.mean[0] - (truth - gap)) < 4 * curve.monte_carlo_error[0]
    assert abs(curve.mean[-1] - truth) < 4 * curve.monte_carlo_error[-1]
    assert gap > 40 * curve.monte_carlo_error.max()
    assert (np.diff(curve.mean) > -4 * curve.monte_carlo_error[1:]).all() and (np.diff(curve.mean[:8]) > 0).all()
    np.testing.assert_allclose(curve.standard_error, curve.values.std(1, ddof=1) / np.sqrt(200))
    assert str(curve).startswith("L_1: -")
    of_exact = bound_curve(MODEL.log_weights(100))
    np.testing.assert_allclose(
        of_exact.values, np.broadcast_to(MODEL.log_evidence(), of_exact.values.shape), rtol=1e-10
    )


def test_each_bound_is_an_average_over_disjoint_groups():
    log_w = MODEL.log_weights(7, 0.5)
    curve = bound_curve(log_w, ks=[3, 1, 7, 3])
    assert list(curve.k) == [1, 3, 7]
    groups = [logsumexp(log_w[:3], axis=0), logsumexp(log_w[3:6], axis=0)]
    expected = [log_w.mean(0), np.mean(groups, axis=0) - np.log(3), logsumexp(log_w, axis=0) - np.log(7)]
    np.testing.assert_allclose(curve.values, expected, rtol=1e-12)
    values, errors = log_mean_exp(log_w)
    np.testing.assert_allclose(values, expected[2], rtol=1e-12)
    np.testing.assert_allclose(errors, jackknife(log_w)[0], rtol=1e-10)
    np.testing.assert_allclose(curve.errors[2], errors, rtol=1e-12)


def jackknife(log_w):
    """(error, bias) of log 1/K Σ w, [N] each, by leaving out one particle after another."""
    k, whole = len(log_w), logsumexp(log_w, axis=0) - np.log(len(log_w))
    without = np.array([logsumexp(np.delete(log_w, i, 0), axis=0) - np.log(k - 1) for i in range(k)])
    return np.sqrt((k - 1) * without.var(0)), (k - 1) * (without.mean(0) - whole)


@pytest.mark.statistical
@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0, 25.0, 100.0])
@pytest.mark.parametrize("k", [5, 20, 100])
def test_errors_of_log_means_of_lognormal_weights_are_those_of_repetition(k, variance):
    """log w ~ N(−v/2, v), so that log E[w] = 0, of 20,000 data: the error to 15 %, the bias or less than it."""
    log_w = np.sqrt(variance) * np.random.default_rng(k).normal(size=(k, 20_000)) - variance / 2
    values, errors, biases = log_mean(log_w)
    spread, off = values.std(ddof=1), values.mean()
    noise = 4 * spread / np.sqrt(20_000)
    assert abs(np.sqrt((errors**2).mean()) / spread - 1) < 0.15
    curve = bound_curve(log_w[:, :8000])  # of one, two, five groups, …
    seen = curve.values.std(1, ddof=1) / np.sqrt(8000)
    assert (np.abs(curve.monte_carlo_error / seen - 1) < 0.15)[np.isfinite(curve.monte_carlo_error)].all()
    assert 1.2 * off - noise < biases.mean() < (0.8 * off + noise if variance < 2 else 0)


def test_error_and_bias_of_a_log_mean_are_its_jackknife():
    """With one weight that is nearly all, weights of 0, and log-weights that are large."""
    log_w = np.random.default_rng(0).normal(size=(6, 5)) * [1, 30, 1, 1, 0] + [0, 0, 0, -1e5, -1e5]
    log_w[:3, 2] = -np.inf
    values, errors, biases = log_mean(log_w)
    expected = jackknife(log_w - [0, 0, 0, -1e5, -1e5])
    np.testing.assert_allclose(values, logsumexp(log_w, axis=0) - np.log(6), rtol=1e-12)
    np.testing.assert_allclose(errors, expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(biases, expected[1], rtol=1e-9, atol=1e-12)
    none, one = np.full(4, -np.inf), np.array([-np.inf, 0.0, -np.inf, -np.inf])
    values, errors, biases = log_mean(np.stack([none, one], axis=1))
    assert values[0] == -np.inf and np.isnan(errors[0]) and np.isnan(biases[0])  # nothing is known of them
    assert (errors[1], biases[1]) == (np.inf, -np.inf)


@pytest.mark.statistical
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_monte_carlo_errors_are_those_that_repetition_shows(k):
    """Of 200 data, whose deviations from the exact bound are independent: mean square 1 ± √(2/200), 4 of these."""
    scale, many = 0.85, 40
    curve = bound_curve(MODEL.log_weights(1000, scale), ks=[k])
    again = [bound_curve(MODEL.log_weights(1000, scale, seed=s), ks=[k]).values[0] for s in range(2, 2 + many)]
    z = (curve.values[0] - np.mean(again, axis=0)) / (curve.errors[0] * np.sqrt(1 + 1 / many))
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / 200)
    assert abs((4 * z**2).mean() - 1) > 4 * np.sqrt(2 / 200)  # an error half as large


def test_one_particle_has_no_error():
    values, errors = log_mean_exp([[1.0, 2.0]])
    assert list(values) == [1.0, 2.0] and np.isnan(errors).all()
    curve = bound_curve([[1.0, 2.0]])
    assert list(curve.k) == [1] and np.isnan(curve.monte_carlo_error).all()


# --- resampling -------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_resampled_draws_follow_the_posterior():
    """A guide 1.5 times too wide: resampled draws have the posterior's mean and covariance, the guide's own don't."""
    few = LinearGaussian(size=4)
    z, _ = few.draws(40_000, 1.5)
    log_w = few.log_weights(40_000, 1.5)
    taken = np.take_along_axis(z, resample(log_w, 5000, seed=3)[:, :, None], axis=0)
    worth = 1 / (1 / 5000 + 1 / effective_sample_size(log_w).min())  # draws of draws
    for n in range(4):
        scaled = np.linalg.solve(few.root, (taken[:, n] - few.means[n]).T)
        raw = np.linalg.solve(few.root, (z[:5000, n] - few.means[n]).T)
        assert np.abs(scaled.mean(1)).max() < 4 / np.sqrt(worth)
        assert np.abs(np.cov(scaled) - np.eye(2)).max() < 4 * np.sqrt(2 / worth)
        assert np.abs(np.cov(raw) - np.eye(2)).max() > 10 * np.sqrt(2 / worth)


@pytest.mark.statistical
def test_particles_are_taken_as_often_as_their_weights_say():
    log_w = np.log(
        [[0.5, 0.0], [0.2, 0.3], [0.3, 0.7]],
        where=[[True, False], [True, True], [True, True]],
        out=np.full((3, 2), -np.inf),
    )
    taken = resample(log_w + np.array([700.0, -700.0]), 20_000, seed=1)
    shares = np.stack([(taken == j).mean(0) for j in range(3)])
    weights = np.exp(log_w)
    assert (np.abs(shares - weights) <= 4 * np.sqrt(weights * (1 - weights) / 20_000)).all()
    assert np.abs(shares - weights[[1, 2, 0]]).max() > 0.1


def test_a_chunk_of_data_is_resampled_as_in_the_whole():
    log_w = MODEL.log_weights(50, 0.7)
    whole = resample(log_w, 3, seed=2)
    assert whole.shape == (3, 200)
    parts = [resample(log_w[:, i : i + 60], 3, seed=2, first=i) for i in range(0, 200, 60)]
    assert (np.concatenate(parts, axis=1) == whole).all()
    assert (resample(log_w, 3, seed=3) != whole).any()
    assert (resample(log_w[:, 60:120], 3, seed=2) != whole[:, 60:120]).any()


# --- large and bad ----------------------------------------------------------------------------------------------------


def test_nothing_depends_on_the_blocks(monkeypatch):
    log_w = MODEL.log_weights(100, 0.6)

    def everything():
        quality, curve = weight_quality(log_w), bound_curve(log_w)
        return (
            quality.pareto_k,
            quality.effective_sample_size,
            curve.values,
            curve.errors,
            *log_mean_exp(log_w),
            resample(log_w, 2),
        )

    whole = everything()
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 7 * 800)
    for a, b in zip(whole, everything(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_memory_is_flat(monkeypatch):
    """Beside results, no more than some blocks; a copy in float64 would be 16 MB."""
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 2**17)
    log_w = np.random.default_rng(0).normal(size=(4000, 500)).astype("float32")
    weight_quality(log_w[:, :10])
    for function in (weight_quality, bound_curve, log_mean_exp, lambda w: resample(w, 5)):
        tracemalloc.start()
        function(log_w)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6


BAD = {
    "one axis": (NORMAL[:, 0], r"shape \(60,\), expected \[K, N\]"),
    "text": (np.full((40, 2), "a"), "real numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], "NumPy can't read"),
    "empty": (np.zeros((40, 0)), "empty"),
    "nan": (np.where(np.arange(60)[:, None] == 7, np.nan, NORMAL), r"nan at index \(7, 0\)"),
    "inf": (np.where(np.arange(60)[:, None] == 7, np.inf, NORMAL), r"inf at index \(7, 0\)"),
    "complex": (NORMAL.astype(complex), "real numbers"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(
    "function", [pareto_k, weight_quality, effective_sample_size, bound_curve, log_mean_exp, lambda w: resample(w, 2)]
)
def test_bad_log_weights_are_refused(function, name):
    value, told = BAD[name]
    with pytest.raises(DataError, match=told) as caught:
        function(value)
    assert str(caught.value).startswith("log_weights: got ")


def test_other_bad_arguments_are_refused():
    with pytest.raises(DataError, match="K = 29, expected at least 30"):
        pareto_k(NORMAL[:29])
    for tolerance in (-1.0, [1.0, 2.0], np.nan, "little"):
        with pytest.raises(DataError, match="tolerance: got"):
            pareto_k(NORMAL, tolerance)
    for ks in ([], [0], [61], [1.5], "12", 2.5, 0):
        with pytest.raises(DataError, match="ks: got"):
            bound_curve(NORMAL, ks)
    for arguments in ({"n": 0}, {"n": 1.5}, {"n": 1, "seed": -1}, {"n": 1, "first": "a"}):
        with pytest.raises(PpdgmError, match="expected"):
            resample(NORMAL, **arguments)
    with pytest.raises(DataError, match="all weights of observation 1 are 0"):
        resample(np.array([[0.0, -np.inf]] * 3), 2)
    with pytest.raises(PpdgmError, match="n: got 0"):
        weight_quality(NORMAL).worst(0)
