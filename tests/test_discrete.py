"""Discrete latents: their relaxations' densities, what the decoder sees, and the program that evaluations score."""

import jax
import jax.numpy as jnp
import numpy as np
import pyro.distributions as pyro_dist
import pytest
import torch
from discrete_parts import (
    X,
    array,
    check_slopes,
    draw,
    every_backend,
    gradient,
    make,
    moved,
    score,
    speak,
    training_trace,
    vae,
)
from readings import BACKENDS, get_runtime, precision, run_trace
from reference import log_joint_and_guide
from reference.base import PRIORS
from scipy.special import expit, log_softmax, rel_entr, softmax
from scipy.stats import chisquare

import ppdgm
from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds
from ppdgm.models import BernoulliPrior, CategoricalPrior, GumbelSoftmax, RelaxedBernoulli

# --- densities and draws ---------------------------------------------------------------------------------------------


@pytest.mark.statistical
@every_backend
def test_the_largest_class_of_a_draw_has_the_frequencies_of_a_categorical(backend):
    """Gumbel-max, of the relaxation and of its discrete distribution: chi-square at level 1e-3. Seed 0, n = 20,000."""
    n, logits, log_odds = 20_000, np.log([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]), np.array([-1.0, 0.5])
    relaxed = make(backend, GumbelSoftmax(classes=3, temperature=0.7), logits, "float32")
    bits = make(backend, RelaxedBernoulli(temperature=0.7), log_odds, "float32")
    for dist in (relaxed, relaxed.discrete):
        drawn = draw(dist, n).argmax(-1)
        for latent in (0, 1):
            seen = np.bincount(drawn[:, latent], minlength=3)
            assert chisquare(seen, n * softmax(logits[latent])).pvalue > 1e-3
            assert chisquare(seen, n * softmax(logits[1 - latent])).pvalue < 1e-10  # the wrong twin
    for dist in (bits, bits.discrete):
        on = (draw(dist, n) > 0).sum(0)
        for latent, p in enumerate(expit(log_odds)):
            assert chisquare([on[latent], n - on[latent]], [n * p, n * (1 - p)]).pvalue > 1e-3


@every_backend
@pytest.mark.parametrize("tau", (0.4, 1.5))
def test_relaxed_densities_integrate_to_1(backend, tau):
    """Over log-ratios t_k = y_k − y_C: dx_1 … dx_(C−1) = Π_k x_k dt, all C factors of which the density has in it."""
    t, step = np.linspace(-60, 60, 1201, retstep=True)
    with precision("float64"):
        two = make(backend, GumbelSoftmax(classes=2, temperature=tau), [[0.3, -0.4]])
        y = log_softmax(np.stack([t, 0 * t], -1), -1)[:, None]
        assert np.exp(score(two, y)).sum() * step == pytest.approx(1, abs=1e-8)
        three = make(backend, GumbelSoftmax(classes=3, temperature=tau), [[0.3, -0.4, 0.9]])
        grid = np.stack([*np.meshgrid(t[::2], t[::2]), np.zeros((601, 601))], -1)
        y = log_softmax(grid, -1).reshape(-1, 1, 3)
        assert np.exp(score(three, y)).sum() * (2 * step) ** 2 == pytest.approx(1, abs=1e-8)
        binary = make(backend, RelaxedBernoulli(temperature=tau), [0.3])
        assert np.exp(score(binary, t[:, None])).sum() * step == pytest.approx(1, abs=1e-8)


@every_backend
def test_relaxed_densities_are_those_of_pyro_after_a_change_of_variables(backend):
    rng = np.random.default_rng(2)
    logits, y = rng.normal(size=(2, 4)), log_softmax(2 * rng.normal(size=(6, 2, 4)), -1)
    theirs = pyro_dist.RelaxedOneHotCategorical(torch.tensor(0.6, dtype=torch.float64), logits=torch.tensor(logits))
    on_simplex = theirs.log_prob(torch.tensor(np.exp(y))).numpy().sum(-1)
    log_odds, v = logits[0], y[:, 0]
    theirs = pyro_dist.RelaxedBernoulli(torch.tensor(0.6, dtype=torch.float64), logits=torch.tensor(log_odds))
    on_interval = theirs.log_prob(torch.tensor(expit(v))).numpy()
    with precision("float64"):
        ours = score(make(backend, GumbelSoftmax(classes=4, temperature=0.6), logits), y)
        np.testing.assert_allclose(ours, on_simplex + y.sum((1, 2)), rtol=1e-12)
        ours = score(make(backend, RelaxedBernoulli(temperature=0.6), log_odds), v)
        np.testing.assert_allclose(ours, (on_interval + np.log(expit(v) * expit(-v))).sum(-1), rtol=1e-12)


def slopes(dist_of, *inputs):
    """(value, gradients) of log p over torch and over JAX, float32, for (logits, τ, y) that are copies."""
    leaves = [torch.tensor(v, requires_grad=True) for v in inputs]
    value = dist_of("pyro", *leaves)
    ours = [value.item(), *(g.numpy() for g in torch.autograd.grad(value, leaves))]
    run = jax.jit(jax.value_and_grad(lambda *a: dist_of("numpyro", *a), argnums=tuple(range(len(inputs)))))
    value, grads = run(*(jnp.asarray(v) for v in inputs))
    return ours, [float(value), *(np.asarray(g) for g in grads)]


@pytest.mark.parametrize("spread", (1.0, 50.0))
@pytest.mark.parametrize("family", ("categorical", "binary"))
def test_log_densities_are_finite_and_alike_with_1000_classes_at_a_temperature_of_a_twentieth(family, spread):
    """In float32, at draws of which only copies are left: value and gradient, of torch, of JAX, and of the equation."""
    part = {
        "categorical": GumbelSoftmax(classes=1000, temperature="learned", min_temperature=0.01),
        "binary": RelaxedBernoulli(temperature="learned", min_temperature=0.01),
    }[family]
    logits = (spread * np.random.default_rng(0).uniform(-1, 1, size=(1, 1000))).astype("float32")
    raw = np.float32(np.log(np.expm1(0.04)))  # τ = 0.05

    def log_prob(backend, logits, raw, y):
        P = speak(backend, part, (1, 1000), {}, "float32")
        P.params = P.params | {"posterior.raw_temperature": raw}
        return part(P, logits).log_prob(y)

    own = draw(make("numpyro", part, logits, "float32", **{"posterior.raw_temperature": raw}), 1)[0]
    assert np.isfinite(own).all() and own.min() < -100
    (value, *gradients), (jax_value, *jax_gradients) = slopes(log_prob, logits, raw, own)
    spec = {"prior": {"weights": "learned", "probs": "learned", "temperature": 0.05}}
    name = {"categorical": "CategoricalPrior", "binary": "BernoulliPrior"}[family]
    if spread == 1.0:  # the reference's x^−τ does not overflow
        exact = PRIORS[name](spec, {"prior.logits": logits.astype(float)}, own[None, None].astype(float)).item()
        assert value == pytest.approx(exact, rel=1e-5)
    assert np.isfinite(value) and value == pytest.approx(jax_value, rel=1e-5)
    for ours, theirs in zip(gradients, jax_gradients, strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(ours).max())


def test_closed_form_kl_is_that_of_the_discrete_distributions_and_has_finite_slopes():
    """Against SciPy's relative entropy; then with logits of ±50, where probabilities are 0 in float32."""
    rng = np.random.default_rng(1)
    q, p = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    for backend in BACKENDS:
        with precision("float64"):
            spec = GumbelSoftmax(classes=3)
            prior = CategoricalPrior(weights="learned")(
                speak(backend, CategoricalPrior(weights="learned"), (2, 3), {"prior.logits": p})
            )
            got = np.asarray(make(backend, spec, q).closed_form(prior))
            np.testing.assert_allclose(got, rel_entr(softmax(q, -1), softmax(p, -1)).sum(-1), rtol=1e-12)
            prior = BernoulliPrior(probs=0.3)(speak(backend, BernoulliPrior(probs=0.3), (3,), {}))
            got, on = np.asarray(make(backend, RelaxedBernoulli(), q[0]).closed_form(prior)), expit(q[0])
            np.testing.assert_allclose(got, rel_entr(on, 0.3) + rel_entr(1 - on, 0.7), rtol=1e-12)

    def kl(family, words):
        def value(backend, logits):
            part, prior = words
            shape = tuple(logits.shape)
            q = part(speak(backend, part, shape, {}, "float32"), logits)
            return q.closed_form(prior(speak(backend, prior, shape, {}, "float32"))).sum()

        return value

    far = np.array([[50.0, -50.0, 0.0], [-50.0, 50.0, 50.0]], "float32")
    for family, words in {
        "categorical": (GumbelSoftmax(classes=3), CategoricalPrior()),
        "binary": (RelaxedBernoulli(), BernoulliPrior()),
    }.items():
        for value, slope in slopes(kl(family, words), far):
            assert np.isfinite(value) and np.isfinite(slope).all()


# --- what the decoder sees --------------------------------------------------------------------------------------------


@every_backend
def test_the_code_is_of_codebook_vectors_as_channels(backend):
    """Soft in a relaxation's values; a discrete value's, and a straight-through one's, is one vector of the book."""
    y = log_softmax(np.random.default_rng(0).normal(size=(7, 2, 3, 4)), -1)
    book = np.random.default_rng(1).normal(size=(4, 5))
    with precision("float64"):
        for straight in (False, True):
            part = GumbelSoftmax(classes=4, embedding=5, straight_through=straight)
            assert part.code_shape((2, 3, 4)) == (5, 2, 3)
            P = speak(backend, part, (2, 3, 4), {"posterior.codebook": book})
            one_hot = np.eye(4)[y.argmax(-1)]
            expected = np.einsum("nwhc,ce->newh", one_hot if straight else np.exp(y), book)
            np.testing.assert_allclose(np.asarray(part.code(P, array(backend, y))), expected, rtol=1e-12)
            certain = array(backend, 1000.0 * (one_hot - 1.0))
            got = np.asarray(part.code(P, certain))
            assert (got == np.moveaxis(book[y.argmax(-1)], -1, 1)).all()
        bits = RelaxedBernoulli()
        certain = array(backend, [1000.0, -1000.0])
        assert np.asarray(bits.code(speak(backend, bits, (2,), {}), certain)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("family", ("categorical", "binary"))
def test_straight_through_has_the_gradient_of_the_soft_code(family):
    y = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    weights = np.random.default_rng(1).normal(size=(4, 3) if family == "categorical" else (3, 4)).astype("float32")

    def seen(straight):
        part = {
            "categorical": GumbelSoftmax(classes=4, straight_through=straight),
            "binary": RelaxedBernoulli(straight_through=straight),
        }[family]
        return lambda backend, y: (
            part.code(speak(backend, part, (3, 4), {}, "float32"), y) * array(backend, weights, "float32")
        ).sum()

    soft, hard = (slopes(seen(straight), y) for straight in (False, True))
    for (value, slope), (other, same) in zip(soft, hard, strict=True):
        assert value != other
        np.testing.assert_allclose(slope, same, rtol=1e-6)


# --- training reads the relaxation, evaluation the discrete program -------------------------------------------------


@every_backend
@pytest.mark.parametrize("kind", ("categorical", "relaxed"))
def test_training_takes_the_kl_that_it_is_told(backend, kind):
    program = vae(GumbelSoftmax(classes=3, kl=kind, temperature=0.8), latent=2)
    params = moved(program)
    seen = training_trace(backend, program, params, X)
    values = seen.values["z"]
    assert (values > -100).all() and not np.isin(np.exp(values), (0, 1)).any()  # relaxed in either case
    np.testing.assert_allclose(np.exp(values).sum(-1), 1, rtol=1e-5)
    log_p, log_q = log_joint_and_guide(program.to_dict(), params, {"x": X}, seen.values)
    np.testing.assert_allclose(bounds.log_weights(seen, np), log_p - log_q, rtol=2e-5)
    assert set(seen.kl) == ({"z"} if kind == "categorical" else set())
    discrete = run_trace(get_runtime(backend, program), params, {"x": X}, 2, kl=True)
    assert np.isin(discrete.values["z"], (0, -1000)).all()
    if kind == "categorical":
        np.testing.assert_allclose(seen.kl["z"], discrete.kl["z"], rtol=1e-6)


@every_backend
@pytest.mark.parametrize("kind", ("bernoulli", "categorical"))
def test_evaluations_do_not_know_the_temperature(backend, kind):
    def bits(tau):
        if kind == "categorical":
            program = vae(
                GumbelSoftmax(classes=3, embedding=2, temperature=tau), prior=CategoricalPrior(temperature=tau)
            )
        else:
            program = vae(RelaxedBernoulli(temperature=tau), latent=3, prior=BernoulliPrior(temperature=tau))
        found = run_trace(get_runtime(backend, program), moved(program), {"x": X}, 3, seed=1, kl=True)
        return found.values["z"].tobytes(), bounds.elbo(found, np).tobytes(), bounds.log_weights(found, np).tobytes()

    assert bits(0.01) == bits(50.0)


@every_backend
def test_gradients_at_given_relaxed_values_are_those_of_the_reference(backend):
    """In a training reading; the contract suite can't give the same values to relaxed and discrete readings."""
    program = vae(GumbelSoftmax(classes=3, embedding=2, kl="relaxed", temperature="learned"), latent=2)
    params = moved(program, "float64")
    z = log_softmax(np.random.default_rng(5).normal(size=(3, 4, 2, 3)), -1)
    with precision("float64"):
        gradients = gradient(backend, program, X.astype(float), 3, given={"z": z})(params, 0)
    joint = lambda p: np.subtract(*log_joint_and_guide(program.to_dict(), p, {"x": X}, {"z": z})).mean()
    check_slopes(gradients, joint, params)


@every_backend
@pytest.mark.parametrize("kind", ("bernoulli", "categorical"))
def test_a_trace_takes_values_of_the_discrete_program_alone(backend, kind):
    """The values that a trace draws have their terms again; a relaxed draw's have none."""
    posterior = RelaxedBernoulli() if kind == "bernoulli" else GumbelSoftmax(classes=3, embedding=2)
    program = vae(posterior, latent=3 if kind == "bernoulli" else 1)
    params = moved(program)
    own = ppdgm.trace(program, params, X, k=2, backend=backend)
    again = ppdgm.trace(program, params, X, k=2, backend=backend, values={"z": own.values["z"]})
    np.testing.assert_allclose(again.log_q["z"], own.log_q["z"], rtol=1e-6)
    between = log_softmax(np.random.default_rng(0).normal(size=own.values["z"].shape), -1).astype("float32")
    with pytest.raises(ProgramError, match="got numbers between the values"):
        ppdgm.trace(program, params, X, k=2, backend=backend, values={"z": between})
