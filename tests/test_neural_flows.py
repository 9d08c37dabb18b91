"""Flows made of sums of sigmoids, NAF and CDFFlow: maps, inverses, gradients of inverses, densities, conditions."""

import jax
import numpy as np
import pytest
import torch
from flow_tools import declare, draw_params, run, speak
from readings import BACKENDS, precision
from scipy.special import log_ndtr, softmax
from scipy.stats import kstest, logistic, norm

import ppdgm
from ppdgm.errors import SpecError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    MAF,
    NAF,
    NICE,
    VAE,
    ActNorm,
    CDFFlow,
    Chain,
    FlowLikelihood,
    FlowModel,
    FlowPosterior,
    FlowPrior,
    Gaussian,
    Glow,
    InvertibleLinear,
    RealNVP,
    RQSpline,
)
from ppdgm.models.flows.sigmoids import fall, rise, sigmoids

RNG = np.random.default_rng(0)
FAST = {"compile": False, "progress": False}
SMALL = {"depth": 2, "hidden": (6,), "activation": "tanh", "context_size": 3}
SHALLOW = SMALL | {"depth": 1}
ANCHOR = {"anchor": np.zeros(())}
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def bare(backend, function, *arrays):
    with precision("float64"):
        return run(backend, function, ANCHOR, Declarations(), *arrays)


@every_backend
def test_the_map_rises_from_end_to_end_and_its_inverse_undoes_it(backend):
    """Also far out, where a sum of sigmoids is 0 or 1 to rounding; the slope is that of differences."""
    raw, x = 3 * RNG.normal(size=(12, 9)), np.linspace(-60, 60, 9)

    def both(P, raw, x):
        given = sigmoids(P, raw, 1.0)
        y, log_slope = rise(P, given, x)
        return y, log_slope, fall(P, given, y)

    _, log_slope, back = bare(backend, both, raw, x)
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-12)
    up, down = (bare(backend, both, raw, x + s * 1e-5)[0] for s in (1, -1))
    np.testing.assert_allclose(np.exp(log_slope), (up - down) / 2e-5, rtol=1e-5)
    y, log_slope, _ = bare(backend, both, raw[:3], x)  # one sigmoid is a linear map
    slope = 0.01 + np.logaddexp(0, raw[1] + np.log(np.expm1(0.99)))
    np.testing.assert_allclose(y, slope * x + raw[2], rtol=1e-9)
    np.testing.assert_allclose(np.exp(log_slope), slope, rtol=1e-9)


@every_backend
def test_log_ndtr_is_scipys(backend):
    x = np.linspace(-40, 10, 101)
    np.testing.assert_allclose(bare(backend, lambda P, x: P.log_ndtr(x), x), log_ndtr(x), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(NumpyVocabulary.over({}, Declarations()).log_ndtr(x), log_ndtr(x))


def gradient(backend, flow, way, params, declared, x, context):
    """d Σ (value + log|det|)² / d (params, x, context), float64."""

    def loss(P, x, c):
        y, log_det = getattr(flow, way)(P.scope("flow"), x, c)
        return (y**2).sum() + (log_det**2).sum()

    with precision("float64"):
        if backend == "numpyro":
            of = lambda params, x, c: loss(speak(backend, params, declared), x, c)
            value, slopes = jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2)))(params, x, context)
            return float(value), {n: np.asarray(v) for n, v in {**slopes[0], "x": slopes[1], "c": slopes[2]}.items()}
        leaves = {n: torch.tensor(v, requires_grad=True) for n, v in {**params, "x": x, "c": context}.items()}
        own = {n: leaves[n] for n in params}
        value = loss(speak(backend, own, declared), leaves["x"], leaves["c"])
        slopes = torch.autograd.grad(value, list(leaves.values()))
        return value.item(), {n: g.numpy() for n, g in zip(leaves, slopes, strict=True)}


@every_backend
@pytest.mark.parametrize(
    ("flow", "way"),
    [
        (NAF(units=3, **SMALL), "inverse"),
        (NAF(units=2, one_pass="inverse", **SMALL), "forward"),
        (CDFFlow(components=3), "forward"),
        (CDFFlow(components=2), "inverse"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_the_gradient_of_an_inverse_that_is_found_by_bisection(flow, way, backend):
    """By the implicit function: along random directions, equal to central differences."""
    declared, seen = declare(flow, 3, True)
    params = draw_params(declared, 0.4)
    arrays = {**params, "x": RNG.normal(size=(2, 3)), "c": RNG.normal(size=(2, seen))}
    call = lambda arrays: gradient(
        backend, flow, way, {n: arrays[n] for n in params}, declared, arrays["x"], arrays["c"]
    )
    _, slopes = call(arrays)
    direction = {n: RNG.normal(size=v.shape) for n, v in arrays.items()}
    for group in (["x"], ["c"], list(params)):
        up, down = (
            call({n: v + s * 1e-6 * direction[n] * (n in group) for n, v in arrays.items()})[0] for s in (1, -1)
        )
        found = sum((slopes[n] * direction[n]).sum() for n in group)
        np.testing.assert_allclose(found, (up - down) / 2e-6, rtol=1e-6)


# --- the quantiles of a mixture ------------------------------------------------------------------------------------


def mixture(params, components, name="flow.numbers"):
    """Weights, places and scales of the logistics of one number, for SciPy."""
    raw = params[name].astype(float).reshape(3, components)
    a = 0.01 + np.logaddexp(0, raw[1] + np.log(np.expm1(0.99)))
    return softmax(raw[0]), -(raw[2] + np.linspace(-2, 2, components)) / a, 1 / a


@every_backend
def test_the_density_of_a_cdf_flow_is_the_mixtures(backend):
    """SciPy's, also far into both tails; and draws follow its distribution function (KS, 4,000 draws, seed 0)."""
    program = FlowModel(event_shape=(1,), flow=CDFFlow(components=3))
    params = {n: (v + RNG.normal(size=v.shape)).astype("float32") for n, v in program.initialise(0).items()}
    w, loc, scale = mixture(params, 3)
    x = np.array([-300.0, -30.0, -3.0, -0.5, 0.0, 0.1, 2.0, 30.0, 300.0])[:, None]
    fit = ppdgm.Fit(program=program, params=params, backend=backend)
    with precision("float64"):
        found = fit.elbo(x.astype("float32")).values
    np.testing.assert_allclose(found, np.log((w * logistic.pdf(x, loc, scale)).sum(1)), rtol=3e-5)
    drawn = fit.sample(4000)[:, 0]
    cdf = lambda x: (w * logistic.cdf(x[:, None], loc, scale)).sum(1)
    assert kstest(drawn, cdf).pvalue > 1e-3
    assert kstest(1.3 * drawn, cdf).pvalue < 1e-3


# --- densities of data ---------------------------------------------------------------------------------------------

CONDITIONAL = {
    "naf": NAF(units=3, one_pass="inverse", **SMALL),
    "cdf": CDFFlow(components=2),
    "chain": Chain(
        flows=(ActNorm(), NAF(units=2, one_pass="inverse", **SMALL), InvertibleLinear(), CDFFlow(components=2))
    ),
    "nice": NICE(**SMALL),
    "maf": MAF(**SMALL),
    "realnvp": RealNVP(**SMALL),
    "spline": RQSpline(bins=3, **SMALL),
    "glow": Glow(image=(2, 2), levels=1, depth=1, hidden=3, context_size=3),
}


@pytest.mark.parametrize("backend", BACKENDS[:1])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_every_flow_takes_covariates(name, backend):
    """p(x|y) moves with y, and draws given y are scored as they were drawn: the flow undoes itself."""
    program = FlowModel(event_shape=(2, 2), covariates=(2,), flow=CONDITIONAL[name])
    data = {"x": RNG.normal(size=(6, 2, 2)).astype("float32"), "y": RNG.normal(size=(6, 2)).astype("float32")}
    short = ppdgm.fit(program, data, backend=backend, steps=1, **FAST)
    first = short.params
    states = program.declarations().states
    params = {n: v if n in states else (v + 0.3 * RNG.normal(size=v.shape)).astype("float32") for n, v in first.items()}
    fit = ppdgm.Fit(program=program, params=params, backend=backend, info=short.info)
    here, there = fit.elbo(data).values, fit.elbo({**data, "y": data["y"] + 1}).values
    assert (np.abs(here - there) > 1e-4).mean() > 0.5
    u, log_det = program.noise(params, data)
    np.testing.assert_allclose(norm.logpdf(u).sum(1) + log_det, here, rtol=1e-4)
    drawn = fit.sample(500, given={"y": np.tile(data["y"][:1], (500, 1))})
    noise, _ = program.noise(params, {"x": drawn, "y": np.tile(data["y"][:1], (500, 1))})
    assert kstest(noise.ravel(), norm.cdf).pvalue > 1e-3


@every_backend
def test_a_neural_flow_learns_two_modes_that_an_affine_one_can_not(backend):
    """Given y, x is at ±2: the best normal loses 0.9 nats. And the density integrates to 1."""
    y = RNG.normal(size=(600, 1)).astype("float32")
    x = (y + 2 * RNG.choice([-1, 1], size=(600, 1)) + 0.2 * RNG.normal(size=(600, 1))).astype("float32")
    losses = []
    for flow in (NAF(units=4, one_pass="inverse", **SMALL), MAF(**SMALL)):
        program = FlowModel(event_shape=(1,), covariates=(1,), flow=flow)
        fit = ppdgm.fit(
            program, {"x": x, "y": y}, backend=backend, steps=400, batch_size=200, learning_rate=0.02, **FAST
        )
        losses.append(fit.elbo({"x": x, "y": y}).mean)
        if flow.kind() == "NAF":
            grid = np.linspace(-40, 40, 40_001)[:, None]
            u, log_det = program.noise(fit.params, {"x": grid, "y": np.full_like(grid, 0.3)})
            mass = np.exp(norm.logpdf(u[:, 0]) + log_det).sum() * 0.002
            assert abs(mass - norm.cdf(u[-1, 0]) + norm.cdf(u[0, 0])) < 1e-4 and mass > 0.99
    right = norm.logpdf(0.2 * RNG.normal(size=5000), scale=0.2).mean() - np.log(2)
    assert losses[0] > losses[1] + 0.5 and right - losses[0] < 0.25


@every_backend
def test_both_directions_serve_in_a_vae(backend):
    """Posterior and prior, each in its fast direction; torch compiles them elsewhere."""
    x = RNG.normal(size=(50, 4)).astype("float32")
    program = VAE(
        event_shape=(4,), latent=2, likelihood=Gaussian(),
        posterior=FlowPosterior(flow=NAF(units=2, **SHALLOW)),
        prior=FlowPrior(flow=NAF(units=2, one_pass="inverse", **SHALLOW)),
    )  # fmt: skip
    fit = ppdgm.fit(program, x, backend=backend, steps=5, **FAST)
    assert np.isfinite(fit.history["elbo"]).all() and fit.sample(3).shape == (3, 4)


def test_the_slow_direction_and_what_ignores_a_condition_are_refused():
    with pytest.raises(SpecError, match="scores a given z, and NAF needs D passes"):
        FlowModel(event_shape=(3,), flow=NAF())
    with pytest.raises(SpecError, match="scores a given z, and NAF needs D passes"):
        FlowPrior(flow=NAF())
    with pytest.raises(SpecError, match="draws z, and NAF needs D passes"):
        FlowPosterior(flow=NAF(one_pass="inverse"))
    with pytest.raises(SpecError, match=r"FlowModel.flow: ActNorm reads no context, so p.x. would not depend"):
        FlowModel(event_shape=(3,), flow=ActNorm(), covariates=(2,)).declarations()
    with pytest.raises(SpecError, match=r"FlowLikelihood.flow: ActNorm reads no context"):
        VAE(event_shape=(3,), likelihood=FlowLikelihood(flow=ActNorm())).declarations()


def test_torch_compiles_sums_of_sigmoids():
    program = FlowModel(
        event_shape=(2,), flow=Chain(flows=(NAF(units=2, one_pass="inverse", **SHALLOW), CDFFlow(components=2)))
    )
    x = RNG.normal(size=(8, 2)).astype("float32")
    fit = ppdgm.fit(program, x, steps=2, batch_size=4, backend="pyro", compile=True, progress=False)
    assert np.isfinite(fit.history["elbo"]).all()
