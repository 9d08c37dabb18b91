"""The hierarchical VAE: exact where it is linear, its levels' KL, what it refuses."""

from itertools import product

import numpy as np
import pytest
from checks import SIGMAS, assert_within, check_every_draw, check_reaches_exact
from linear_levels import COVARIANCE, EXACT, MEAN, SHIFT, X, elbo_of_factors, linear
from readings import BACKENDS, RUNTIMES, get_runtime, run_trace
from reference.base import scale_between
from scipy.stats import norm
from test_contract import LOSSES, kl_error

import ppdgm
from ppdgm.errors import SpecError
from ppdgm.models import (
    MLP,
    VAE,
    FlowPosterior,
    Gaussian,
    GumbelSoftmax,
    HierarchicalVAE,
    Planar,
    RelaxedBernoulli,
    VampPrior,
)

GUIDES = ("factorised", "bottom_up", "top_down")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_guide = pytest.mark.parametrize("guide", GUIDES)


def log_weights(terms):
    return sum(terms.log_p.values()) - sum(terms.log_q.values())


# --- two linear levels ---------------------------------------------------------------------------------------------


def linear_fit(guide, backend, **options):
    program, params = linear(guide, **options)
    return ppdgm.Fit(program, params, backend=backend)


@every_backend
@pytest.mark.parametrize("guide", GUIDES[1:])
def test_with_the_exact_posterior_each_weight_is_the_likelihood(guide, backend):
    """Both chains hold the posterior of linear levels: p(z1|x) p(z2|z1) and p(z2|x) p(z1|z2, x)."""
    program, params = linear(guide)
    terms = ppdgm.trace(program, params, X, k=5, backend=backend)
    magnitude = sum(map(np.abs, [*terms.log_p.values(), *terms.log_q.values()]))
    check_every_draw(log_weights(terms), EXACT, magnitude, 1e-5)
    program, params = linear(guide, widen=1.1)
    with pytest.raises(AssertionError, match="relative error"):
        terms = ppdgm.trace(program, params, X, k=5, backend=backend)
        check_every_draw(log_weights(terms), EXACT, magnitude, 1e-5)


@pytest.mark.statistical
@every_backend
@every_guide
def test_the_importance_sampled_likelihood_is_exact(guide, backend):
    """A guide off the posterior and wider. Seed 0, 20,000 particles."""
    fit = linear_fit(guide, backend, widen=1.3, noise=0.02)
    estimate = fit.log_likelihood(X, k=20_000)
    check_reaches_exact(estimate, EXACT)
    with pytest.raises(AssertionError, match="errors of"):  # its wrong twin
        check_reaches_exact(estimate, EXACT + 0.02)


@pytest.mark.statistical
@every_backend
def test_the_elbo_of_factors_falls_short_by_their_kl(backend):
    fit = linear_fit("factorised", backend)
    estimate, expected = fit.elbo(X, k=20_000), elbo_of_factors()
    assert EXACT.mean() - expected.mean() > 20 * estimate.monte_carlo_error
    assert_within(estimate.mean, expected.mean(), estimate.monte_carlo_error, small=True)


@pytest.mark.statistical
@every_backend
def test_data_drawn_from_the_model_have_its_moments(backend):
    n = 20_000
    x = linear_fit("top_down", backend).sample(n)
    covariance = COVARIANCE[4:, 4:]
    assert_within(x.mean(0), MEAN[4:], np.sqrt(np.diag(covariance) / n))
    noise = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / n)
    assert_within(np.cov(x.T), covariance, noise)


# --- the KL of each level ------------------------------------------------------------------------------------------


@every_backend
@every_guide
def test_the_trace_has_each_levels_kl(guide, backend):
    program, params = linear(guide, widen=1.2)
    kl = ppdgm.trace(program, params, X, k=3, backend=backend, kl=True).kl
    assert set(kl) == ({"z2"} if guide == "bottom_up" else {"z1", "z2"})
    assert kl["z2"].shape == (3 if guide == "bottom_up" else 1, 8, 2)  # particles matter where a draw is given
    assert guide == "bottom_up" or kl["z1"].shape == (3, 8, 2)


@every_backend
def test_the_ladders_q_is_the_product_of_two_normals(backend):
    """One is p(z1|z2), here the same for all z2; the other is the guide's own."""
    program, params = linear("top_down")
    still = {n: 0 * params[n] for n in ("z1.encoder.layers.0.weight", "z1.conditional.layers.0.weight")}
    loc, raw = np.split(params["z1.encoder.layers.0.bias"].astype(float), 2)
    for moved, raw_model in product((0.0, 3.0), (-1.0, 9.0)):
        bias = np.concatenate([SHIFT + moved, np.full(2, raw_model)]).astype(np.float32)
        terms = ppdgm.trace(
            program, params | still | {"z1.conditional.layers.0.bias": bias}, X, k=3, backend=backend, kl=True
        )
        scale = scale_between(raw_model, 0.01, 10.0)
        own = scale_between(raw, 1e-4, 100.0)
        grid = np.linspace(-12, 12, 200_001)[:, None]
        log_product = norm(SHIFT + moved, scale).logpdf(grid) + norm(loc, own).logpdf(grid)
        density = np.exp(log_product - log_product.max(0))
        density /= density.sum(0) * (grid[1] - grid[0])
        z = terms.values["z1"]
        expected = np.stack([np.interp(z[..., i], grid[:, 0], np.log(density[:, i] + 1e-300)) for i in (0, 1)], -1)
        np.testing.assert_allclose(terms.log_q["z1"], expected.sum(-1), rtol=1e-3, atol=1e-3)
        log_ratio = np.log(density + 1e-300) - norm(SHIFT + moved, scale).logpdf(grid)
        kl = (density * log_ratio).sum(0) * (grid[1] - grid[0])
        np.testing.assert_allclose(terms.kl["z1"], np.broadcast_to(kl, terms.kl["z1"].shape), rtol=1e-3, atol=1e-5)


@pytest.mark.statistical
@every_backend
def test_a_closed_form_of_a_level_below_would_be_seen(backend, monkeypatch):
    """The wrong twin: bottom up, z1 is drawn before the z2 that p(z1|z2) is given. Seed 1, 20,000 particles."""
    program, params = linear("bottom_up", widen=1.2)
    right = run_trace(get_runtime(backend, program), params, {"x": X}, 20_000, seed=1, kl=True)
    difference, error, _ = kl_error(right)
    assert abs(difference) <= SIGMAS * error
    every_form = lambda q, p, latent, kl, enumerated: {n: kl(q[n], p[n]) for n in latent}
    monkeypatch.setattr("ppdgm.language.terms.closed_forms", every_form)
    wrong = run_trace(RUNTIMES[backend](program, "cpu"), params, {"x": X}, 20_000, seed=1, kl=True)
    assert set(wrong.kl) == {"z1", "z2"}
    difference, error, _ = kl_error(wrong)
    assert abs(difference) > 2 * SIGMAS * error


# --- a special case, and parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", GUIDES[:2])
def test_one_level_is_a_vae(guide):
    """With the same parameters, the same draws have the same weights, also where the prior mixes q(z|u)."""
    nets = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,)), "prior": VampPrior(components=3)}
    one, vae = (
        HierarchicalVAE(event_shape=(5,), latent=(2,), inference=guide, **nets),
        VAE(event_shape=(5,), latent=2, **nets),
    )
    x = (np.random.default_rng(0).normal(size=(6, 5)) > 0).astype(np.float32)
    params = vae.initialise(3, {"x": x})
    renamed = {n.replace("encoder.", "z1.encoder."): v for n, v in params.items()}
    expected = ppdgm.trace(vae, params, x, k=2)
    values = {"z1": expected.values["z"]}
    got = ppdgm.trace(one, renamed, x, k=2, values=values)
    np.testing.assert_allclose(log_weights(got), log_weights(expected), rtol=1e-6)


def test_what_model_and_guide_share_is_the_models():
    labels = {n: p.label for n, p in HierarchicalVAE(event_shape=(5,), latent=(3, 2)).declarations().params.items()}
    owners = {n.partition(".layers")[0]: label for n, label in labels.items()}
    assert owners == {
        "z1.conditional": "model", "decoder": "model", "encoder": "guide", "z2.features": "guide",
        "z2.encoder": "guide", "z1.encoder": "guide",
    }  # fmt: skip


def _program(**fields):
    return HierarchicalVAE(**{"event_shape": (5,), "latent": (3, 2), **fields})


REFUSED = {
    "no q(z_L|x)": ({"inference": "bottom_up", "prior": VampPrior()}, "prior: VampPrior .* draws z2 given z1"),
    "a flow in the ladder": ({"posterior": FlowPosterior(flow=Planar())}, "multiplies it by a diagonal normal"),
    "classes": ({"inference": "factorised", "posterior": GumbelSoftmax()}, "CategoricalPrior|categorical"),
    "bits": ({"inference": "bottom_up", "posterior": RelaxedBernoulli()}, "BernoulliPrior|binary"),
    "no level": ({"latent": ()}, "latent: got"),
    "an unknown guide": ({"inference": "topdown"}, "Did you mean 'top_down'"),
    "no scale between": ({"min_scale": 2.0, "max_scale": 1.0}, "max_scale: got 1.0; expected a number greater"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_the_reason(case):
    fields, words = REFUSED[case]
    with pytest.raises(SpecError, match=words):
        _program(**fields).declarations()


@every_backend
@pytest.mark.parametrize("skip", ["none", "all"])
def test_a_deep_ladder_is_finite_far_out(backend, skip):
    """Value and gradient in float32, data of ±50 and parameters five times their first values."""
    nets = {n: MLP(hidden=(8,)) for n in ("encoder", "decoder", "levels")}
    program = _program(latent=(2,) * 10, skip=skip, likelihood=Gaussian(), **nets)
    params = {n: 5.0 * v for n, v in program.initialise(0).items()}
    data = {"x": np.array([[50.0] * 5, [-50.0] * 5, [50.0, -50.0, 0.0, 50.0, -50.0]], np.float32)}
    value, gradients = LOSSES[backend](get_runtime(backend, program).tracer, data, None, 7)(params)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients.values())
