"""ELBO surgery and the aggregated posterior, against quadrature and closed forms."""

import tracemalloc

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import norm
from test_diagnostics_weights import LinearGaussian

from ppdgm.diagnostics import Measured, elbo_surgery, gaussian_kl, log_aggregated, log_aggregated_of
from ppdgm.errors import DataError, PpdgmError

RNG = np.random.default_rng(0)
LOC = np.array([-2.0, -0.7, 0.1, 1.2, 1.6])[:, None]
SCALE = np.array([0.5, 0.2, 0.7, 0.3, 0.6])[:, None]


def direct(draws, loc, scale):
    """log q(z_m), all at once."""
    return logsumexp(norm.logpdf(draws[:, None], loc, scale).sum(-1), axis=1) - np.log(len(loc))


def operate(loc, scale, number, seed=1, aggregate=log_aggregated, **options):
    """Surgery of a guide N(loc, scale²) with a standard normal prior, and no likelihood."""
    noise = np.random.default_rng(seed).normal(size=(number, *loc.shape))
    z = loc + scale * noise
    own = norm.logpdf(z, loc, scale).sum(-1)
    aggregated = aggregate(z.reshape(-1, loc.shape[1]), loc, scale).reshape(number, -1)
    return elbo_surgery(np.zeros_like(own), own, aggregated, norm.logpdf(z).sum(-1), **options)


def agree(measured, truth, errors=4.0):
    return abs(measured.value - truth) <= errors * measured.error


def quadrature(loc, scale):
    """(mutual information, marginal KL) of one dimension, by integrals."""
    mixture = lambda z: norm.pdf(z, loc[:, 0], scale[:, 0]).mean()
    ends = (loc.min() - 12 * scale.max(), loc.max() + 12 * scale.max())
    integrate = lambda f: quad(f, *ends, limit=400, points=sorted(loc[:, 0]))[0]
    entropy = integrate(lambda z: -mixture(z) * np.log(mixture(z)))
    own = (0.5 * np.log(2 * np.pi * np.e) + np.log(scale)).mean()
    return entropy - own, integrate(lambda z: mixture(z) * (np.log(mixture(z)) - norm.logpdf(z)))


# --- surgery ----------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("number", [2, 4000])
def test_both_parts_of_the_kl_are_those_of_quadrature(number):
    """Each within 4 Monte Carlo errors; and not with a log q(z) that is 0.03 nats too large."""
    information, mismatch = quadrature(LOC, SCALE)
    copies = 800 // number  # of the same five guides, so that few draws of each tell the error
    found = operate(np.tile(LOC, (copies or 1, 1)), np.tile(SCALE, (copies or 1, 1)), number)
    assert agree(found.mutual_information, information)
    assert agree(found.marginal_kl, mismatch)
    assert agree(found.kl, gaussian_kl(LOC, SCALE).sum(1).mean())
    assert information > 0.3 and mismatch > 0.1
    total = found.mutual_information.value + found.marginal_kl.value
    assert total == pytest.approx(found.kl.value, rel=1e-12)

    wrong = operate(LOC, SCALE, 4000, aggregate=lambda z, m, s: log_aggregated(z, m, s) + 0.03)
    assert not agree(wrong.mutual_information, information) and not agree(wrong.marginal_kl, mismatch)


@pytest.mark.statistical
def test_several_dimensions_with_the_exact_posterior():
    """q(z) = 1/N Σ p(z|x_n) nears the prior for many data: a marginal KL near 0; and the ELBO is log p(x)."""
    model = LinearGaussian(size=4000, latent=1)
    z, own = model.draws(1)
    aggregated = log_aggregated(z[0], model.means, np.broadcast_to(model.root[0], model.means.shape))[None]
    prior = norm.logpdf(z).sum(-1)
    found = elbo_surgery(model.log_likelihood(z), own, aggregated, prior)
    assert found.elbo.value == pytest.approx(model.log_evidence().mean(), rel=1e-10)
    closed = -0.5 * np.log(model.covariance[0, 0])  # I(x; z) of the model
    assert agree(found.mutual_information, closed)
    assert abs(found.marginal_kl.value) < 0.01 < 0.1 * closed
    parts = found.reconstruction.value - found.mutual_information.value - found.marginal_kl.value
    assert found.elbo.value == pytest.approx(parts, rel=1e-12)


@pytest.mark.statistical
def test_guides_that_are_all_equal_carry_nothing():
    loc, scale = np.full((50, 2), 0.7), np.full((50, 2), 0.4)
    found = operate(loc, scale, 200)
    assert abs(found.mutual_information.value) < 1e-10
    assert agree(found.marginal_kl, gaussian_kl(loc, scale)[0].sum())
    assert not found.saturated


def test_guides_far_apart_carry_log_n():
    loc = 100.0 * np.arange(40)[:, None]
    found = operate(loc, np.ones((40, 1)), 3)
    assert found.mutual_information.value == pytest.approx(np.log(40), rel=1e-10)
    assert found.most == np.log(40) and found.saturated and "saturated" in str(found)
    nearer = operate(loc / 50, np.ones((40, 1)), 3)
    assert not nearer.saturated and "saturated" not in str(nearer)
    assert operate(loc / 50, np.ones((40, 1)), 3, saturation=0.5).saturated
    assert "mutual information: " in str(nearer)


@pytest.mark.statistical
@pytest.mark.parametrize("number", [2, 20])
def test_monte_carlo_errors_are_those_that_repetition_shows(number):
    """Of 300 repetitions: the standard deviation to 4 of its errors, 1/√600, and within that not twice as much."""
    loc, scale = np.tile(LOC, (4, 1)), np.tile(SCALE, (4, 1))
    runs = [operate(loc, scale, number, seed=s) for s in range(300)]
    for name in ("kl", "mutual_information", "marginal_kl"):
        values = np.array([getattr(r, name).value for r in runs])
        told = np.sqrt(np.mean([getattr(r, name).error ** 2 for r in runs]))
        assert abs(values.std(ddof=1) / told - 1) < 4 / np.sqrt(600)
        assert abs(2 * values.std(ddof=1) / told - 1) > 4 / np.sqrt(600)


def test_one_draw_has_the_error_over_data():
    own, rest = RNG.normal(size=(1, 9)), np.zeros((1, 9))
    found = elbo_surgery(rest, own, own - 0.5, rest)
    assert found.kl.error == pytest.approx(own.std(ddof=1) / 3)
    assert np.isnan(elbo_surgery([[1.0]], [[1.0]], [[1.0]], [[1.0]]).kl.error)
    assert str(Measured(1.0, 0.25)) == "1.000 ± 0.250" and str(Measured(1.0, np.nan)) == "1.000"


def test_bad_terms_are_refused():
    one = np.zeros((2, 5))
    with pytest.raises(DataError, match=r"aggregated: got shape \(5,\), expected \(2, 5\)|aggregated: got an array of"):
        elbo_surgery(one, one, np.zeros(5), one)
    with pytest.raises(DataError, match=r"prior: got shape \(3, 5\), expected \(2, 5\)"):
        elbo_surgery(one, one, one, np.zeros((3, 5)))
    with pytest.raises(DataError, match="own: got nan at index"):
        elbo_surgery(one, one * np.nan, one, one)
    with pytest.raises(DataError, match=r"aggregated: at draw 0 of row 0, .* above log N = 1.609"):
        elbo_surgery(one, one, one - 3.0, one)
    with pytest.raises(PpdgmError, match="saturation: got 2"):
        elbo_surgery(one, one, one, one, saturation=2.0)


# --- the aggregated posterior -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 512])
@pytest.mark.parametrize("spread", [1.0, 0.1, 1e-3, 1e-6])
def test_the_aggregated_posterior_is_the_direct_mean(spread, chunk):
    """To 1e-6 nats also for sharp guides far from the origin, where products of matrices cancel."""
    rng = np.random.default_rng(2)
    loc = 20.0 + 3.0 * rng.normal(size=(60, 8))
    scale = spread * rng.uniform(0.5, 2.0, size=(60, 8))
    draws = np.concatenate([loc + scale * rng.normal(size=(60, 8)), loc[:5] + 3 * scale[:5]])
    found = log_aggregated(draws, loc, scale, chunk)
    expected = direct(draws, loc, scale)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    if spread == 1e-6:  # a plain product of matrices loses it, which is seen
        precision = scale**-2.0
        quadratic = draws**2 @ precision.T - 2 * draws @ (loc * precision).T + (loc**2 * precision).sum(1)
        plain = -0.5 * quadratic - np.log(scale).sum(1) - 4 * np.log(2 * np.pi)
        assert np.abs(logsumexp(plain, axis=1) - np.log(60) - expected).max() > 1e-2


def test_a_far_draw_has_a_finite_density():
    found = log_aggregated([[1e4]], LOC, SCALE)
    np.testing.assert_allclose(found, direct(np.array([[1e4]]), LOC, SCALE), rtol=1e-12)
    assert found[0] < -1e7


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_any_guide_is_aggregated_from_blocks(chunk):
    """Of two sites, with a density that is 0 for some."""
    rng = np.random.default_rng(3)
    rates, loc = rng.uniform(size=11), rng.normal(size=(11, 2))
    rates[:3] = 0.0
    draws = {"on": rng.integers(0, 2, size=30), "z": rng.normal(size=(30, 2))}

    def density(block, where):
        p = np.where(block["on"][:, None] == 1, rates[where], 1 - rates[where])
        with np.errstate(divide="ignore"):
            return np.log(p) + norm.logpdf(block["z"][:, None], loc[where]).sum(-1)

    found = log_aggregated_of(density, draws, 11, chunk)
    np.testing.assert_allclose(found, logsumexp(density(draws, slice(0, 11)), axis=1) - np.log(11), rtol=1e-12)
    nowhere = log_aggregated_of(lambda z, where: np.full((len(z), where.stop - where.start), -np.inf), np.ones(9), 5, 4)
    assert (nowhere == -np.inf).all()


def test_memory_is_flat():
    """Ten times as many data and draws take no more than their own arrays do."""
    peaks = []
    for size in (600, 6000):
        loc = np.random.default_rng(0).normal(size=(size, 3))
        tracemalloc.start()
        log_aggregated(loc, loc, np.ones_like(loc), chunk=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 10 * 5400 * 3 * 8 < 6000 * 6000 * 8 / 10


def test_kl_per_dimension_is_the_closed_form_by_quadrature():
    found = gaussian_kl(LOC, SCALE)
    for m, s, kl in zip(LOC[:, 0], SCALE[:, 0], found[:, 0], strict=True):
        integrand = lambda z, m=m, s=s: norm.pdf(z, m, s) * (norm.logpdf(z, m, s) - norm.logpdf(z))
        assert kl == pytest.approx(quad(integrand, m - 12 * s, m + 12 * s)[0], rel=1e-8)


def test_bad_guides_are_refused():
    with pytest.raises(DataError, match=r"scale: got -1.0 at index \(2, 0\), expected positive"):
        log_aggregated(LOC, LOC, np.where(np.arange(5)[:, None] == 2, -1.0, SCALE))
    with pytest.raises(DataError, match=r"scale: got shape \(4, 1\), expected \(5, 1\)"):
        gaussian_kl(LOC, SCALE[:4])
    with pytest.raises(DataError, match="draws: got 2 dimensions, expected 1"):
        log_aggregated(np.zeros((3, 2)), LOC, SCALE)
    with pytest.raises(PpdgmError, match="chunk: got 0"):
        log_aggregated(LOC, LOC, SCALE, chunk=0)
    with pytest.raises(PpdgmError, match="log_density: got no function"):
        log_aggregated_of(None, LOC, 5)
    with pytest.raises(DataError, match=r"log_density\(…\): got shape \(5, 4\), expected \(5, 5\)"):
        log_aggregated_of(lambda z, where: np.zeros((5, 4)), LOC, 5)
    with pytest.raises(DataError, match=r"log_density\(…\): got nan"):
        log_aggregated_of(lambda z, where: np.full((5, 5), np.nan), LOC, 5)
    with pytest.raises(DataError, match=r"draws: got \{'a': 2, 'b': 3\}"):
        log_aggregated_of(lambda z, where: 0, {"a": np.ones(2), "b": np.ones(3)}, 5)
