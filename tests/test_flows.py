"""Flows: their Jacobians, inverses, extremes and shapes, on both backends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flow_tools import apply, declare, draw_params, run, speak
from readings import BACKENDS, precision

from ppdgm.errors import SpecError
from ppdgm.models import IAF, MAF, RealNVP, RQSpline

_SMALL = {"depth": 3, "hidden": (8,), "activation": "tanh", "context_size": 2}
FLOWS = {
    "iaf": IAF(**_SMALL),
    "maf": MAF(**_SMALL, max_log_scale=1.5),
    "realnvp": RealNVP(**_SMALL),
    "spline": RQSpline(**_SMALL, bins=4, bound=3.0),
}
DIRECTIONS = ("forward", "inverse")
every_flow = pytest.mark.parametrize("name", FLOWS)
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)


def case(name, width, conditional, dtype="float64", size=6, **options):
    """(flow, its declarations, parameters, x [size, width], context [size, C] or None)."""
    flow, rng = FLOWS[name], np.random.default_rng(4)
    declared, seen = declare(flow, width, conditional)
    x = (2 * rng.normal(size=(size, width))).astype(dtype)
    context = rng.normal(size=(size, seen)).astype(dtype) if seen else None
    return flow, declared, draw_params(declared, dtype=dtype, **options), x, context


@pytest.mark.parametrize(("direction", "conditional"), [("forward", True), ("inverse", True), ("inverse", False)])
@every_flow
def test_log_det_is_that_of_the_jacobian_by_autodiff(name, direction, conditional):
    flow, declared, params, x, context = case(name, 4, conditional)

    def one(x, context):
        return getattr(flow, direction)(speak("numpyro", params, declared).scope("flow"), x, context)

    with precision("float64"):
        axes = (0, None if context is None else 0)
        both = lambda x, c: (one(x, c), jax.jacfwd(lambda x: one(x, c)[0])(x))
        (y, log_det), jacobians = jax.jit(jax.vmap(both, axes))(x, context)
        expected = np.linalg.slogdet(np.asarray(jacobians))[1]
        over_torch = apply("pyro", flow, direction, params, declared, x, context)
    assert y.dtype == over_torch[0].dtype == np.float64
    assert np.ptp(expected) > 0.1  # it depends on x
    np.testing.assert_allclose(log_det, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(over_torch[1], expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(over_torch[0], y, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("name", "width"), [("iaf", 1), ("maf", 1), *((n, w) for n in FLOWS for w in (2, 6))])
@every_backend
def test_there_and_back_in_float32(name, width, backend):
    """On |x| ≤ 5 to 1e-4, either way round; and the two log-determinants cancel."""
    flow, declared, params, x, context = case(name, width, True, "float32", size=200)
    x = np.random.default_rng(6).uniform(-5, 5, size=x.shape).astype("float32")

    def both_ways(P, x, context):
        P, results = P.scope("flow"), []
        for there, back in (DIRECTIONS, DIRECTIONS[::-1]):
            y, log_det = getattr(flow, there)(P, x, context)
            again, other = getattr(flow, back)(P, y, context)
            results += [y, again, log_det + other]
        return tuple(results)

    results = run(backend, both_ways, params, declared, x, context)
    for y, again, difference in (results[:3], results[3:]):
        assert np.abs(again - x).max() <= 1e-4
        assert np.abs(difference).max() <= 1e-4
        assert np.abs(y - x).max() > 0.1


@every_backend
@every_direction
@every_flow
def test_far_inputs_and_large_parameters_stay_finite(name, direction, backend):
    """±50 in x and context, with parameters of size 1: values and gradients in float32."""
    flow, declared, params, x, context = case(name, 4, True, "float32", scale=1.0)
    rng = np.random.default_rng(3)
    x, context = (50 * rng.choice([-1, 0, 1], size=a.shape).astype("float32") for a in (x, context))
    x[0], x[1] = FLOWS["spline"].bound, -FLOWS["spline"].bound  # the spline's ends

    if backend == "numpyro":

        def total(params, x, context):
            y, log_det = getattr(flow, direction)(speak(backend, params, declared).scope("flow"), x, context)
            return jnp.sum(jnp.tanh(y)) + log_det.sum(), (y, log_det)

        gradients, values = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(params, x, context)
    else:
        leaves = [{n: torch.tensor(v, requires_grad=True) for n, v in params.items()}]
        leaves += [torch.tensor(a, requires_grad=True) for a in (x, context)]
        P = speak(backend, leaves[0], declared).scope("flow")
        values = getattr(flow, direction)(P, *leaves[1:])
        (torch.tanh(values[0]).sum() + values[1].sum()).backward()
        gradients = [v.grad for v in (*leaves[0].values(), *leaves[1:])]
        values = [v.detach() for v in values]
    for array in jax.tree.leaves((gradients, values)):
        assert np.isfinite(np.asarray(array)).all()


@every_backend
@every_flow
def test_any_leading_dimensions_with_a_context_per_datum(name, backend):
    """x [K, B, D] beside a context [B, C], x [D] beside [C], and x [D] beside [B, C]."""
    flow, declared, params, _, _ = case(name, 3, True)
    rng = np.random.default_rng(7)
    x, context = rng.normal(size=(2, 2, 3)), rng.normal(size=(2, 2))

    def shapes(P, x, context):
        go = lambda *given: [f(P.scope("flow"), *given) for f in (flow.forward, flow.inverse)]
        return tuple(go(x, context)), tuple(go(x[1, 0], context[0])), tuple(go(x[1, 0], context))

    flat = lambda P, x, c: tuple(a for results in shapes(P, x, c) for pair in results for a in pair)
    with precision("float64"):
        results = run(backend, flat, params, declared, x, context)
    for of_all, of_one, of_several in zip(results[:4], results[4:8], results[8:], strict=True):
        assert of_all.shape in ((2, 2, 3), (2, 2))
        assert of_several.shape == of_all.shape[1:]
        np.testing.assert_allclose(of_one, of_all[1, 0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(of_several[0], of_one, rtol=0, atol=1e-12)


@every_flow
def test_first_values_are_near_the_identity(name):
    """IAF's gates start at σ = 0.01 + 0.99 sigmoid(2), so three layers multiply by σ³."""
    flow, declared, params, x, context = case(name, 4, True, scale=0.0)
    gate = (0.01 + 0.99 / (1 + np.exp(-2))) ** 3 if name == "iaf" else 1.0
    with precision("float64"):
        y, log_det = apply("numpyro", flow, "forward", params, declared, x, context)
    assert np.abs(y - gate * x).max() < 0.1
    assert np.abs(log_det - 4 * np.log(gate)).max() < 0.1


@every_flow
def test_every_coordinate_moves_and_sees_its_context(name):
    """From two layers on; and in an autoregressive flow or with the halves swapped, each sees some other."""
    flow, declared, params, x, context = case(name, 4, True)
    P = speak("numpyro", params, declared).scope("flow")
    with precision("float64"):
        slopes = jax.jit(jax.jacfwd(lambda x, c: flow.forward(P, x, c)[0], (0, 1)))
        by_x, by_context = slopes(x[0] / 5, context[0])
    assert (np.abs(np.diag(by_x)) > 1e-3).all()
    assert (np.abs(by_context).max(1) > 1e-4).all()
    assert ((np.abs(by_x) > 1e-6).sum(1) >= 2).all()


def test_the_spline_is_the_identity_outside_its_bound_and_smooth_there():
    flow, declared, params, _, context = case("spline", 2, True)
    x = np.array([[4.0, -7.0], [-3.01, 5.0], [50.0, 3.1]])
    with precision("float64"):
        y, log_det = apply("numpyro", flow, "forward", params, declared, x, context[:3])
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(log_det, 0.0)
        edge = np.array([[2.9, 3.0 - 1e-6], [2.9, 3.0 + 1e-6], [2.9, 2.0]])
        one = flow.replace(depth=1)  # which moves the second coordinate
        y, log_det = apply("numpyro", one, "forward", params, declared, edge, np.stack([context[0]] * 3))
        P = speak("numpyro", params, declared).scope("flow")
        slope = jax.jit(jax.grad(lambda x: flow.forward(P, x, context[0])[0].sum()))(np.array([1e200, -1e200]))
    np.testing.assert_array_equal(slope, 1.0)  # nothing overflows on the way to the branch that is not taken
    assert abs(y[1, 1] - y[0, 1] - 2e-6) < 1e-10
    assert abs(log_det[0]) < 1e-4 < abs(log_det[2])  # its slope is 1 at the end, as outside


@pytest.mark.parametrize("name", ["realnvp", "spline"])
def test_couplings_refuse_a_width_of_one(name):
    with pytest.raises(SpecError, match="got a latent of width 1, expected at least 2, because one half"):
        declare(FLOWS[name], 1, False)


def test_inputs_of_the_context_alone_move_a_flow_of_width_one():
    flow, declared, params, _, context = case("iaf", 1, True)
    with precision("float64"):
        y, log_det = apply("numpyro", flow, "forward", params, declared, np.ones((6, 1)), context)
    assert len(np.unique(y)) == len(np.unique(log_det)) == 6
