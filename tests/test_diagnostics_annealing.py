"""Two-sided bounds from annealed importance sampling, and leave-one-out from a guide: models with known answers."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from ppdgm.diagnostics import arrays, bracket, loo, psis
from ppdgm.errors import DataError, PpdgmError

# --- annealing: z ~ N(0, 1), x ~ N(z, σ²), with exact draws of each tempered posterior --------------------------------

NOISE, DATA = 0.3, np.random.default_rng(0).normal(size=25) * 1.1
EVIDENCE = norm.logpdf(DATA, 0, np.sqrt(1 + NOISE**2))


def chains(number, steps, forward, seed=1):
    """Log-weights [C, N] of chains through p(z) p(x|z)^β, β from 0 to 1, whose moves mix perfectly."""
    rng = np.random.default_rng(seed)
    beta = np.linspace(0, 1, steps + 1)
    total = 0.0
    for t in range(steps) if forward else range(1, steps + 1):
        precision = 1 + beta[t] / NOISE**2
        z = beta[t] * DATA / NOISE**2 / precision + rng.normal(size=(number, 25)) / np.sqrt(precision)
        step = norm.logpdf(DATA, z, NOISE) / steps
        total = total + (step if forward else -step)
    return total


@pytest.mark.statistical
@pytest.mark.parametrize("number", [4, 400])
def test_the_bracket_contains_the_exact_evidence(number):
    """For the mean over data, to 4 Monte Carlo errors; for a datum, one bound is 5 nats wrong once in e⁵."""
    found = bracket(chains(number, 20, True), chains(number, 20, False))
    low, high = found.mean
    errors = found.monte_carlo_error
    assert low - 4 * errors[0] < EVIDENCE.mean() < high + 4 * errors[1]
    assert (found.lower - 5 < EVIDENCE).all() and (found.upper + 5 > EVIDENCE).all()
    assert found.gap == high - low and not found.crossed and found.chains == number
    assert abs(found.gap) < (1.0 if number == 4 else 0.1)
    np.testing.assert_allclose(found.standard_error, [b.std(ddof=1) / 5 for b in (found.lower, found.upper)])
    assert "log p(x)" in str(found)


def test_the_bounds_are_their_formulas():
    forward, reverse = chains(3, 5, True), chains(6, 5, False)
    found = bracket(forward, reverse)
    np.testing.assert_allclose(found.lower, logsumexp(forward, axis=0) - np.log(3))
    np.testing.assert_allclose(found.upper, np.log(6) - logsumexp(reverse, axis=0))
    without = [logsumexp(np.delete(reverse, i, 0), axis=0) for i in range(6)]  # the jackknife
    np.testing.assert_allclose(found.upper_errors, np.sqrt(5 * np.var(without, axis=0)))


@pytest.mark.statistical
def test_single_chains_are_bounds_on_average():
    """Of 400 repetitions with two steps, the gap of either bound is far from 0, on its own side."""
    found = [bracket(chains(1, 2, True, seed=s), chains(1, 2, False, seed=s)) for s in range(400)]
    low, high = (np.array([f.mean[i] for f in found]) for i in (0, 1))
    assert low.mean() + 10 * low.std() / 20 < EVIDENCE.mean() < high.mean() - 10 * high.std() / 20
    assert np.isnan(found[0].monte_carlo_error).all()


def test_without_reverse_chains_there_is_a_lower_bound():
    found = bracket(chains(8, 10, True))
    assert found.upper is None and found.upper_errors is None and found.mean[1] == np.inf and not found.crossed
    assert np.isnan(found.standard_error[1]) and np.isnan(found.monte_carlo_error[1])
    assert str(found).startswith("log p(x) ≥ ")


def test_a_wrong_sign_is_seen_as_crossed_bounds():
    found = bracket(chains(8, 10, True), -chains(8, 10, False) + 100)
    assert found.crossed
    one = bracket([[1.0]], [[-0.5]])
    assert not one.crossed and bracket([[1.0]], [[20.0]]).crossed
    assert bracket(np.full((2, 5), -1e5), np.full((2, 5), 1e5 + 1.0)).crossed  # by a nat, of numbers that are large


def test_bad_chains_are_refused():
    with pytest.raises(DataError, match="reverse: got N = 3 rows, expected 5"):
        bracket(np.zeros((2, 5)), np.zeros((2, 3)))
    with pytest.raises(DataError, match="forward: got nan"):
        bracket(np.full((2, 5), np.nan))
    with pytest.raises(DataError, match=r"reverse: got an array of shape \(5,\), expected \[C, N\]"):
        bracket(np.zeros((2, 5)), np.zeros(5))


# --- leave-one-out: θ ~ N(0, τ²), y_n ~ N(θ, 1), which is solved by hand ----------------------------------------------

TAU, Y = 2.0, np.random.default_rng(3).normal(size=30) + 0.7
PRECISION = 1 / TAU**2 + 30


def exact_loo():
    """log p(y_n | y_−n), and Σ_n log p(y_n | y) − log p(y_n | y_−n)."""
    mean, precision = (Y.sum() - Y) / (PRECISION - 1), PRECISION - 1
    left_out = norm.logpdf(Y, mean, np.sqrt(1 + 1 / precision))
    within = norm.logpdf(Y, Y.sum() / PRECISION, np.sqrt(1 + 1 / PRECISION))
    return left_out, (within - left_out).sum()


def guide(scale=1.0, shift=0.0, number=4000, seed=0):
    """log p(y_n|θ_s), log p(θ_s, y), log q(θ_s), of a guide `scale` times as wide as the posterior."""
    mean, sd = Y.sum() / PRECISION + shift / np.sqrt(PRECISION), scale / np.sqrt(PRECISION)
    theta = mean + sd * np.random.default_rng(seed).normal(size=number)
    seen = norm.logpdf(Y, theta[:, None])
    return seen, norm.logpdf(theta, 0, TAU) + seen.sum(1), norm.logpdf(theta, mean, sd)


@pytest.mark.statistical
@pytest.mark.parametrize("change", [{}, {"scale": 1.4}, {"shift": 0.5}, {"scale": 1.4, "shift": -0.5}])
def test_leaving_one_out_is_exact_for_a_normal_mean(change):
    """In sum to 4 Monte Carlo errors, at 4000 draws of a right and of wrong guides."""
    found = loo(*guide(**change))
    values, parameters = exact_loo()
    assert abs(found.elpd.value - values.sum()) < 4 * found.elpd.error < 0.2
    assert np.abs(found.values - values).max() < 0.05
    assert abs(found.p_loo - parameters) < 0.1 and 0.8 < parameters < 1.5
    assert found.elpd.value == pytest.approx(found.values.sum()) and found.p_loo == pytest.approx(
        found.p_loo_values.sum()
    )
    assert found.standard_error == pytest.approx(np.sqrt(30) * found.values.std(ddof=1))
    assert (found.pareto_k < 0.7).all() and found.guide_k < 0.7
    assert (found.guide_k == -np.inf) == (not change)
    assert str(found).startswith("elpd ") and "k̂ is above 0.7 for 0 of 30 rows." in str(found)


@pytest.mark.statistical
def test_without_the_correction_a_wrong_guide_is_wrong():
    seen, _, _ = guide(shift=1.5)
    found = loo(seen, np.zeros(4000), np.zeros(4000))
    assert abs(found.elpd.value - exact_loo()[0].sum()) > 4 * found.elpd.error
    assert abs(loo(*guide(shift=1.5)).elpd.value - exact_loo()[0].sum()) < 4 * loo(*guide(shift=1.5)).elpd.error + 0.02


@pytest.mark.statistical
def test_errors_of_few_chains_are_those_of_repetition():
    """Of 400 runs of ten chains with two temperatures, below and above, for the mean over 25 data."""
    runs = [bracket(chains(10, 2, True, seed=s), chains(10, 2, False, seed=s)) for s in range(400)]
    told = np.sqrt(np.mean([np.square(r.monte_carlo_error) for r in runs], axis=0))
    seen = np.std([r.mean for r in runs], axis=0, ddof=1)
    assert (told / seen > 1 - 4 / np.sqrt(800)).all() and (told / seen < 1.3).all()  # too large rather than too small


@pytest.mark.statistical
def test_the_monte_carlo_error_of_leaving_out_is_that_of_repetition():
    """Of 400 runs, whose standard deviation has an error of 1/√800; draws are shared by all data, which it counts."""
    runs = [loo(*guide(1.4, number=1000, seed=s)) for s in range(400)]
    told = np.sqrt(np.mean([r.elpd.error**2 for r in runs]))
    seen = np.std([r.elpd.value for r in runs], ddof=1)
    assert abs(seen / told - 1) < 4 / np.sqrt(800)
    apart = np.sqrt(np.var([r.values for r in runs], axis=0, ddof=1).sum())
    assert abs(apart / seen - 1) > 4 / np.sqrt(800)  # as if each datum had draws of its own


def test_a_narrow_guide_is_told_to_be_refined():
    found = loo(*guide(0.2))
    assert found.guide_k > 0.7 and (found.pareto_k > 0.7).any() and "refine it first" in str(found)
    worst = found.worst(3)
    assert found.pareto_k[worst[0]] == found.pareto_k.max() and len(worst) == 3
    assert f"the worst is row {worst[0]}." in str(found)


def test_values_are_those_of_arviz(monkeypatch):
    """PSIS by ArviZ of the corrected ratios, datum by datum; and 1.x's own function for it."""
    seen, log_p, log_q = guide(1.3, 0.3, number=500)
    found = loo(seen, log_p, log_q)
    log_w, k = psis.smooth(np.ascontiguousarray(((log_p - log_q)[:, None] - seen).T))
    np.testing.assert_allclose(found.values, logsumexp(log_w + seen.T, axis=1), rtol=1e-10)
    np.testing.assert_allclose(found.pareto_k, k, atol=1e-9)
    if not psis.is_first_generation():
        from arviz_stats.base import array_stats

        theirs = [array_stats._loo_approximate_posterior(s[None], log_p[None], log_q[None]) for s in seen.T]
        np.testing.assert_allclose(found.values, [t[0] for t in theirs], rtol=1e-10)
        np.testing.assert_allclose(found.pareto_k, [t[1] for t in theirs], atol=1e-9)
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 7 * 8 * 500)
    again = loo(seen, log_p + 1000.0, log_q)
    np.testing.assert_allclose(again.values, found.values, rtol=1e-9)
    assert again.elpd.error == pytest.approx(found.elpd.error)


def test_a_latent_per_datum_is_refused_with_the_reason():
    seen, log_p, log_q = guide(number=100)
    with pytest.raises(
        DataError, match=r"log_p: got shape \(100, 30\), a density per row.*the posterior of its latent is the prior"
    ):
        loo(seen, seen, log_q)
    with pytest.raises(DataError, match=r"log_q: got shape \(100, 30\)"):
        loo(seen, log_p, seen)
    with pytest.raises(DataError, match="log_q: got 99 draws, expected S = 100"):
        loo(seen, log_p, log_q[1:])
    with pytest.raises(DataError, match="log_likelihood: got S = 20, expected at least 30"):
        loo(seen[:20], log_p[:20], log_q[:20])
    with pytest.raises(DataError, match="log_p: got nan at index"):
        loo(seen, log_p * np.nan, log_q)
    with pytest.raises(DataError, match=r"log_q: got an array of shape \(\)"):
        loo(seen, log_p, 1.0)
    with pytest.raises(PpdgmError, match="n: got 'a'"):
        loo(seen, log_p, log_q).worst("a")
