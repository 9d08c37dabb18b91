"""Planar and Sylvester flows: log-determinants, constraints, orthogonality, densities without an inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.stats import norm

from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.backends.pyro.vocabulary import TorchVocabulary
from ppdgm.errors import ProgramError, SpecError
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import FlowPrior, Planar, Sylvester
from ppdgm.models.flows.planar import planar_step
from ppdgm.models.flows.sylvester import orthonormal, reflect
from ppdgm.program import Context

FLOWS = {
    "planar": Planar(depth=3),
    "orthogonal": Sylvester(depth=2),
    "square": Sylvester(depth=2, columns=4),
    "householder": Sylvester(depth=2, basis="householder", reflections=3),
}
WIDTH = 4
every_flow = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)


def over_jax(dtype="float64"):
    return JaxVocabulary(None, {"like": jnp.zeros((), dtype)}, Declarations())


def over_torch(dtype="float64"):
    return TorchVocabulary(None, {"like": torch.zeros((), dtype=getattr(torch, dtype))}, Declarations())


def numbers(flow, rng, *lead, scale=1.0, width=WIDTH):
    return scale * rng.normal(size=(*lead, flow.build(Context(Declarations()), width, conditional=True)))


@every_flow
def test_log_det_is_that_of_the_jacobian(flow):
    """Against autodiff, in float64, at 20 points with contexts of their own."""
    rng = np.random.default_rng(0)
    x, context = rng.normal(size=(20, WIDTH)), numbers(flow, rng, 20)
    with jax.enable_x64(True):
        found = flow.forward(over_jax(), jnp.asarray(x), jnp.asarray(context))[1]
        jacobian = jax.jit(jax.vmap(jax.jacobian(lambda x, c: flow.forward(over_jax(), x, c)[0])))(x, context)
    expected = np.linalg.slogdet(np.asarray(jacobian))
    assert (expected.sign == 1).all()
    np.testing.assert_allclose(found, expected.logabsdet, rtol=0, atol=1e-8)
    assert np.abs(expected.logabsdet).min() > 1e-3


@every_flow
def test_both_backends_agree(flow):
    rng = np.random.default_rng(1)
    x, context = rng.normal(size=(2, 3, 5, WIDTH)), numbers(flow, rng, 5)
    there = [a.numpy() for a in flow.forward(over_torch(), torch.tensor(x), torch.tensor(context))]
    with jax.enable_x64(True):
        forward = jax.jit(lambda x, c: flow.forward(over_jax(), x, c))
        here, alone = forward(x, context), forward(x[1, 2, 3], context[3])
    for a, b, one in zip(here, there, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(b[1, 2, 3], one, rtol=1e-10, atol=1e-12)


@every_flow
def test_parameters_stand_in_for_a_context(flow):
    context = Context(Declarations())
    assert flow.build(context, WIDTH, conditional=False) == 0
    ((name, spec),) = context.declared.params.items()
    assert (name, spec.shape) == ("numbers", numbers(flow, np.random.default_rng(0)).shape)
    value = spec.init(np.random.default_rng(0), spec.shape, None)
    x = torch.ones(3, WIDTH)
    given, P = torch.tensor(value), over_torch()
    P.interpreter, P.params = type("Plain", (), {"param": lambda self, name, value: value})(), {"numbers": given}
    for a, b in zip(flow.forward(P, x, None), flow.forward(over_torch(), x, given), strict=True):
        assert torch.equal(a, b)


def importance(flow, sign):
    """The mean of r/q over draws of q, and its standard error, with r narrower than q; `sign` is log|det|’s."""
    rng = np.random.default_rng(2)
    first, context = rng.normal(size=(100_000, WIDTH)), numbers(flow, rng, scale=0.5)
    with jax.enable_x64(True):
        forward = jax.jit(lambda x, c: flow.forward(over_jax(), x, c))
        z, log_det = (np.asarray(a) for a in forward(jnp.asarray(first), jnp.asarray(context)))
    log_q = norm.logpdf(first).sum(1) - sign * log_det
    weights = np.exp(norm.logpdf(z, z.mean(0), 0.5 * z.std(0)).sum(1) - log_q)
    return weights.mean(), weights.std(ddof=1) / len(weights) ** 0.5


@pytest.mark.statistical
@every_flow
def test_the_density_is_normalised_though_no_inverse_is_known(flow):
    """E_q[r/q] = 1 for a density r, within 4 standard errors of 100,000 draws, seed 2; with a wrong twin."""
    mean, error = importance(flow, sign=1)
    assert error < 0.02
    assert abs(mean - 1) < 4 * error
    mean, error = importance(flow, sign=-1)
    assert abs(mean - 1) > 8 * error


# --- planar --------------------------------------------------------------------------------------------------------


def corrected(P, u, w, dtype=np.float64):
    """û: what a step adds where the tanh is 1."""
    arrays = (np.zeros_like(u), u, w, np.full((*u.shape[:-1], 1), 50.0))
    put = torch.tensor if isinstance(P, TorchVocabulary) else jnp.asarray
    z, _ = planar_step(P, *(put(a.astype(dtype)) for a in arrays))
    return np.asarray(z)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_planar_steps_are_invertible(scale):
    """wᵀû ≥ −1, and û is u where wᵀu ≥ 0 already."""
    rng = np.random.default_rng(3)
    u, w = scale * rng.normal(size=(2, 1000, 3))
    a = (u * w).sum(1)
    with jax.enable_x64(True):
        moved = corrected(over_jax(), u, w)
    np.testing.assert_allclose((moved * w).sum(1), np.where(a > 0, a, np.expm1(np.minimum(a, 0))), rtol=1e-5, atol=1e-9)
    assert ((moved * w).sum(1) >= -1 - 1e-9).all()
    np.testing.assert_allclose(moved[a >= 0], u[a >= 0], rtol=1e-12)


@pytest.mark.parametrize("P", [over_jax("float32"), over_torch("float32")], ids=["numpyro", "pyro"])
def test_planar_steps_stay_finite_as_w_vanishes(P):
    """û → u, where the paper's m leaves a w/‖w‖² that grows without end."""
    rng = np.random.default_rng(4)
    u, direction = rng.normal(size=(2, 100, 3))
    for size in (0.0, 1e-30, 1e-12, 1e-6, 1e-3):
        moved = corrected(P, u, size * direction, np.float32)
        assert np.abs(moved - u).max() <= 1e-5 + 20 * size


# --- Sylvester -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "columns"), [(1, 1), (5, 2), (40, 16), (8, 8), (40, 40)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_columns_are_orthonormal(width, columns, scale):
    """To 1e-5 in float32, on both backends; those of Gram and Schmidt, in float64."""
    rng = np.random.default_rng(5)
    a = scale * rng.normal(size=(50, width, columns)) + np.eye(width, columns)
    for P, put in ((over_jax("float32"), jnp.asarray), (over_torch("float32"), torch.tensor)):
        q = np.asarray(orthonormal(P, put(a.astype(np.float32))))
        assert np.abs(np.swapaxes(q, -1, -2) @ q - np.eye(columns)).max() < 1e-5
    q, expected = orthonormal(over_torch(), torch.tensor(a)).numpy(), np.zeros_like(a)
    for m in range(columns):
        rest = a[:, :, m]
        for _ in range(2):  # twice is enough
            rest = rest - np.einsum("nij,nkj,nk->ni", expected, expected, rest)
        expected[:, :, m] = rest / np.linalg.norm(rest, axis=1, keepdims=True)
    np.testing.assert_allclose(q, expected, atol=1e-8)


def test_reflections_keep_lengths():
    rng = np.random.default_rng(6)
    y = rng.normal(size=(100, 3))
    for size in (0.0, 1e-12, 1e-3, 1.0, 50.0):
        moved = reflect(over_torch(), torch.tensor(size * rng.normal(size=(100, 3))), torch.tensor(y)).numpy()
        np.testing.assert_allclose((moved**2).sum(1), (y**2).sum(1), rtol=1e-12)


def test_more_columns_than_dimensions_are_refused():
    with pytest.raises(SpecError, match=r"Sylvester.columns: got 5, expected at most 4, the width of the latent"):
        Sylvester(columns=5).build(Context(Declarations()), 4, conditional=True)


# --- both ----------------------------------------------------------------------------------------------------------


@every_flow
@pytest.mark.parametrize("scale", [0.0, 50.0])
def test_values_and_gradients_are_finite_at_the_extremes(flow, scale):
    """float32, x and all numbers of the context up to 50 in size, or 0."""
    rng = np.random.default_rng(7)
    x = scale * rng.choice([-1.0, 1.0], size=(50, WIDTH))
    context = scale * rng.choice([-1.0, 1.0], size=numbers(flow, rng, 50).shape)

    def total(P, x, context):
        z, log_det = flow.forward(P, x, context)
        return (z * z).sum() + log_det.sum()

    native = [torch.tensor(a.astype(np.float32), requires_grad=True) for a in (x, context)]
    gradients = torch.autograd.grad(total(over_torch("float32"), *native), native)
    assert all(torch.isfinite(g).all() for g in gradients)
    value, gradients = jax.jit(jax.value_and_grad(lambda *a: total(over_jax("float32"), *a), argnums=(0, 1)))(
        *(jnp.asarray(a, jnp.float32) for a in (x, context))
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@every_flow
def test_there_is_no_way_back(flow):
    with pytest.raises(SpecError, match=f"{type(flow).__name__} has no known inverse"):
        FlowPrior(flow=flow)
    with pytest.raises(ProgramError, match=f"{type(flow).__name__} has no known inverse"):
        flow.inverse(over_torch(), torch.zeros(WIDTH), None)
