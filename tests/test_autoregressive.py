"""Autoregressive densities: they sum to 1, see what they should, draw what they score, and train."""

from itertools import product

import jax
import numpy as np
import pytest
from causal_tools import all_values, declared, seen_by
from flow_tools import draw_params, run
from readings import BACKENDS, precision
from reference.densities import log_density
from scipy.stats import chi2

import ppdgm
from ppdgm.errors import DataError, ProgramError, SpecError
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    MADE,
    VAE,
    Autoregressive,
    AutoregressiveModel,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretisedLogistic,
    GatedPixelCNN,
    Gaussian,
    Laplace,
    MixtureOfDiscretisedLogistics,
    Poisson,
)
from ppdgm.models.likelihoods.autoregressive import autoregressive
from ppdgm.program import Context

PIXELS = GatedPixelCNN(channels=6, layers=2, first_kernel=3, hidden=6)
FAST = {"compile": False, "progress": False}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("net", "each", "event", "levels"),
    [
        (MADE(hidden=(9, 8), ordering="random", seed=1), Bernoulli(), (2, 3), 2),
        (MADE(hidden=(9,)), MixtureOfDiscretisedLogistics(levels=3, components=2), (2, 3), 3),
        (PIXELS, Bernoulli(), (3, 3), 2),
        (PIXELS, DiscretisedLogistic(levels=3), (2, 3), 3),
        (PIXELS, Categorical(levels=3), (3, 1, 2), 3),
    ],
)
def test_probabilities_sum_to_one(net, each, event, levels, backend):
    found, params = declared(net, each, event)
    with precision("float64"):
        log_p = run(
            backend, lambda P, x: autoregressive(P, net, each, event, None, ()).log_prob(x), params, found,
            all_values(event, levels),
        )  # fmt: skip
    assert abs(np.exp(log_p).sum() - 1) < 1e-10
    assert np.exp(log_p).max() > 3 * np.exp(log_p).mean()  # it is not the same for all


@pytest.mark.parametrize(
    ("event", "net"),
    [
        ((5, 7), GatedPixelCNN(channels=6, layers=3, first_kernel=3, hidden=12)),
        ((2, 3, 4), GatedPixelCNN(channels=8, layers=3, first_kernel=3, hidden=16)),
        ((6, 5), GatedPixelCNN(channels=6, layers=2, first_kernel=5, kernel=1, hidden=12)),
    ],
)
def test_a_pixel_sees_what_comes_before_it_and_has_no_blind_spot(event, net):
    sees = seen_by(net, event, scale=0.7)
    size, (height, width) = int(np.prod(event)), event[-2:]
    order, pixels = net.order(event).ravel(), np.arange(size) % (height * width)
    row, column = pixels // width, pixels % width
    reach = net.first_kernel // 2 + (net.layers - 1) * (net.kernel // 2)
    for i, j in product(range(size), range(size)):
        reached = row[i] - row[j] <= reach + 1 and abs(column[i] - column[j]) <= reach
        assert sees[i, j] == (order[j] < order[i] and reached), (i, j)


def test_pixels_come_in_rows_and_colours_one_after_the_other():
    net = GatedPixelCNN(channels=2)
    assert net.order((2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert net.order((2, 1, 2)).tolist() == [[[0, 2]], [[1, 3]]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "program",
    [
        AutoregressiveModel(event_shape=(5,), net=MADE(hidden=(7, 6), ordering="random"), classes=3, covariates=(2,)),
        AutoregressiveModel(event_shape=(2, 3, 4), net=PIXELS, likelihood=Categorical(levels=3), covariates=(2,)),
        AutoregressiveModel(event_shape=(4, 3), net=PIXELS, likelihood=DiscretisedLogistic(levels=3)),
        AutoregressiveModel(event_shape=(4,), net=MADE(hidden=(5,)), likelihood=Gaussian(scale="network")),
    ],
    ids=lambda program: type(program.net).__name__,
)
def test_log_p_equals_the_reference(program, backend):
    """In float32: errors are relative to the sum of the sizes of the terms."""
    rng = np.random.default_rng(0)
    levels = getattr(program.likelihood, "levels", 2)
    shape = (20, *program.event_shape)
    x = rng.normal(size=shape) if isinstance(program.likelihood, Gaussian) else rng.integers(levels, size=shape)
    data = {"x": x.astype("float32")}
    data |= {"label": rng.integers(3, size=20)} if program.classes else {}
    data |= {"y": rng.normal(size=(20, 2)).astype("float32")} if program.covariates else {}
    fit = ppdgm.fit(program, data, backend=backend, steps=30, learning_rate=0.05, **FAST)
    right = log_density(program.to_dict(), fit.params, data)
    found = fit.log_likelihood(data)
    assert found.exact
    np.testing.assert_allclose(found.values, right, rtol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("net", "each"),
    [
        (MADE(hidden=(12,), ordering=(3, 0, 5, 1, 4, 2)), Bernoulli()),
        (PIXELS, Categorical(levels=2)),
        (PIXELS, DiscretisedLogistic(levels=2)),
        (MADE(hidden=(12,)), MixtureOfDiscretisedLogistics(levels=2, components=2)),
    ],
)
def test_draws_have_the_probabilities_that_are_scored(net, each, backend):
    x = all_values((2, 3), 2).astype("float32")
    rng = np.random.default_rng(0)
    data = x[rng.choice(64, size=300, p=rng.dirichlet(np.full(64, 0.3)))]
    program = AutoregressiveModel(event_shape=(2, 3), net=net, likelihood=each)
    fit = ppdgm.fit(program, data, backend=backend, steps=150, learning_rate=0.02, **FAST)
    found = fit.log_likelihood(x)
    assert found.exact
    p, n = np.exp(found.values.astype(float)), 6000
    assert p.max() > 0.1
    drawn = fit.sample(n, seed=1).reshape(n, 6).astype(int)
    seen = np.bincount(drawn @ 2 ** np.arange(6)[::-1], minlength=64)
    common = n * p > 5
    got, expected = np.append(seen[common], seen[~common].sum()), n * np.append(p[common], p[~common].sum())
    statistic = ((got - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert chi2.sf(statistic, len(got) - 1) > 1e-4


def test_real_conditionals_are_normals_of_scipy():
    """An autoregression x₂ | x₁ ~ N(a x₁ + b, σ²), with a linear net, is a bivariate normal."""
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(1)
    x = rng.multivariate_normal([1.0, -0.5], [[1.0, 0.8], [0.8, 1.5]], size=4000).astype("float32")
    program = AutoregressiveModel(event_shape=(2,), net=MADE(hidden=()), likelihood=Gaussian(scale="per_dimension"))
    fit = ppdgm.fit(program, x, backend="pyro", steps=600, batch_size=400, learning_rate=0.03, **FAST)
    right = multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x)
    assert 0 <= right.mean() - fit.elbo(x).mean < 0.01  # the maximum of the likelihood is the closed form
    drawn = fit.sample(20_000)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.08)  # 4 standard errors are 0.06


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_class_and_covariates_change_the_density(backend):
    rng = np.random.default_rng(0)
    label, y = rng.integers(3, size=600), rng.normal(size=(600, 2))
    probability = np.array([0.1, 0.5, 0.9])[label][:, None] * np.where(y[:, :1] > 0, 1.0, 0.5)
    x = (rng.random((600, 4)) < probability).astype("float32")
    program = AutoregressiveModel(event_shape=(4,), net=MADE(hidden=(16,)), classes=3, covariates=(2,))
    data = {"x": x, "label": label, "y": y}
    fit = ppdgm.fit(program, data, backend=backend, steps=400, learning_rate=0.01, **FAST)
    drawn = fit.sample(3000, given={"label": np.arange(3000) % 3, "y": np.ones((3000, 2))})
    rates = drawn.reshape(-1, 3, 4).mean((0, 2))
    np.testing.assert_allclose(rates, [0.1, 0.5, 0.9], atol=0.12)
    with pytest.raises(ProgramError, match="conditional on 'label'"):
        fit.sample(2, given={"y": np.ones((2, 2))})
    with pytest.raises(DataError, match="no field 'y'"):
        ppdgm.fit(program, {"x": x, "label": label}, backend=backend, steps=1, **FAST)
    alone = AutoregressiveModel(event_shape=(4,), net=MADE(hidden=(16,)))
    with pytest.raises(DataError, match=r"field 'label', which p.x. does not read"):
        ppdgm.fit(alone, {"x": x, "label": label}, backend=backend, steps=1, **FAST)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoder_with_an_autoregressive_likelihood(backend):
    """log p(x) by a sum over a grid of z is above the ELBO, and the weights find it."""
    x = all_values((4,), 2).astype("float32")
    program = VAE(event_shape=(4,), latent=1, likelihood=Autoregressive(net=MADE(hidden=(8,)), condition=(3,)))
    fit = ppdgm.fit(program, x, backend=backend, steps=60, **FAST)
    exact = np.exp(fit.log_likelihood(x, k=1000).values.astype(float))
    assert abs(exact.sum() - 1) < 0.05
    assert fit.elbo(x, k=200).mean < np.log(exact).mean() + 0.01
    assert fit.reconstruct(x).shape == x.shape


@pytest.mark.parametrize("each", [Gaussian(scale="network"), Laplace(scale="network"), ContinuousBernoulli()])
def test_draws_from_noise_have_the_moments_of_the_distribution(each):
    found = Declarations()
    head = np.random.default_rng(0).normal(size=Context(found).part(each, (3,)))
    shape = (40_000, 3)

    def moments(P, head):
        inner, random = P.scope("likelihood"), P._random(jax.random.key(0))
        drawn = each.draw(inner, random, shape, head[None])
        distribution = each.distribution(inner, head)
        return drawn.mean(0), drawn.std(0), distribution.mean

    mean, sd, right = run("numpyro", moments, draw_params(found), found, head)
    assert (np.abs(mean - right) < 4 * sd / 200).all()


@pytest.mark.parametrize(
    "net", [MADE(hidden=(8,)), PIXELS, PIXELS.replace(kernel=1)], ids=lambda net: type(net).__name__
)
def test_a_compiled_step_on_torch_is_the_eager_one(net):
    x = (np.random.default_rng(0).random((64, 4, 4)) < 0.5).astype("float32")
    program, few = AutoregressiveModel(event_shape=(4, 4), net=net), {"steps": 6, "batch_size": 32, "progress": False}
    compiled, eager = (ppdgm.fit(program, x, backend="pyro", compile=c, **few).params for c in (True, False))
    for name, value in eager.items():
        np.testing.assert_allclose(compiled[name], value, atol=1e-6)


def test_what_can_not_be_is_refused():
    declare = lambda program: program.declarations()
    with pytest.raises(SpecError, match="Poisson can't be the distribution of each number"):
        declare(AutoregressiveModel(event_shape=(3,), likelihood=Poisson()))
    with pytest.raises(SpecError, match=r"expected images \(height, width\)"):
        declare(AutoregressiveModel(event_shape=(3,), net=GatedPixelCNN()))
    with pytest.raises(SpecError, match="channels: got 64, expected a multiple of 3"):
        declare(AutoregressiveModel(event_shape=(3, 4, 4), net=GatedPixelCNN()))
    with pytest.raises(SpecError, match="kernel: got 4, expected an odd number, at least 1"):
        declare(AutoregressiveModel(event_shape=(4, 4), net=GatedPixelCNN(kernel=4)))
    with pytest.raises(SpecError, match=r"condition of shape \(3, 5, 4\)"):
        declare(VAE(event_shape=(4, 4), likelihood=Autoregressive(net=GatedPixelCNN(), condition=(3, 5, 4))))
