"""Flows as densities of data: exact numbers, conditions, first values from the data, refusals."""

import numpy as np
import pytest
from flow_tools import declare, draw_params, run
from readings import BACKENDS, precision
from scipy.stats import multivariate_normal, norm

import ppdgm
from ppdgm.errors import DataError, SpecError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.models import (
    IAF,
    NICE,
    VAE,
    ActNorm,
    Chain,
    FlowLikelihood,
    FlowModel,
    Glow,
    InvertibleLinear,
    Planar,
    RealNVP,
    RQSpline,
)
from ppdgm.nets.base import ACTIVATIONS

RNG = np.random.default_rng(0)
FAST = {"compile": False, "progress": False}
SMALL = {"hidden": (16,), "depth": 4}


def two_moons(n, seed=0):
    """A density that no Gaussian fits."""
    rng = np.random.default_rng(seed)
    angle = rng.random(n) * np.pi
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(rng.random(n) < 0.5, 1, -1)[:, None]
    return (x + rng.normal(scale=0.1, size=(n, 2))).astype("float32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_finds_the_gaussian_of_the_data(backend):
    """A linear flow is a Gaussian with a full covariance: the best one is the closed form."""
    cov = np.array([[2.0, 0.9, 0.0], [0.9, 1.0, -0.3], [0.0, -0.3, 0.5]])
    x = RNG.multivariate_normal([5.0, -2.0, 100.0], cov, size=2000).astype("float32")
    program = FlowModel(event_shape=(3,), flow=Chain(flows=(InvertibleLinear(), ActNorm())))
    fit = ppdgm.fit(program, x, backend=backend, steps=300, batch_size=500, learning_rate=0.02, **FAST)
    right = multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x).mean()
    found = fit.elbo(x)
    assert found.exact and 0 <= right - found.mean < 0.01
    drawn = fit.sample(20_000)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.1)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.06)


def test_it_beats_a_gaussian_and_integrates_to_one():
    train, test = two_moons(3000), two_moons(1000, seed=1)
    program = FlowModel(event_shape=(2,), flow=RealNVP(hidden=(32,), depth=6, activation="tanh"))
    fit = ppdgm.fit(program, train, backend="numpyro", steps=1500, batch_size=300, learning_rate=3e-3, **FAST)
    gain = fit.log_likelihood(test).values - multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test)
    assert gain.mean() > 3 * gain.std() / 1000**0.5
    side = np.linspace(-3, 3, 241)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype("float32")
    mass = np.exp(fit.elbo(grid).values.astype(float)).sum() * (side[1] - side[0]) ** 2
    assert abs(mass - 1) < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_given_covariates_it_finds_a_regression(backend):
    """x = A y + σ ε: with linear nets, log p(x|y) is the least squares' fit."""
    y = RNG.normal(size=(1500, 2)).astype("float32")
    x = (y @ np.array([[1.0, 2.0], [-1.0, 0.5]]) + 0.3 * RNG.normal(size=(1500, 2))).astype("float32")
    flow = RealNVP(hidden=(24,), depth=2, context_size=4)
    program = FlowModel(event_shape=(2,), covariates=(2,), flow=flow)
    data = {"x": x, "y": y}
    fit = ppdgm.fit(program, data, backend=backend, steps=800, batch_size=300, learning_rate=5e-3, **FAST)
    coefficients, *_ = np.linalg.lstsq(np.c_[y, np.ones(1500)], x, rcond=None)
    rest = x - np.c_[y, np.ones(1500)] @ coefficients
    right = multivariate_normal(np.zeros(2), np.cov(rest.T, bias=True)).logpdf(rest).mean()
    assert right - fit.elbo(data).mean < 0.15
    drawn = fit.sample(4000, given={"y": np.tile([[1.0, -1.0]], (4000, 1))})
    np.testing.assert_allclose(drawn.mean(0), [2.0, 1.5], atol=0.12)


def test_a_label_is_a_condition_too():
    label = RNG.integers(2, size=800)
    x = (np.where(label == 0, -3.0, 3.0)[:, None] + RNG.normal(size=(800, 2))).astype("float32")
    program = FlowModel(event_shape=(2,), classes=2, flow=RealNVP(context_size=4, **SMALL))
    fit = ppdgm.fit(
        program, {"x": x, "label": label}, backend="pyro", steps=400, batch_size=200, learning_rate=5e-3, **FAST
    )
    drawn = fit.sample(1000, given={"label": np.arange(1000) % 2})
    np.testing.assert_allclose([drawn[::2].mean(), drawn[1::2].mean()], [-3.0, 3.0], atol=0.4)
    assert fit.elbo({"x": x, "label": label}).mean > fit.elbo({"x": x, "label": 1 - label}).mean + 3


@pytest.mark.parametrize(
    "flow",
    [
        ActNorm(),
        Chain(flows=(ActNorm(), InvertibleLinear(), RealNVP(**SMALL), ActNorm(), NICE(**SMALL), ActNorm())),
        Glow(image=(2, 4, 4), levels=2, depth=3, hidden=5),
    ],
)
def test_norms_start_from_the_data_layer_by_layer(flow):
    """Every norm's outputs have mean 0 and standard deviation 1: seen on the noise, and by fitting it again."""
    width = 32
    x = RNG.gamma(2.0, size=(300, width)) * np.exp(RNG.normal(size=width)) + 10 * RNG.normal(size=width)
    program = FlowModel(event_shape=(2, 4, 4), flow=flow)
    first = program.initialise(0, {"x": x.reshape(-1, 2, 4, 4)}, "float64")
    without = program.initialise(0, None, "float64")
    assert {n for n in first if not np.array_equal(first[n], without[n])} == {
        n for n in first if n.endswith(("norm.shift", "norm.log_scale", ".shift", ".log_scale")) and "mix" not in n
        and not (n.endswith("log_scale") and n.replace("log_scale", "lower") in first)
        and not (n.endswith("log_scale") and n.replace("log_scale", "nets.0.layers.0.weight") in first)
    }  # fmt: skip
    P = NumpyVocabulary.over(first, program.declarations())
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for home in ("ppdgm.models.flows.linear", "ppdgm.models.flows.glow"):
            patch.setattr(f"{home}.settle_norm", lambda P, rows: seen.append((P, rows)))
        flow.settle(P.scope("flow"), x, None)
    assert seen
    for inner, rows in seen:
        out = np.exp(inner.param("log_scale")) * (rows + inner.param("shift"))
        np.testing.assert_allclose(out.mean(0), 0.0, atol=1e-9)
        np.testing.assert_allclose(out.std(0), 1.0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_actnorm_alone_is_standardisation(backend):
    x = (RNG.normal(size=(400, 3)) * [1.0, 5.0, 0.1] + [0.0, 10.0, 3.0]).astype("float32")
    program = FlowModel(event_shape=(3,), flow=ActNorm())
    fit = ppdgm.fit(program, x, backend=backend, steps=1, learning_rate=1e-9, **FAST)
    np.testing.assert_allclose(fit.elbo(x).values, norm.logpdf(x, x.mean(0), x.std(0)).sum(1), rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_jacobian_of_an_image_flow_is_that_of_its_numbers(backend):
    flow = Glow(image=(2, 4, 4), levels=2, depth=2, hidden=5, context_size=3)
    declared, seen = declare(flow, 32, True)
    params = draw_params(declared, 0.1)
    x, context, step = RNG.normal(size=(2, 32)), RNG.normal(size=(2, seen)), 1e-5
    moved = np.concatenate([x[:, None], x[:, None] + step * np.eye(32), x[:, None] - step * np.eye(32)], 1)
    call = lambda way, x, c: run(
        backend, lambda P, x, c: getattr(flow, way)(P.scope("flow"), x, c), params, declared, x, c
    )
    with precision("float64"):
        z, log_det = call("inverse", moved, context[:, None])
        back, back_det = call("forward", z[:, 0], context)
    slopes = (z[:, 1:33] - z[:, 33:]) / (2 * step)
    np.testing.assert_allclose(log_det[:, 0], np.linalg.slogdet(slopes)[1], rtol=1e-6)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(back_det, -log_det[:, 0], rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["plu", "full"])
def test_a_matrix_is_a_rotation_at_the_start_and_its_volume_is_right(form, backend):
    flow = InvertibleLinear(form=form)
    declared, _ = declare(flow, 4, False)
    first = {n: s.init(np.random.default_rng(0), s.shape, None) for n, s in declared.params.items()}
    x = RNG.normal(size=(5, 4))
    with precision("float64"):
        call = lambda params, x: run(backend, lambda P, x: flow.inverse(P.scope("flow"), x, None), params, declared, x)
        z, log_det = call(first, x)
        np.testing.assert_allclose((z**2).sum(1), (x**2).sum(1))
        np.testing.assert_allclose(log_det, 0.0, atol=1e-12)
        moved = {n: v if n in declared.states else v + 0.3 for n, v in first.items()}
        matrix = call(moved, np.eye(4))[0]
        np.testing.assert_allclose(call(moved, x)[1], np.linalg.slogdet(matrix)[1])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_over_numpy_are_those_of_the_backends(name):
    from ppdgm.language.vocabulary import Declarations

    x = np.linspace(-5, 5, 41)
    with precision("float64"):
        other = run("pyro", lambda P, x: P.activation(name, x), {"anchor": np.zeros(())}, Declarations(), x)
    np.testing.assert_allclose(NumpyVocabulary.over({}, Declarations()).activation(name, x), other, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0), (1, ((2, 0), (1, 3))), (2, ((0, 1), (2, 0)))])
def test_convolutions_over_numpy_are_those_of_the_backends(stride, padding):
    from ppdgm.language.vocabulary import Declarations

    x, weight, bias = RNG.normal(size=(2, 3, 6, 7)), RNG.normal(size=(4, 3, 3, 2)), RNG.normal(size=4)
    call = lambda P, x, w, b: P.conv2d(x, w, b, stride, padding)
    mine = call(NumpyVocabulary.over({}, Declarations()), x, weight, bias)
    with precision("float64"):
        for backend in BACKENDS:
            other = run(backend, call, {"anchor": np.zeros(())}, Declarations(), x, weight, bias)
            np.testing.assert_allclose(mine, other, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoder_with_a_flow_as_likelihood(backend):
    x = two_moons(400)
    program = VAE(event_shape=(2,), latent=1, likelihood=FlowLikelihood(flow=RealNVP(context_size=4, **SMALL)))
    fit = ppdgm.fit(program, x, backend=backend, steps=10, **FAST)
    assert np.isfinite(fit.elbo(x).values).all() and fit.sample(3).shape == (3, 2)
    assert fit.elbo(x, k=50).mean < fit.log_likelihood(x, k=50).mean + 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_numpy_finds_the_same_density(backend):
    label, y = RNG.integers(3, size=40), RNG.normal(size=(40, 2)).astype("float32")
    data = {"x": RNG.normal(size=(40, 2, 4)).astype("float32"), "label": label, "y": y}
    layers = (Glow(image=(2, 4), levels=1, depth=2, hidden=4, context_size=3), ActNorm(), InvertibleLinear(form="full"))
    flow = Chain(flows=(*layers, RealNVP(context_size=2, **SMALL), RQSpline(context_size=2, **SMALL)))
    program = FlowModel(event_shape=(2, 4), flow=flow, classes=3, covariates=(2,))
    with precision("float64"):
        fit = ppdgm.fit(program, data, backend=backend, steps=10, learning_rate=0.01, dtype="float64", **FAST)
        found = fit.elbo(data).values
    u, log_det = program.noise(fit.params, data)
    np.testing.assert_allclose(found, norm.logpdf(u).sum(1) + log_det, rtol=1e-9)


def test_what_can_not_be_is_refused():
    with pytest.raises(SpecError, match="Planar has no known inverse, and data have to be scored"):
        FlowModel(event_shape=(3,), flow=Planar())
    with pytest.raises(SpecError, match="scores a given z, and IAF needs D passes"):
        FlowModel(event_shape=(3,), flow=IAF())
    with pytest.raises(SpecError, match="scores a given z, and Chain needs D passes"):
        FlowModel(event_shape=(3,), flow=Chain(flows=(ActNorm(), IAF())))
    with pytest.raises(SpecError, match="at least one flow"):
        Chain(flows=())
    with pytest.raises(SpecError, match=r"Glow.image: got \(2, 2\) for vectors of width 6"):
        FlowModel(event_shape=(6,), flow=Glow(image=(2, 2))).declarations()
    with pytest.raises(SpecError, match="expected multiples of 4"):
        FlowModel(event_shape=(6, 6), flow=Glow(image=(6, 6))).declarations()
    program = FlowModel(event_shape=(2,))
    with pytest.warns(UserWarning, match="whole numbers, and a density of real numbers"):
        program.check({"x": RNG.integers(4, size=(20, 2)).astype(float)})
    with pytest.raises(DataError, match=r"field 'y', which p.x. does not read"):
        program.check({"x": RNG.normal(size=(20, 2)), "y": RNG.normal(size=(20, 1))})
    with pytest.raises(DataError, match=r"rows of shape \(3,\), expected \(1,\)"):
        FlowModel(event_shape=(2,), covariates=(1,)).check(
            {"x": RNG.normal(size=(20, 2)), "y": RNG.normal(size=(20, 3))}
        )
