"""Simulation-based calibration, coverage, and predictive checks, of a model whose posterior is known."""

import numpy as np
import pytest
from scipy.stats import binom, chi2, chisquare, kstest, norm
from test_diagnostics_weights import LinearGaussian

from ppdgm.diagnostics import arrays, coverage, pit, predictive_check, rank_tests, ranks, uniformity
from ppdgm.diagnostics.diagnosis import Diagnosis
from ppdgm.errors import DataError, PpdgmError

LEVELS = (0.5, 0.8, 0.9, 0.95)


def simulated(scale=1.0, shift=0.0, size=1000, number=99, latent=3, seed=0):
    """Draws of the guide [L, N, D] and the truth [N, D]."""
    model = LinearGaussian(size=size, latent=latent, seed=seed)
    return model.draws(number, scale, seed + 1)[0] + shift, model.z


EXACT, NARROW = simulated(), simulated(0.7)


# --- ranks ------------------------------------------------------------------------------------------------------------


def test_a_rank_counts_the_draws_below():
    draws = np.arange(9.0)[:, None, None] + np.zeros((9, 4, 1))
    truth = np.array([[-1.0], [0.5], [7.5], [99.0]])
    assert ranks(draws, truth)[:, 0].tolist() == [0, 1, 8, 9]


@pytest.mark.statistical
def test_ties_are_broken_at_random():
    """A latent of three values, 10 draws: ranks are uniform on 0 … 10; without breaking ties they aren't."""
    values = np.random.default_rng(0).integers(0, 3, size=(11, 4000, 1))
    found = ranks(values[1:], values[0], seed=1)
    assert chisquare(np.bincount(found[:, 0], minlength=11)).pvalue > 1e-3
    plain = (values[1:] < values[0]).sum(0)
    assert chisquare(np.bincount(plain[:, 0], minlength=11)).pvalue < 1e-10
    assert (ranks(values[1:], values[0], seed=1) == found).all()
    assert (ranks(values[1:], values[0], seed=2) != found).any()


def test_ranks_do_not_depend_on_blocks(monkeypatch):
    whole = ranks(*EXACT)
    assert whole.dtype == np.int64 and whole.shape == (1000, 3) and whole.min() >= 0 and whole.max() <= 99
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1)
    monkeypatch.setattr("ppdgm.diagnostics.calibration.BLOCK_BYTES", 8 * 3000 * 7)
    assert (ranks(*EXACT) == whole).all()
    assert (ranks(EXACT[0].astype("float32"), EXACT[1].astype("float32")) == whole).mean() > 0.999


@pytest.mark.statistical
def test_pit_values_are_uniform():
    u = pit(ranks(*EXACT), 99)
    assert kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert kstest(pit(ranks(*NARROW), 99).ravel(), "uniform").pvalue < 1e-5
    assert (np.floor(u * 100) == ranks(*EXACT)).all()


# --- uniformity -------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_the_exact_posterior_passes_and_a_narrow_one_fails():
    good, bad = uniformity(ranks(*EXACT), 99), uniformity(ranks(*NARROW), 99)
    assert good.calibrated and len(good.failing) == 0 and str(good).startswith("Calibrated: the ranks of all 3")
    assert (
        not bad.calibrated
        and set(bad.failing) == {0, 1, 2}
        and str(bad).startswith("Not calibrated: the ranks of 3 of 3")
    )
    assert (bad.adjusted < 1e-3).all()
    inside = lambda u: ((u.ecdf >= u.lower[:, None]) & (u.ecdf <= u.upper[:, None])).all()
    assert inside(good) and not inside(bad)


@pytest.mark.statistical
@pytest.mark.parametrize("change", [{"scale": 1.3}, {"shift": np.array([0.0, 0.15, 0.0])}])
def test_a_wide_and_a_shifted_guide_fail(change):
    found = uniformity(ranks(*simulated(**change)), 99)
    assert not found.calibrated
    if "shift" in change:
        assert list(found.failing) == [1]


@pytest.mark.statistical
@pytest.mark.parametrize(("size", "draws", "width"), [(200, 19, 1), (1000, 100, 20), (60, 1, 3)])
def test_calibrated_guides_fail_no_more_often_than_the_level_says(size, draws, width):
    """At 10 %, of 200 sets of uniform ranks: no more than 0.1 + 4 √(0.09/200); each test alone is not far below 5 %."""
    rng = np.random.default_rng(7)
    found = [uniformity(rng.integers(0, draws + 1, size=(size, width)), draws, level=0.1) for _ in range(200)]
    assert np.mean([not u.calibrated for u in found]) < 0.1 + 4 * np.sqrt(0.09 / 200)
    if draws > 1:
        for name in ("chi2_p", "ecdf_p"):
            p = np.concatenate([getattr(u, name) for u in found])
            error = np.sqrt(0.0475 / len(p))
            assert 0.03 - 4 * error < (p < 0.05).mean() < 0.055 + 4 * error


def test_chi_squared_is_scipys():
    """Of bins that hold unequal numbers of ranks, too: 11 ranks in 4 bins."""
    r = np.random.default_rng(0).binomial(10, 0.5, size=(400, 1))
    found = uniformity(r, 10, bins=4)
    edges = [0, 3, 6, 9, 11]
    seen = np.histogram(r[:, 0], edges)[0]
    expected = 400 * np.diff(edges) / 11
    np.testing.assert_allclose(found.chi2_p, chi2.sf(((seen - expected) ** 2 / expected).sum(), 3), rtol=1e-10)
    assert not found.calibrated


@pytest.mark.statistical
def test_the_band_holds_all_curves_as_often_as_it_says():
    """Of 300 sets of ranks, at 10 % over four dimensions; the pointwise band of 90 % holds far fewer."""
    rng = np.random.default_rng(3)
    held, pointwise = [], []
    for _ in range(300):
        u = uniformity(rng.integers(0, 51, size=(150, 4)), 50, level=0.1)
        held.append(((u.ecdf >= u.lower[:, None]) & (u.ecdf <= u.upper[:, None])).all())
        low, high = binom.interval(0.9, 150, u.points) / np.array(150)
        pointwise.append(((u.ecdf >= low[:, None]) & (u.ecdf <= high[:, None])).all())
    assert abs(np.mean(held) - 0.9) < 4 * np.sqrt(0.09 / 300)
    assert np.mean(pointwise) < 0.6


def test_the_pointwise_table_is_the_binomial_distribution():
    points = np.array([0.1, 0.5, 0.99])
    table = rank_tests._two_sided(12, points)
    for j in range(13):
        low, high = binom.cdf(j, 12, points), binom.sf(j - 1, 12, points)
        np.testing.assert_allclose(table[j], np.minimum(1, 2 * np.minimum(low, high)), rtol=1e-9, atol=1e-15)


def test_holms_correction():
    """By the step-down rule, as in the textbook: 0.01, 0.04, 0.03, 0.005."""
    np.testing.assert_allclose(rank_tests.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert rank_tests.holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_uniformity_repeats_itself():
    r = ranks(*EXACT)
    a, b, c = (uniformity(r, 99, seed=s) for s in (0, 0, 1))
    assert (a.ecdf_p == b.ecdf_p).all() and (a.ecdf_p != c.ecdf_p).any()
    np.testing.assert_allclose(a.ecdf_p, c.ecdf_p, atol=0.02)
    np.testing.assert_allclose(a.ecdf[:, 0], [(r[:, 0] < round(p * 100)).mean() for p in a.points])


# --- coverage ---------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_intervals_hold_the_truth_as_often_as_they_say():
    found = coverage(*EXACT, LEVELS)
    assert found.shares.shape == (4, 3)
    np.testing.assert_allclose(found.standard_errors, np.sqrt(found.levels * (1 - found.levels) / 1000))
    assert (np.abs(found.shares - found.levels[:, None]) < 4 * found.standard_errors[:, None]).all()
    assert (np.abs(found.overall - found.levels) < 4 * found.overall_errors).all()
    assert str(found).startswith("50% intervals contain ")


@pytest.mark.statistical
def test_a_narrow_guide_holds_it_as_often_as_normals_say():
    """A central interval of 0.7 times the width holds 2 Φ(0.7 q) − 1; within 4 errors, and 1/(L + 1) for its ends."""
    found = coverage(*simulated(0.7, number=999), LEVELS)
    expected = 2 * norm.cdf(0.7 * norm.ppf(0.5 + found.levels / 2)) - 1
    assert (np.abs(found.overall - expected) < 4 * found.overall_errors + 1e-3).all()
    assert (np.abs(found.overall - found.levels) > 4 * found.overall_errors).all()


@pytest.mark.statistical
def test_few_draws_are_enough_for_the_nominal_level():
    """With L = 9, quantiles of the draws themselves would hold the truth too seldom."""
    draws, truth = simulated(number=9, size=4000)
    found = coverage(draws, truth, [0.9])
    assert (np.abs(found.shares - 0.9) < 4 * found.standard_errors).all()
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    assert (((truth > low) & (truth < high)).mean(0) < 0.9 - 8 * found.standard_errors).all()


# --- predictive checks ------------------------------------------------------------------------------------------------


def test_default_statistics_and_their_p():
    rng = np.random.default_rng(0)
    observed, drawn = rng.normal(size=(40, 3)), rng.normal(size=(200, 40, 3))
    found = predictive_check(observed, drawn)
    assert list(found) == ["mean", "standard deviation", "minimum", "maximum", "share of zeros"]
    mean = found["mean"]
    assert mean.observed == pytest.approx(observed.mean())
    np.testing.assert_allclose(mean.replicated, drawn.mean((1, 2)))
    above, below = (mean.replicated >= mean.observed).sum(), (mean.replicated <= mean.observed).sum()
    assert mean.p == pytest.approx(min(1, 2 * (1 + min(above, below)) / 201))
    assert found["share of zeros"].p == 1.0 and found["share of zeros"].observed == 0.0
    assert str(mean).startswith("mean: ") and "p = " in str(mean)


@pytest.mark.statistical
def test_p_is_uniform_where_the_model_is_right():
    """Data of the model itself, 400 times: 10 % below 0.1, to 4 √(0.09/400); a model with heavier data is found out."""
    rng = np.random.default_rng(1)
    p = [predictive_check(rng.normal(size=20), rng.normal(size=(99, 20)), {"t": np.mean})["t"].p for _ in range(400)]
    assert abs(np.mean(np.array(p) <= 0.1) - 0.1) < 4 * np.sqrt(0.09 / 400)
    found = predictive_check(rng.standard_t(2, size=500), rng.normal(size=(99, 500)))
    assert found["maximum"].p <= 0.02 and found["standard deviation"].p <= 0.02
    assert found["share of zeros"].p == 1


NOISES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2, size=shape),
    "counts": lambda rng, shape: rng.poisson(0.3, size=shape).astype(float),
}


@pytest.mark.statistical
@pytest.mark.parametrize(("name", "number"), [("normal", 3), ("normal", 99), ("heavy tails", 99), ("counts", 99)])
def test_a_right_model_is_told_to_be_wrong_once_in_a_hundred(name, number):
    """Five statistics of data of the model itself, 250 times: any odd in 1 % at most, to 4 √(0.0099/250), not 7 %."""
    draw, rng, times = NOISES[name], np.random.default_rng(number), 250 if number >= 99 else 20
    found = [predictive_check(draw(rng, (20, 2)), draw(rng, (number, 20, 2))).values() for _ in range(times)]
    wrong = np.mean([any(c.odd for c in checks) for checks in found])
    assert wrong <= (0.01 + 4 * np.sqrt(0.0099 / times) if number >= 99 else 0)
    assert all(c.enough == (number >= 99) and c.adjusted >= 1 / (1 + number) for checks in found for c in checks)
    shifted = predictive_check(draw(rng, (300, 2)) + 20, draw(rng, (99, 300, 2)))  # a wrong twin
    assert shifted["mean"].odd


def test_adjusted_p_counts_data_sets_that_are_as_far_off_in_any_statistic():
    """By hand: medians 0 and 3; deviations to each side in root mean squares of that side over all six, times √2."""
    drawn = np.array([[[1.0, 3], [0, 4], [-1, 3], [0, 2], [2, 3]]]).transpose(1, 0, 2)
    observed = np.array([[0.0, 5.0]])
    found = predictive_check(observed, drawn, {"a": lambda x: x[0, 0], "b": lambda x: x[0, 1]})
    a = np.array([0, 1, 0, -1, 0, 2]) / np.array(
        [np.sqrt(5 / 3), *[np.sqrt(5 / 3)] * 2, np.sqrt(1 / 3), 1, np.sqrt(5 / 3)]
    )
    b = np.array([2, 0, 1, 0, -1, 0]) / np.array([np.sqrt(5 / 3), 1, np.sqrt(5 / 3), 1, np.sqrt(1 / 3), 1])
    farthest = np.maximum(abs(a), abs(b))
    assert found["a"].adjusted == np.mean(farthest >= abs(a[0])) == 1
    assert found["b"].adjusted == np.mean(farthest >= abs(b[0]))
    assert found["b"].p == pytest.approx(2 / 6)


def test_users_statistics_and_data_sets_that_come_one_by_one():
    rng = np.random.default_rng(2)
    observed, drawn = rng.integers(0, 3, size=(30, 4)), rng.integers(0, 3, size=(50, 30, 4))
    statistics = {"rows": lambda x: len(np.unique(x, axis=0)), "any": lambda x: (x == 2).any()}
    whole = predictive_check(observed, drawn, statistics)
    lazily = predictive_check(observed, (x for x in drawn), statistics)
    assert whole["rows"].p == lazily["rows"].p and (whole["rows"].replicated == lazily["rows"].replicated).all()
    assert whole["any"].observed == 1.0


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_ranks_are_refused():
    with pytest.raises(DataError, match=r"draws: got shape \(99, 1000, 3\), expected \(L, \*\(1000, 2\)\)"):
        ranks(EXACT[0], EXACT[1][:, :2])
    with pytest.raises(DataError, match="truth: got nan"):
        ranks(EXACT[0], EXACT[1] * np.nan)
    with pytest.raises(DataError, match=r"draws: got an array of shape \(99, 1000\), expected \[L, N, D\]"):
        coverage(EXACT[0][..., 0], EXACT[1])
    with pytest.raises(DataError, match="ranks: got 0 to 99, expected 0 to L = 50"):
        uniformity(ranks(*EXACT), 50)
    with pytest.raises(DataError, match="ranks: got float64, expected whole numbers"):
        uniformity(pit(ranks(*EXACT), 99), 99)
    with pytest.raises(DataError, match="N = 39 rows, expected at least 40"):
        uniformity(ranks(*EXACT)[:39], 99)
    for bins in (1, 101, "a"):
        with pytest.raises(PpdgmError, match="bins: got"):
            uniformity(ranks(*EXACT), 99, bins=bins)
    for level in (0.0, 1.0, "a", True):
        with pytest.raises(PpdgmError, match="level: got"):
            uniformity(ranks(*EXACT), 99, level=level)
        with pytest.raises(PpdgmError, match="levels: got"):
            coverage(*EXACT, [level])
    for levels in (0.9, [], "ab"):
        with pytest.raises(PpdgmError, match="levels: got"):
            coverage(*EXACT, levels)
    with pytest.raises(PpdgmError, match="draws: got 0"):
        pit([[0]], 0)
    with pytest.raises(PpdgmError, match="seed: got -1"):
        ranks(*EXACT, seed=-1)


def fails(x):
    raise ZeroDivisionError("no")


@pytest.mark.parametrize(
    ("statistic", "told"),
    {
        "an array": (lambda x: x.mean(0), r"got array\("),
        "text": (lambda x: "much", "got 'much'"),
        "nothing": (lambda x: None, "got None"),
        "nan": (lambda x: float("nan"), "got nan"),
        "complex": (lambda x: 1j, "got 1j"),
        "an error": (fails, "raised ZeroDivisionError: no"),
        "no function": (3, "expected a function"),
    }.values(),
)
def test_a_statistic_that_returns_no_number_is_named(statistic, told):
    with pytest.raises(DataError, match=told) as caught:
        predictive_check(np.ones((5, 2)), np.ones((3, 5, 2)), {"fine": np.mean, "spread": statistic})
    assert str(caught.value).startswith("statistics['spread']: ")


def test_bad_data_sets_are_refused():
    x = np.ones((5, 2))
    for replicated, told in (
        (np.ones((3, 4, 2)), r"replicated\[0\]: got shape \(4, 2\), expected \(5, 2\)"),
        ([], "got no data sets"),
        (3, "replicated: got 3"),
        ([x, x * np.nan], r"replicated\[1\]: got nan"),
    ):
        with pytest.raises(DataError, match=told):
            predictive_check(x, replicated)
    with pytest.raises(DataError, match=r"statistics: got \{\}"):
        predictive_check(x, [x], {})


@pytest.mark.statistical
def test_an_exact_guide_is_seldom_told_to_be_too_wide():
    """200 exact guides of one dimension with 100 rows each, seed 1: of z-tests at 4 errors none should warn.

    99 of 100 rows in 95 % intervals are 4.02 of their own standard errors away, but happen in 4 % of such guides.
    """
    rng, warned = np.random.default_rng(1), 0
    for _ in range(200):
        z = rng.normal(size=(100, 100, 1))
        found = Diagnosis(
            title="",
            size=100,
            calibration={"z": uniformity(ranks(z[1:], z[0]), 99)},
            coverage={"z": coverage(z[1:], z[0])},
        )
        warned += any("no single dimension" in f.text for f in found.verdict)
    assert warned == 0
    wide = (
        rng.normal(size=(100, 400, 20)) * np.r_[1.0, np.full(99, 1.08)][:, None, None]
    )  # what no dimension shows alone
    found = Diagnosis(
        title="",
        size=400,
        calibration={"z": uniformity(ranks(wide[1:], wide[0]), 99)},
        coverage={"z": coverage(wide[1:], wide[0])},
    )
    assert any("a little too wide" in f.advice for f in found.verdict)
