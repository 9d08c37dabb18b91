"""Dequantisation: exact bounds for a logistic density, tight noise, the VAE that it is, cells of float32, refusals."""

import numpy as np
import pytest
from readings import BACKENDS, MODULES
from scipy.integrate import quad
from scipy.stats import chi2, logistic

import ppdgm
from ppdgm import Fit
from ppdgm.errors import DataError, ProgramError, SpecError
from ppdgm.inference import IWAE
from ppdgm.models import (
    MLP,
    VAE,
    ActNorm,
    CategoricalPrior,
    Chain,
    Dequantised,
    DiagonalLogistic,
    DiagonalNormal,
    FlowPosterior,
    FlowPrior,
    InvertibleLinear,
    Net,
    Posterior,
    Prior,
    RealNVP,
    VampPrior,
)
from ppdgm.models.likelihoods.rounding import Rounding
from ppdgm.models.posteriors.dequantiser import Dequantiser

LOC, SCALE, LEVELS = 0.7, 0.6, 8
LOG_P = {0: -0.954509, 2: -2.505866}  # by hand and by quadrature
UNIFORM = {0: -0.958539, 2: -2.597071}
FAST = {"compile": False, "progress": False}
SMALL = RealNVP(depth=2, hidden=(8,), context_size=4)


class Logistic(Prior):
    """v = levels · z ~ Logistic(LOC, SCALE), each number."""

    def distribution(self, P, *head):
        log_f = lambda v: -v - 2.0 * P.softplus(-v) - np.log(SCALE / LEVELS)

        def sample(random, batch):
            u = random.uniform((*batch, *P.shape))
            return (LOC + SCALE * (P.xp.log(u) - P.xp.log1p(-u))) / LEVELS, None

        return P.distribution(
            sample, lambda z: P.xp.sum(log_f((LEVELS * z - LOC) / SCALE), axis=tuple(range(-len(P.shape), 0))), P.shape
        )


class Same(Net):
    """The identity."""

    def params(self, inputs, outputs):
        return {}

    def apply(self, P, x, inputs, outputs):
        return x


class Best(Posterior):
    """s = logit u with u ~ p(x + u) in [0, 1], given x / levels: the posterior itself."""

    def build(self, context, shape):
        return shape

    def distribution(self, P, *head):
        xp, x = P.xp, head[0] * LEVELS
        cdf = lambda v: P.activation("sigmoid", (v - LOC) / SCALE)
        low, high = cdf(x), cdf(x + 1.0)

        def sample(random, batch):
            share = low + (high - low) * random.uniform((*batch, *P.shape))
            u = LOC + SCALE * (xp.log(share) - xp.log1p(-share)) - x
            return xp.log(u) - xp.log1p(-u), None

        def log_prob(s):
            a = (x + P.activation("sigmoid", s) - LOC) / SCALE
            log_f = -a - 2.0 * P.softplus(-a) - np.log(SCALE)
            return xp.sum(log_f - xp.log(high - low) - P.softplus(s) - P.softplus(-s), axis=-1)

        return P.distribution(sample, log_prob, P.shape, tuple(x.shape[:-1]))


def made(program, backend, **fields):
    return Fit(program, program.initialise(0), backend, **fields)


@pytest.fixture(scope="module")
def uniform():
    program = Dequantised(event_shape=(1,), levels=LEVELS, prior=Logistic())
    return {backend: made(program, backend) for backend in BACKENDS}


@pytest.fixture(scope="module")
def digits():
    return np.random.default_rng(0).integers(17, size=(60, 4)).astype("float32")


@pytest.mark.parametrize("x", [0, 2])
def test_the_reference_agrees_with_quadrature(x):
    assert np.log(np.diff(logistic.cdf([x, x + 1], LOC, SCALE)))[0] == pytest.approx(LOG_P[x], abs=1e-6)
    log_f = lambda u: logistic.logpdf(x + u, LOC, SCALE)
    assert quad(log_f, 0, 1)[0] == pytest.approx(UNIFORM[x], abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_uniform_noise_gives_the_uniform_bound_and_more_particles_log_p(uniform, backend):
    x = np.array([[0.0], [2.0]], "float32")
    elbo, exact = np.array([*UNIFORM.values()]), np.array([*LOG_P.values()])
    found = uniform[backend].elbo(x, k=20_000)
    assert (np.abs(found.values - elbo) < 4 * found.errors + 1e-4).all() and found.errors.max() < 0.004
    bounds = [uniform[backend].log_likelihood(np.tile(x, (400, 1)), k=k) for k in (1, 8, 64)]
    means = np.array([b.values.reshape(-1, 2).mean(0) for b in bounds])
    spread = np.array([b.values.reshape(-1, 2).std(0) / 20 for b in bounds])
    assert (means < exact + 4 * spread).all() and (np.diff(means[:, 1]) > 0).all()
    last = uniform[backend].log_likelihood(x, k=20_000)
    assert (np.abs(last.values - exact) < 4 * last.errors + 1e-4).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_posterior_itself_is_tight(backend):
    program = Dequantised(event_shape=(1,), levels=LEVELS, prior=Logistic(), noise=Best(), net=Same())
    x = np.arange(4.0, dtype="float32")[:, None]
    found = made(program, backend).elbo(x, k=200)
    right = np.log(np.diff(logistic.cdf(np.arange(5.0), LOC, SCALE)))
    np.testing.assert_allclose(found.values, right, atol=2e-4)
    assert found.errors.max() < 2e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_are_whole_numbers_in_range(uniform, backend):
    drawn = uniform[backend].sample(4000, seed=1)
    assert set(np.unique(drawn)) <= set(range(LEVELS))
    edges = logistic.cdf([-np.inf, *range(1, LEVELS), np.inf], LOC, SCALE)
    expected = 4000 * np.diff(edges)
    counts = np.array([(drawn == level).sum() for level in range(LEVELS)])
    pool = lambda a: np.array([*a[:4], a[4:].sum()])
    assert chi2.sf(((pool(counts) - pool(expected)) ** 2 / pool(expected)).sum(), 4) > 1e-3


def test_all_levels_together_have_the_mass_between_the_ends(uniform):
    x = np.arange(LEVELS, dtype="float32")[:, None]
    mass = np.exp(uniform["pyro"].log_likelihood(x, k=20_000).values).sum()
    assert mass == pytest.approx(np.diff(logistic.cdf([0, LEVELS], LOC, SCALE))[0], abs=3e-3)


NOISES = {
    "uniform": None,
    "normal": DiagonalNormal(),
    "logistic": DiagonalLogistic(),
    "flow": FlowPosterior(flow=SMALL),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", NOISES)
def test_it_is_a_vae(noise, backend, digits):
    """The same parameters, the same numbers; and the bound by hand from the noise's draws."""
    prior = FlowPrior(flow=RealNVP(depth=2, hidden=(8,)))
    parts = {"noise": NOISES[noise], "net": MLP(hidden=(6,))}
    program = Dequantised(event_shape=(4,), levels=17, prior=prior, **parts)
    vae = VAE(
        event_shape=(4,),
        latent=4,
        prior=prior,
        posterior=Dequantiser(levels=17, **parts),
        likelihood=Rounding(levels=17),
        encoder=Same(),
        decoder=Same(),
    )
    params = program.initialise(3)
    rng = np.random.default_rng(1)
    params = {n: v + 0.1 * rng.normal(size=v.shape).astype(v.dtype) for n, v in params.items()}
    assert params.keys() == vae.initialise(3).keys()
    fits = [Fit(each, params, backend) for each in (program, vae)]
    first, second = (fit.log_weights(digits, k=3) for fit in fits)
    np.testing.assert_allclose(first, second, rtol=1e-6)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(fits[0].reconstruct(digits), digits)
    z = fits[0].encode(digits, k=50)
    u = 17 * z - digits
    assert (u > 0).all() and (u < 1).all() and u.std() > 0.05
    mean = fits[0].encode(digits)
    if noise == "uniform":
        np.testing.assert_allclose(mean, (digits + 0.5) / 17, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("levels", [2, 17, 255, 256, 65536])
def test_no_draw_leaves_its_cell_in_float32(levels, backend):
    """Noise of logits of ±80: u is 0 or 1, up to the margin."""
    program = Dequantised(
        event_shape=(2,), levels=levels, prior=FlowPrior(flow=ActNorm()), noise=DiagonalNormal(), net=Same2()
    )
    x = np.unique(np.linspace(0, levels - 1, 300).round())[:, None] * np.ones((1, 2))
    found = made(program, backend).log_weights(x.astype("float32"), k=20)
    assert np.isfinite(found).all()


class Same2(Net):
    """Means of −80 and 80, and a softplus of 10."""

    def params(self, inputs, outputs):
        return {}

    def apply(self, P, x, inputs, outputs):
        return 0.0 * x[..., None, :] + P.constant(np.array([[-80.0, 80.0], [10.0, 10.0]]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", ["normal", "logistic", "flow"])
def test_the_noise_scores_its_own_draws_elsewhere_too(noise, backend, digits):
    """log q(z|x) from z is log q of the draw; outside the cell it is −∞."""
    program = Dequantised(event_shape=(4,), levels=17, noise=NOISES[noise], net=MLP(hidden=(6,)))
    runtime = MODULES[backend].Runtime(program, "cpu")
    params = runtime.put(program.initialise(0))
    data, index = runtime.put({"x": digits[:5]}), np.arange(5)
    drawn = runtime.trace(params, data, index, 4, 0, None, False)
    z = {"z": np.asarray(drawn.values["z"])}
    again = runtime.trace(params, data, index, 4, 0, z, False)
    np.testing.assert_allclose(again.log_q["z"], drawn.log_q["z"], atol=2e-3)
    outside = runtime.trace(params, data, index, 4, 0, {"z": z["z"] + 1 / 17}, False)
    assert np.isneginf(np.asarray(outside.log_q["z"])).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_learns_the_noise(backend):
    """The gap to log P falls, and the bound stays below: a logistic density, with noise that can be its own."""
    program = Dequantised(
        event_shape=(1,), levels=LEVELS, prior=Logistic(), noise=DiagonalNormal(), net=MLP(hidden=(8,))
    )
    x = np.tile(np.arange(4.0, dtype="float32"), 25)[:, None]
    fit = ppdgm.fit(program, x, backend=backend, steps=250, batch_size=100, learning_rate=0.05, **FAST)
    right = np.log(np.diff(logistic.cdf(np.arange(5.0), LOC, SCALE))).mean()
    uniform = np.mean([quad(lambda u, y=y: logistic.logpdf(y + u, LOC, SCALE), 0, 1)[0] for y in range(4)])
    found = fit.elbo(x, k=200)
    assert found.mean < right + 4 * found.monte_carlo_error
    assert right - found.mean < 0.5 * (right - uniform)


def test_importance_weighted_training_works_and_is_reported_as_a_bound(digits):
    program = Dequantised(event_shape=(4,), levels=17)
    fit = ppdgm.fit(program, digits, backend="pyro", steps=5, batch_size=60, engine=IWAE(k=4), **FAST)
    assert not fit.elbo(digits).exact and np.isfinite(fit.history["elbo"]).all()


def test_norms_start_from_the_data():
    rng = np.random.default_rng(0)
    x = rng.binomial(16, [0.1, 0.5, 0.8], size=(500, 3))
    flow = Chain(flows=(InvertibleLinear(), ActNorm()))
    program = Dequantised(event_shape=(3,), levels=17, prior=FlowPrior(flow=flow))
    first = program.initialise(0, {"x": x.astype("float32")})
    z = (x + rng.random(x.shape)) / 17
    out = np.exp(first["prior.flow.1.log_scale"]) * (z + first["prior.flow.1.shift"])
    np.testing.assert_allclose(out.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(out.std(0), 1, atol=0.05)


def test_refusals(digits):
    with pytest.raises(SpecError, match="real numbers"):
        Dequantised(event_shape=(4,), prior=CategoricalPrior())
    with pytest.raises(ProgramError, match="VampPrior"):
        Dequantised(event_shape=(4,), prior=VampPrior()).declarations()
    with pytest.raises(DataError, match="whole numbers from 0 to 15"):
        ppdgm.fit(Dequantised(event_shape=(4,), levels=16), digits, steps=1, **FAST)
    with pytest.raises(SpecError, match="levels"):
        Dequantised(event_shape=(4,), levels=10**6)


def test_the_columns_are_shares_of_levels(digits):
    """A diagnosis compares with independent columns over the levels."""
    found = made(Dequantised(event_shape=(4,), levels=17), "pyro").diagnose(digits, parts="likelihood", k=20)
    assert found.baseline is not None and np.isfinite(found.baseline.values).all()
    assert abs(found.baseline.values.mean() + 4 * np.log(17)) < 1.5


@pytest.mark.parametrize("noise", [None, DiagonalLogistic()])
def test_torch_compiles_it(noise):
    """Parts that are made within the model can't be."""
    prior = FlowPrior(flow=RealNVP(depth=1, hidden=(4,)))
    program, x = Dequantised(event_shape=(2,), levels=3, prior=prior, noise=noise), np.arange(64).reshape(32, 2) % 3
    how = {"steps": 4, "batch_size": 16, "backend": "pyro", "progress": False, "seed": 0}
    one, other = (ppdgm.fit(program, x, compile=compile, **how) for compile in (True, False))
    assert one.info["compile"] and not other.info["compile"]
    # Compiled draws are others; the mean of 16 rows has a standard error of about 0.1, that of four steps 0.05.
    assert abs(one.history["elbo"].mean() - other.history["elbo"].mean()) < 5 * 0.05 * 2**0.5
    assert program == Dequantised(event_shape=(2,), levels=3, prior=prior, noise=noise)
