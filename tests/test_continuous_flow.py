"""Flows in continuous time: closed forms, order of the error, estimates of the trace, adjoints, densities."""

import sys

import jax
import numpy as np
import pytest
import torch
from flow_tools import Plain, apply, declare, draw_params, run, speak
from readings import BACKENDS, precision
from scipy.linalg import expm
from scipy.stats import multivariate_normal, norm

import ppdgm
from ppdgm.errors import ProgramError, SpecError, UnsupportedByBackend
from ppdgm.inference import IWAE, MonteCarloEM, Resampled, ReweightedWakeSleep
from ppdgm.models import (
    MLP,
    VAE,
    ActNorm,
    Chain,
    ContinuousFlow,
    FlowLikelihood,
    FlowModel,
    FlowPosterior,
    FlowPrior,
    Gaussian,
)

FAST = {"compile": False, "progress": False}
A = np.array([[0.5, -1.2, 0.3], [0.7, -0.4, 0.2], [-0.3, 0.9, 0.8]])
LINEAR = ContinuousFlow(hidden=(), steps=4)
SMALL = ContinuousFlow(hidden=(5, 4), steps=12, context_size=2)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def linear(flow, matrix=A):
    """(what it declares, parameters) of dz/dt = z A, without a term of time."""
    declared, _ = declare(flow, len(matrix), False)
    weight = np.concatenate([matrix, np.zeros((1, len(matrix)))])
    return declared, {"flow.field.layers.0.weight": weight, "flow.field.layers.0.bias": np.zeros(len(matrix))}


@every_backend
def test_a_linear_field_is_the_exponential_of_its_matrix_and_the_error_falls_with_the_fourth_power(backend):
    x, errors = np.random.default_rng(0).normal(size=(6, 3)), []
    with precision("float64"):
        for steps in (4, 8, 16):
            flow = LINEAR.replace(steps=steps)
            declared, params = linear(flow)
            y, log_det = apply(backend, flow, "forward", params, declared, x)
            np.testing.assert_allclose(log_det, np.trace(A), rtol=1e-12)
            back, back_det = apply(backend, flow, "inverse", params, declared, x @ expm(A))
            np.testing.assert_allclose(back_det, -np.trace(A), rtol=1e-12)
            errors.append([np.abs(y - x @ expm(A)).max(), np.abs(back - x).max()])
    rates = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(rates, 4.0, atol=0.35)
    assert np.max(errors[-1]) < 1e-6


def test_a_term_of_time_is_integrated_too():
    """dz/dt = 6 t (1, 2): by the order of the method, exactly z + 3 (1, 2)."""
    flow = ContinuousFlow(hidden=(), steps=1)
    declared, params = linear(flow, np.zeros((2, 2)))
    params["flow.field.layers.0.weight"][2] = [6.0, 12.0]
    with precision("float64"):
        for backend in BACKENDS:
            y, log_det = apply(backend, flow, "forward", params, declared, np.ones((1, 2)))
            np.testing.assert_allclose(y, [[4.0, 7.0]])
            np.testing.assert_allclose(log_det, 0.0)


class Training(Plain):
    """As in a training step: terms may be estimates."""

    def estimates(self, what):
        return True

    def noise(self):
        return self.key


@every_backend
@pytest.mark.parametrize("noise", ["rademacher", "normal"])
def test_the_estimate_of_the_trace_has_its_mean_and_its_variance(noise, backend):
    """Within 4 standard errors, at 40,000 rows of a fixed seed: S = (A + Aᵀ)/2; 2(|S|² − Σ S_ii²), or 2|S|²."""
    flow, n = LINEAR.replace(noise=noise, steps=1), 40_000
    declared, params = linear(flow)
    with precision("float64"):
        P = speak(backend, params, declared)
        P.interpreter = Training()
        P.interpreter.key = jax.random.key(3) if backend == "numpyro" else None
        rows = np.zeros((n, 3))
        with torch.random.fork_rng():
            torch.manual_seed(3)
            rows = jax.numpy.asarray(rows) if backend == "numpyro" else torch.tensor(rows)
            found = np.asarray(flow.forward(P.scope("flow"), rows, None)[1])
    s = (A + A.T) / 2
    variance = 2 * (s**2).sum() - (2 * (np.diag(s) ** 2).sum() if noise == "rademacher" else 0.0)
    assert abs(found.mean() - np.trace(A)) < 4 * found.std() / n**0.5
    squares = (found - np.trace(A)) ** 2
    assert abs(squares.mean() - variance) < 4 * squares.std() / n**0.5
    other = 2 * (s**2).sum() - (0.0 if noise == "rademacher" else 2 * (np.diag(s) ** 2).sum())
    assert abs(squares.mean() - other) > 8 * squares.std() / n**0.5  # a wrong twin


# --- log|det| and its gradient ---------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("activation", ["tanh", "softplus", "silu", "sigmoid"])
def test_the_exact_trace_is_that_of_the_jacobian(activation, backend):
    """log|det| of the map by differences, for two hidden layers and a context; 40 steps, so that both converge."""
    flow = SMALL.replace(activation=activation, steps=40)
    declared, seen = declare(flow, 3, True)
    params, rng = draw_params(declared, 0.5), np.random.default_rng(1)
    x, context, step = rng.normal(size=(2, 3)), rng.normal(size=(2, seen)), 1e-5
    moved = x[:, None] + step * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    with precision("float64"):
        y, log_det = apply(backend, flow, "forward", params, declared, moved, context[:, None])
        back, back_det = apply(backend, flow, "inverse", params, declared, y[:, 0], context)
    slopes = (y[:, 1:4] - y[:, 4:]) / (2 * step)
    np.testing.assert_allclose(log_det[:, 0], np.linalg.slogdet(slopes)[1], atol=1e-6)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(back_det, -log_det[:, 0], atol=1e-6)
    assert np.abs(log_det).min() > 1e-2


@every_backend
def test_the_trace_of_the_velocity_is_that_of_automatic_differentiation(backend):
    declared, seen = declare(SMALL, 3, True)
    params, rng = draw_params(declared, 0.5), np.random.default_rng(1)
    x, context = rng.normal(size=(4, 3)), rng.normal(size=(4, seen))

    def both(P, x, context):
        z, args = SMALL._start(P.scope("flow"), x, context)
        t = P.full((), 0.3)
        value, pull = P.vjp(lambda z: SMALL._velocity(P, t, z, args)[0], z)
        trace = sum(pull(P.constant(e) + 0.0 * value)[..., i] for i, e in enumerate(np.eye(3)))
        return SMALL._rates_exact(P)(t, (z, z[..., 0]), args)[1], trace

    with precision("float64"):
        np.testing.assert_allclose(*run(backend, both, params, declared, x, context), rtol=1e-10)


def gradients(backend, flow, direction, x, context):
    """The loss Σ sin y + Σ w log|det|, and its gradient by parameters, x and context, float64."""
    declared, _ = declare(flow, x.shape[1], True)
    params, weights = draw_params(declared, 0.5), np.linspace(-1.0, 2.0, len(x))

    def loss(P, x, context):
        y, log_det = getattr(flow, direction)(P.scope("flow"), x, context)
        return P.xp.sum(P.xp.sin(y)) + P.xp.sum(P.constant(weights) * log_det)

    with precision("float64"):
        if backend == "numpyro":
            of = lambda params, x, context: loss(speak(backend, params, declared), x, context)
            value, found = jax.jit(jax.value_and_grad(of, (0, 1, 2)))(params, x, context)
            return float(value), jax.tree.map(np.asarray, {**found[0], "x": found[1], "context": found[2]})
        P = speak(backend, params, declared)
        leaves = {**P.params, "x": torch.tensor(x), "context": torch.tensor(context)}
        for leaf in leaves.values():
            leaf.requires_grad_()
        value = loss(P, leaves["x"], leaves["context"])
        value.backward()
        return value.item(), {n: leaf.grad.numpy() for n, leaf in leaves.items()}


def apart(one, other):
    return max(np.abs(one[n] - other[n]).max() for n in one)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_the_adjoint_is_the_gradient_up_to_the_error_of_the_solver(direction):
    """It falls with the fourth power of the step too; both backends have the same numbers."""
    rng = np.random.default_rng(2)
    x, context, errors, flow = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), [], SMALL.replace(hidden=(5,))
    for steps in (4, 8):
        both = [
            gradients("pyro", flow.replace(steps=steps, gradient=g), direction, x, context)
            for g in ("solver", "adjoint")
        ]
        errors.append(apart(both[0][1], both[1][1]))
    assert 1e-9 < errors[1] < 1e-3 and 2.5 < np.log2(errors[0] / errors[1]) < 6
    for gradient, (value, slopes) in zip(("solver", "adjoint"), both, strict=True):
        if direction == "forward" or gradient == "adjoint":
            other, others = gradients("numpyro", flow.replace(steps=8, gradient=gradient), direction, x, context)
            assert other == pytest.approx(value, rel=1e-10) and apart(slopes, others) < 1e-9


def test_the_gradient_is_that_of_differences():
    rng = np.random.default_rng(2)
    x, context, flow, step = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), SMALL.replace(hidden=(4,)), 1e-5
    _, found = gradients("pyro", flow, "inverse", x, context)
    for at in ((0, 0), (2, 1)):
        by = np.zeros((3, 2))
        by[at] = step
        of_x, of_context = (
            [
                gradients("pyro", flow, "inverse", x + sign * moved, context + sign * by - sign * moved)[0]
                for sign in (1, -1)
            ]
            for moved in (by, 0.0 * by)
        )
        assert found["x"][at] == pytest.approx((of_x[0] - of_x[1]) / (2 * step), rel=1e-5)
        assert found["context"][at] == pytest.approx((of_context[0] - of_context[1]) / (2 * step), rel=1e-5)


@every_backend
@pytest.mark.parametrize("gradient", ["solver", "adjoint"])
def test_adaptive_steps_find_the_same(gradient, backend):
    rng = np.random.default_rng(2)
    x, context = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    flow = SMALL.replace(hidden=(5,), steps=40)
    value, right = gradients("pyro", flow, "inverse", x, context)
    adaptive = flow.replace(solver="dopri5", steps=8, tolerance=1e-8, gradient=gradient)
    found, slopes = gradients(backend, adaptive, "inverse", x, context)
    assert found == pytest.approx(value, abs=1e-6)
    assert apart(slopes, right) < 1e-5


@every_backend
def test_without_the_extra_it_says_which(backend, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax" if backend == "numpyro" else "torchdiffeq", None)
    program = FlowModel(event_shape=(2,), flow=ContinuousFlow(hidden=(3,), solver="dopri5"))
    with pytest.raises(UnsupportedByBackend, match=r"diff\w+', which is not installed: pip install 'ppdgm\[ode\]'"):
        ppdgm.fit(program, two_moons(20), backend=backend, steps=1, **FAST)


@every_backend
def test_a_solution_that_takes_too_many_steps_is_not_a_number(backend, monkeypatch):
    home = "ppdgm.backends.numpyro.ode" if backend == "numpyro" else "ppdgm.backends.pyro.ode"
    monkeypatch.setattr(f"{home}.MOST_STEPS", 2)
    flow = LINEAR.replace(solver="dopri5", steps=8, tolerance=1e-9)
    declared, params = linear(flow)
    with precision("float64"):
        y, log_det = apply(backend, flow, "forward", params, declared, np.ones((1, 3)))
    assert np.isnan(y).all() and np.isnan(log_det).all()


# --- programs --------------------------------------------------------------------------------------------------------


def two_moons(n, seed=0):
    rng = np.random.default_rng(seed)
    angle, side = rng.random(n) * np.pi, rng.random(n) < 0.5
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    return (np.where(side[:, None], x, [1.0, 0.4] - x) + rng.normal(scale=0.1, size=(n, 2))).astype("float32")


def test_as_a_density_of_data_it_beats_a_gaussian_integrates_to_one_and_is_the_same_on_both_backends():
    train, test = two_moons(2000), two_moons(500, seed=1)
    program = FlowModel(event_shape=(2,), flow=ContinuousFlow(hidden=(32,), steps=4))
    fit = ppdgm.fit(program, train, steps=300, batch_size=100, learning_rate=0.02, **FAST)
    found = fit.log_likelihood(test)
    gain = found.values - multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test)
    assert gain.mean() > 3 * gain.std() / 500**0.5
    side = np.linspace(-3.5, 3.5, 141)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype("float32")
    assert np.exp(fit.elbo(grid).values.astype(float)).sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)
    other = ppdgm.Fit(program=program, params=fit.params, backend="pyro").elbo(test)
    assert found.exact and other.exact
    np.testing.assert_allclose(found.values, other.values, rtol=1e-4, atol=1e-4)
    u, log_det = program.noise(fit.params, test)
    np.testing.assert_allclose(found.values, norm.logpdf(u).sum(1) + log_det, rtol=1e-4, atol=1e-4)


@every_backend
@pytest.mark.parametrize("gradient", ["solver", "adjoint"])
def test_training_with_estimates_moves_towards_the_data_and_reports_are_exact(gradient, backend):
    """A shifted, scaled Gaussian given y; evaluations repeat to the bit, and NumPy finds the same density."""
    train_given_y(ContinuousFlow(hidden=(8,), context_size=3, steps=3, gradient=gradient), backend)


@every_backend
def test_training_with_adaptive_steps_does_so_too(backend):
    train_given_y(ContinuousFlow(hidden=(8,), context_size=3, solver="dopri5", gradient="adjoint"), backend)


def train_given_y(flow, backend):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(300, 1)).astype("float32")
    x = (y * [1.0, -1.0] + 0.5 * rng.normal(size=(300, 2))).astype("float32")
    program = FlowModel(event_shape=(2,), covariates=(1,), flow=flow, context=MLP(hidden=()))
    data = {"x": x, "y": y}
    fit = ppdgm.fit(
        program, data, backend=backend, steps=60, batch_size=100, learning_rate=0.03, validation=data, **FAST
    )
    found = fit.elbo(data)
    assert found.exact and found.mean > fit.history["validation_elbo"][0] + 0.3
    np.testing.assert_array_equal(found.values, fit.elbo(data, seed=5).values)
    u, log_det = program.noise(fit.params, data)
    np.testing.assert_allclose(found.values, norm.logpdf(u).sum(1) + log_det, rtol=1e-3, atol=1e-3)
    drawn = fit.sample(1000, given={"y": np.full((1000, 1), 2.0)})
    assert drawn[:, 0].mean() - drawn[:, 1].mean() > 0.5


@every_backend
def test_as_prior_posterior_and_likelihood(backend):
    x, net = two_moons(60), MLP(hidden=(4,))
    flow = ContinuousFlow(hidden=(4,), steps=3, context_size=2)
    parts = {
        "prior": FlowPrior(flow=flow),
        "posterior": FlowPosterior(flow=flow),
        "likelihood": FlowLikelihood(flow=flow),
    }
    program = VAE(event_shape=(2,), latent=2, encoder=net, decoder=net, **parts)
    fit = ppdgm.fit(program, x, backend=backend, steps=5, **FAST)
    assert np.isfinite(fit.history["elbo"]).all() and np.isfinite(fit.log_likelihood(x, k=20).values).all()
    z = fit.encode(x, k=3)
    trace = ppdgm.trace(program, fit.params, x, k=3, backend=backend, values={"z": z})
    other = ppdgm.trace(
        program, fit.params, x, k=3, backend="pyro" if backend == "numpyro" else "numpyro", values={"z": z}
    )
    for terms in ("log_p", "log_q"):
        for name, values in getattr(trace, terms).items():
            np.testing.assert_allclose(values, getattr(other, terms)[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("engine", "backend"),
    [
        (IWAE(k=3), "numpyro"),
        (IWAE(k=3), "pyro"),
        (ReweightedWakeSleep(k=3), "pyro"),
        (MonteCarloEM(sampler=Resampled(k=3)), "pyro"),
    ],
)
def test_engines_that_weigh_draws_need_the_exact_trace(engine, backend):
    net, flow = MLP(hidden=(4,)), ContinuousFlow(hidden=(4,), steps=2)
    make = lambda flow: VAE(
        event_shape=(2,), latent=2, prior=FlowPrior(flow=flow), likelihood=Gaussian(), encoder=net, decoder=net
    )
    with pytest.raises(ProgramError, match=r"needs exact log-densities.*trace of ContinuousFlow.*trace='exact'.*SVI"):
        ppdgm.fit(make(flow), two_moons(20), engine=engine, backend=backend, steps=1, **FAST)
    ppdgm.fit(make(flow.replace(trace="exact")), two_moons(20), engine=engine, backend=backend, steps=1, **FAST)


def test_norms_before_it_start_from_the_data():
    x = two_moons(300) * [3.0, 1.0] + [5.0, 0.0]
    program = FlowModel(event_shape=(2,), flow=Chain(flows=(ActNorm(), ContinuousFlow(hidden=(4,)))))
    u, _ = program.noise(program.initialise(0, {"x": x}, "float64"), x)
    np.testing.assert_allclose([u.mean(0), u.std(0)], [[0, 0], [1, 1]], atol=1e-9)


def test_the_librarys_tools_see_the_exact_density():
    import pyro

    program, x = FlowModel(event_shape=(2,), flow=ContinuousFlow(hidden=(4,), steps=2)), two_moons(10)
    params = program.initialise(0)
    total = pyro.poutine.trace(program.bind("pyro", params)[0]).get_trace(torch.tensor(x)).log_prob_sum()
    right = ppdgm.Fit(program=program, params=params).elbo(x).values.sum()
    assert total.item() == pytest.approx(right, rel=1e-5)


def test_what_can_not_be_is_refused():
    for activation in ("relu", "leaky_relu", "elu"):
        with pytest.raises(SpecError, match=rf"{activation} is not smooth.*Use tanh, softplus"):
            ContinuousFlow(activation=activation)
    with pytest.raises(SpecError, match=r"tolerance is a setting of solver='dopri5', but solver is 'rk4'"):
        ContinuousFlow(tolerance=1e-3)
    with pytest.raises(SpecError, match=r"steps is a setting of solver='rk4'"):
        ContinuousFlow(steps=3, solver="dopri5")
    with pytest.raises(SpecError, match=r"noise is a setting of trace='hutchinson'"):
        ContinuousFlow(noise="normal", trace="exact")
