"""Likelihoods: probabilities that sum to 1, means, draws, numerical limits, and data that they refuse."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from likelihood_tools import declare, log_prob, over_jax, over_torch
from readings import BACKENDS, precision
from reference.base import LIKELIHOODS, OUTPUTS, kind
from scipy import stats
from scipy.special import expit, gammaln, log_expit, roots_legendre

import ppdgm
from ppdgm.data import Source
from ppdgm.errors import DataError, SpecError
from ppdgm.models import (
    MLP,
    VAE,
    Categorical,
    ContinuousBernoulli,
    Discretised,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    Likelihood,
    MixtureOfDiscretisedLogistics,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)

CELLS = np.linspace(-100, 100, 100_001)  # for the trapezoid rule
NODES, WEIGHTS = roots_legendre(80)
UNIT = (NODES + 1) / 2  # Gauss's on [0, 1]
MOST = 2000  # of counts

LEVELS = {
    "categorical": (Categorical(levels=5), 5),
    "categorical of 256": (Categorical(), 256),
    "logistic": (DiscretisedLogistic(levels=16, scale=0.2), 16),
    "logistic of 256": (DiscretisedLogistic(), 256),
    "gaussian": (Discretised(levels=16, of=Gaussian(scale=0.2)), 16),
    "gaussian of 256": (Discretised(), 256),
    "laplace of 256": (Discretised(of=Laplace(scale="network")), 256),
    "mixture": (MixtureOfDiscretisedLogistics(components=3), 256),
}
COUNTS = {
    "poisson": Poisson(),
    "poisson exp": Poisson(link="exp"),
    "negative binomial": NegativeBinomial(),
    "zero inflated": ZeroInflatedNegativeBinomial(inverse_dispersion="network", link="exp"),
}

#: name -> (likelihood, points x [S], weights [S]): sums over them are sums over the support, or integrals.
ALL = (
    {n: (spec, np.arange(size), np.ones(size)) for n, (spec, size) in LEVELS.items()}
    | {n: (spec, np.arange(MOST), np.ones(MOST)) for n, spec in COUNTS.items()}
    | {"laplace": (Laplace(scale="network"), CELLS, np.full(len(CELLS), CELLS[1] - CELLS[0]))}
    | {"continuous bernoulli": (ContinuousBernoulli(), UNIT, WEIGHTS / 2)}
)
DISCRETE = [*LEVELS, *COUNTS]

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_one = pytest.mark.parametrize("name", ALL)


def mean(backend, likelihood, head):
    with precision("float64"):
        if backend == "pyro":
            return over_torch(likelihood)(torch.tensor(head)).mean.numpy()
        return np.asarray(over_jax(likelihood)(jnp.asarray(head)).mean)


def draw(backend, likelihood, head, n, seed):
    head = head.astype("float32")
    if backend == "pyro":
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return over_torch(likelihood, "float32")(torch.tensor(head)).sample((n,)).numpy()
    return np.asarray(over_jax(likelihood, "float32")(jnp.asarray(head)).sample(jax.random.key(seed), (n,)))


def expected_log_prob(likelihood, x, head):
    """By the reference, of x [N, 1] and heads [N, …]."""
    table, (_, _, first) = likelihood.to_dict(), declare(likelihood)
    assert OUTPUTS.get(kind(table), lambda table, event: event)(table, (1,)) == head.shape[1:]
    return LIKELIHOODS[kind(table)](table, first, x, head[None])[0]


def heads(name, n=4, size=1.0):
    spec = ALL[name][0]
    return size * np.random.default_rng(3).normal(size=(n, *declare(spec)[1]))


# --- probabilities and means ---------------------------------------------------------------------------------------


@every_backend
@every_one
def test_probabilities_sum_to_1_and_the_mean_is_the_sum(name, backend):
    """Over the whole support, counts below 2,000; by quadrature where x is continuous."""
    spec, points, weights = ALL[name]
    head = heads(name)
    value, _ = log_prob(backend, spec, points[:, None, None].astype(float), head)  # [S, N]
    density = weights[:, None] * np.exp(value)
    tolerance = 1e-4 if name == "laplace" else 1e-9  # the trapezoid rule's, at a cusp
    np.testing.assert_allclose(density.sum(0), 1.0, atol=tolerance)
    np.testing.assert_allclose(
        mean(backend, spec, head)[:, 0], (points[:, None] * density).sum(0), rtol=1e-7, atol=10 * tolerance
    )


@every_backend
@pytest.mark.parametrize("name", DISCRETE)
def test_log_probabilities_are_scipys(name, backend):
    spec, points, _ = ALL[name]
    x = np.linspace(0, len(points[:300]) - 1, 40).round()[:, None]
    head = heads(name, n=40, size=1.5)
    value, _ = log_prob(backend, spec, x, head)
    np.testing.assert_allclose(value, expected_log_prob(spec, x, head), rtol=1e-9, atol=1e-9)


def test_a_wrong_normaliser_would_be_seen(monkeypatch):
    """The wrong twin: a continuous Bernoulli whose normaliser is that of λ = ½."""
    tilted = lambda P, x, h: h * (x - 0.5)
    monkeypatch.setattr("ppdgm.models.likelihoods.continuous_bernoulli.log_density", tilted)
    value, _ = log_prob("pyro", ContinuousBernoulli(), UNIT[:, None, None], np.array([[-3.0], [1.0]]))
    assert (np.abs((WEIGHTS[:, None] / 2 * np.exp(value)).sum(0) - 1) > 0.01).all()


@every_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_continuous_bernoulli_is_right_around_a_half(backend, dtype):
    """Value against SciPy's truncated exponential; slope x − E[x], the mean by quadrature; at λ = ½ and around it."""
    steps = np.array([0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.4999, 0.5001, 1.0, 5.0, 20.0, 50.0])
    h = np.concatenate([-steps[1:], steps]).astype(dtype).astype(float)
    small = np.abs(h) < 1e-5
    for x in (0.0, 0.25, 1.0):
        value, slope = log_prob(backend, ContinuousBernoulli(), np.full((len(h), 1), x), h[:, None], dtype)
        rate, y = np.where(small, 1.0, np.abs(h)), min(max(x, 1e-12), 1 - 1e-12)
        scipys = stats.truncexpon.logpdf(np.where(h > 0, 1 - y, y), b=rate, scale=1 / rate)
        log_p = np.where(small, h * (x - 0.5), scipys)
        tilt = WEIGHTS * np.exp(h[:, None] * (UNIT - (h[:, None] > 0)))
        means = (tilt * UNIT).sum(1) / tilt.sum(1)
        tolerance = 4e-7 if dtype == "float32" else 1e-10
        np.testing.assert_allclose(value, log_p, atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(slope[:, 0], x - means, atol=tolerance)
        if dtype == "float64":
            np.testing.assert_allclose(mean(backend, ContinuousBernoulli(), h[:, None])[:, 0], means, atol=1e-12)


@every_backend
def test_the_discretised_logistic_keeps_float32(backend):
    """All levels, scales from 1e-3 up: within the rounding of an edge, |c| + |μ| in units of σ, of a float64 value."""
    for loc, scale in product((-3.0, -0.3, 0.0, 0.7, 1.0), (1e-3, 0.01, 0.1, 1.0, 30.0)):
        spec = DiscretisedLogistic(scale=scale)
        x = np.arange(256.0)
        loc32 = float(np.float32(loc))
        value, _ = log_prob(backend, spec, x[:, None], np.full((256, 1), loc), "float32")
        c, sign = x * 2 / 255 - 1 - loc32, np.where(x * 2 / 255 - 1 > loc32, -1, 1)
        low, high = ((sign * c + d / 255) / float(np.float32(scale)) for d in (-1, 1))  # in the lower tail
        low = np.where((x == 0) & (sign > 0) | (x == 255) & (sign < 0), -np.inf, low)
        high = np.where((x == 255) & (sign > 0) | (x == 0) & (sign < 0), np.inf, high)
        expected = log_expit(high) + np.log1p(-np.exp(log_expit(low) - log_expit(high)))
        error = np.abs(value - expected)
        assert (error <= 3e-7 * (np.abs(expected) + 1 + (np.abs(c + loc32) + abs(loc) + 0.01) / scale)).all()


# --- limits ----------------------------------------------------------------------------------------------------------


@every_backend
@every_one
def test_heads_of_50_are_finite_and_right(name, backend):
    """Every sign of every array of a head, at both ends of the support and inside; value and gradient, float32.

    Against float64. Gradients of mixtures weigh components whose log-probabilities of −5e4 are rounded to 4e-3.
    """
    spec, points, _ = ALL[name]
    shape = declare(spec)[1]
    signs = np.array(list(product((-50.0, 50.0), repeat=min(int(np.prod(shape)), 6))))
    head = np.resize(signs, (len(signs), *shape))
    x = np.float32(points[[0, len(points) // 3, -1]]).astype(float)[:, None, None]
    head = np.stack([head] * 3)
    x = np.broadcast_to(x, (*head.shape[:2], 1))
    value, gradient = log_prob(backend, spec, x, head, "float32")
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    again, slope = log_prob("numpyro", spec, x, head)
    rounding = 4e-7 * gammaln(x[..., 0] + 1) if name in COUNTS else 0.0  # of log x!
    assert (np.abs(value - again) <= 1e-4 + rounding + 2e-5 * np.abs(again)).all()
    np.testing.assert_allclose(gradient, slope, rtol=5e-3, atol=1e-3)


@every_backend
def test_the_smallest_scales_are_finite(backend):
    for spec in (
        DiscretisedLogistic(scale=1e-6),
        MixtureOfDiscretisedLogistics(min_scale=1e-6),
        NegativeBinomial(inverse_dispersion="network", min_inverse_dispersion=1e-6),
        NegativeBinomial(inverse_dispersion=1e6),
    ):
        x, loc = np.array(list(product((0.0, 100.0, 255.0), (-50.0, 0.0, 50.0)))).T
        head = np.full((9, *declare(spec)[1]), -50.0)
        head.reshape(9, -1)[:, 0] = loc
        value, gradient = log_prob(backend, spec, x[:, None], head, "float32")
        assert np.isfinite(value).all(), spec
        assert np.isfinite(gradient).all(), spec


@every_backend
def test_small_rates_are_right(backend):
    """log μ at h far below 0, where softplus is all but exp: to 1e-12 in float64, and at −300 in float32."""
    h, x = np.array([-14.9, -15.0, -15.1, -30.0]), 3.0
    value, slope = log_prob(backend, Poisson(), np.full((4, 1), x), h[:, None])
    rate = np.log1p(np.exp(h))
    np.testing.assert_allclose(value, stats.poisson.logpmf(x, rate), rtol=1e-13)
    np.testing.assert_allclose(slope[:, 0], (x / rate - 1) * expit(h), rtol=1e-12)
    value, slope = log_prob(backend, Poisson(), np.full((1, 1), x), np.array([[-300.0]]), "float32")
    np.testing.assert_allclose((value[0], slope[0, 0]), (-300 * x - np.log(6), x), rtol=1e-6)


# --- draws -----------------------------------------------------------------------------------------------------------

SIZE = 20_000


@pytest.mark.statistical
@every_backend
@pytest.mark.parametrize("name", DISCRETE)
def test_draws_have_the_probabilities(name, backend):
    """χ² over cells of at least 20 expected draws, at level 1e-4; 20,000 draws, seed 2."""
    assert smallest_p(name, backend, heads(name, n=2, size=0.3 if name == "logistic" else 1.0)) > 1e-4


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["categorical", "mixture", "zero inflated"])
def test_draws_of_another_distribution_would_be_seen(name):
    """The wrong twin: draws of heads that are off by 0.2."""
    head = heads(name, n=2)
    assert smallest_p(name, "pyro", head, head + 0.2 * (-1.0) ** np.indices(head.shape).sum(0)) < 1e-6


def smallest_p(name, backend, head, drawn_from=None):
    spec, points, _ = ALL[name]
    drawn = draw(backend, spec, head if drawn_from is None else drawn_from, SIZE, seed=2)[:, :, 0]  # [n, N]
    assert drawn.shape == (SIZE, len(head))
    assert drawn.dtype == np.float32
    assert np.isin(drawn, points).all()
    value, _ = log_prob("numpyro", spec, points[:, None, None].astype(float), head)
    found = []
    for column, log_p in zip(drawn.T, value.T, strict=True):
        expected, seen = SIZE * np.exp(log_p), np.bincount(column.astype(int), minlength=len(points))
        cell = np.minimum(np.cumsum(expected) // 20, SIZE // 20 - 1).astype(int)  # neighbours share a cell
        sums = [np.bincount(cell, w) for w in (expected, seen)]
        kept = sums[0] > 0
        sums = [np.append(s[kept][:-2], s[kept][-2:].sum()) for s in sums]  # the last may be small
        sums[0] *= SIZE / sums[0].sum()
        found.append(stats.chisquare(sums[1], sums[0]).pvalue if len(sums[0]) > 1 else 1.0)
    return min(found)


@pytest.mark.statistical
@every_backend
def test_continuous_bernoulli_draws_have_the_density(backend):
    """Kolmogorov and Smirnov's test at level 1e-4; 20,000 draws, seed 2; at λ = ½, near it and far from it."""
    head = np.array([[-50.0], [-3.0], [0.0], [1e-3], [0.7], [50.0]])
    drawn = draw(backend, ContinuousBernoulli(), head, SIZE, seed=2)[:, :, 0]
    assert ((drawn >= 0) & (drawn <= 1)).all()
    for column, h in zip(drawn.T, head[:, 0], strict=True):
        cdf = lambda x, h=h: np.expm1(h * x) / np.expm1(h) if h else x
        assert stats.kstest(column.astype(float), cdf).pvalue > 1e-4


@every_backend
def test_a_program_draws_and_reconstructs(backend):
    spec = ALL["mixture"][0]
    program = VAE(event_shape=(2, 3), latent=2, likelihood=spec, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
    fit = ppdgm.Fit(program, program.initialise(0), backend)
    drawn, means = fit.sample(5), fit.sample(5, mean=True)
    assert drawn.shape == means.shape == (5, 2, 3)
    spec.check("x", drawn)
    assert (means >= 0).all()
    assert not np.array_equal(means, np.round(means))
    assert fit.reconstruct(drawn).shape == (5, 2, 3)


# --- data that they refuse, and fields that can't be ------------------------------------------------------------------

REFUSED = {  # likelihood, a bad number, words
    "a level too many": (Categorical(levels=4), 4.0, ["got 4.0 at index (3, 2)", "0 to 3", "levels=4"]),
    "below the levels": (Categorical(), -1.0, ["got -1.0 at index (3, 2)", "0 to 255"]),
    "grey in [0, 1]": (Categorical(), 0.5, ["got 0.5 at index (3, 2)", "whole numbers", "scale='levels'"]),
    "between levels": (DiscretisedLogistic(levels=8), 2.5, ["got 2.5 at index (3, 2)", "0 to 7"]),
    "above the mixture's": (MixtureOfDiscretisedLogistics(), 256.0, ["got 256.0 at index (3, 2)", "0 to 255"]),
    "above 1": (ContinuousBernoulli(), 1.5, ["got 1.5 at index (3, 2)", "[0, 1]", "scale='unit'"]),
    "below 0": (ContinuousBernoulli(), -0.5, ["got -0.5 at index (3, 2)"]),
    "half a count": (Poisson(), 0.5, ["got 0.5 at index (3, 2)", "counts"]),
    "a negative count": (NegativeBinomial(), -2.0, ["got -2.0 at index (3, 2)", "whole numbers from 0, not scaled"]),
    "a scaled count": (ZeroInflatedNegativeBinomial(), 3.25, ["got 3.25 at index (3, 2)", "scale='none'"]),
    "an infinite count": (Poisson(), np.inf, ["got inf at index (3, 2)", "finite"]),
    "no number": (Laplace(), np.nan, ["got nan at index (3, 2)", "finite"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_outside_the_support_are_refused_before_any_work(case, tmp_path):
    spec, bad, words = REFUSED[case]
    x = np.ones((10, 6), "float32")
    x[3, 2] = x[7, 0] = bad
    with pytest.raises(DataError) as raised:
        ppdgm.fit(VAE(event_shape=(6,), likelihood=spec), x, steps=1, out=tmp_path / "run")
    for word in [*words, "2 of 10 rows" if np.isfinite(bad) else "Data 'x'"]:
        assert word in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ALL)
def test_data_at_the_ends_of_the_support_are_taken(name):
    spec, points, _ = ALL[name]
    spec.check("x", np.array([[points[0]], [points[-1]]]))
    if name == "continuous bernoulli":
        spec.check("x", np.array([[0.0], [1.0]]))


@pytest.mark.parametrize("name", ALL)
def test_specs_are_read_back(name):
    spec = ALL[name][0]
    assert Likelihood.from_toml(spec.to_toml()) == Likelihood.from_json(spec.to_json()) == spec


FIELDS = {
    "one level": (lambda: Categorical(levels=1), ["Categorical.levels: got 1", "at least 2", "or equal to 2"]),
    "no scale": (lambda: DiscretisedLogistic(scale=0.0), ["DiscretisedLogistic.scale: got 0.0", "greater than 0"]),
    "another scale": (lambda: Laplace(scale="netwrk"), ["Laplace.scale", "Did you mean 'network'?"]),
    "no components": (lambda: MixtureOfDiscretisedLogistics(components=0), ["components: got 0", "greater than 0"]),
    "a link": (lambda: Poisson(link="log"), ["Poisson.link: got 'log'", "'softplus' or 'exp'"]),
    "a dispersion": (lambda: NegativeBinomial(inverse_dispersion=-1.0), ["inverse_dispersion", "greater than 0"]),
    "a family": (lambda: VAE(event_shape=(3,), likelihood=MLP()), ["a Likelihood, such as Bernoulli()"]),
}


@pytest.mark.parametrize("case", FIELDS)
def test_fields_that_can_not_be_are_named(case):
    call, words = FIELDS[case]
    with pytest.raises(SpecError) as raised:
        call()
    assert any(w in str(raised.value) for w in words)


def test_grey_levels_come_as_the_likelihood_takes_them(tmp_path):
    """`scale="levels"` of bytes, as of an image file, and of digits with their 17 levels."""
    grey = np.random.default_rng(0).integers(0, 256, size=(40, 5, 5)).astype(np.uint8)
    np.save(tmp_path / "grey.npy", grey)
    data = ppdgm.load_data(Source(name=str(tmp_path / "grey.npy"), scale="levels"))
    assert {float(v) for v in data.train.ravel()} <= set(map(float, range(256)))
    Categorical().check("x", data.train)
    digits = ppdgm.load_data(Source(name="digits", scale="levels", binarise="none"))
    DiscretisedLogistic(levels=17).check("x", digits.train)
    Poisson().check("x", digits.train)
    assert digits.train.max() == 16


def test_data_with_few_of_the_levels_are_remarked_on():
    with pytest.warns(UserWarning, match=r"'x' have whole numbers up to 1, but levels=256. Use levels=2; or"):
        Categorical().check("x", np.eye(20))
    Categorical(levels=3).check("x", np.eye(20))  # most of them
    Categorical().check("x", np.eye(4))  # too few data to tell
