"""Discrete latents where a program is followed from mean to mean: others see a value that they can take, the likeliest.

Means and modes by enumeration of the library's own probabilities; in pairs and programs on both backends.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pyro
import pyro.distributions as pd
import pytest
import torch
from readings import BACKENDS

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.points import points

P3 = [0.2, 0.5, 0.3]
T, J = torch.tensor, jnp.asarray

#: name -> (distribution, how many values from 0 are enough)
DISCRETE = {
    "torch Categorical": (pd.Categorical(T(P3)), 3),
    "torch OrderedLogistic": (pd.OrderedLogistic(T(0.3), T([-1.0, 1.0])), 3),
    "torch Bernoulli": (pd.Bernoulli(T([0.2, 0.7])), 2),
    "torch Bernoulli at a tie": (pd.Bernoulli(logits=T([0.0])), 2),
    "torch Binomial": (pd.Binomial(5, T([0.0, 0.33, 1.0])), 6),
    "torch Poisson": (pd.Poisson(T([0.4, 2.7])), 60),
    "torch Geometric": (pd.Geometric(T([0.3])), 200),
    "torch NegativeBinomial": (pd.NegativeBinomial(T([3.5]), probs=T([0.6])), 200),
    "torch GammaPoisson": (pd.GammaPoisson(T([4.2, 0.5]), T([0.7, 0.5])), 200),
    "torch expanded and masked": (pd.Poisson(T(2.7)).expand([2]).mask(True), 60),
    "jax Categorical": (nd.Categorical(J(P3)), 3),
    "jax Categorical by logits": (nd.Categorical(logits=jnp.log(J(P3))), 3),
    "jax OrderedLogistic": (nd.OrderedLogistic(0.3, J([-1.0, 1.0])), 3),
    "jax Bernoulli": (nd.Bernoulli(J([0.2, 0.7])), 2),
    "jax Bernoulli at a tie": (nd.Bernoulli(logits=J([0.0])), 2),
    "jax Binomial": (nd.Binomial(5, J([0.0, 0.33, 1.0])), 6),
    "jax Binomial by logits": (nd.Binomial(5, logits=J([-0.7, 2.0])), 6),
    "jax Poisson": (nd.Poisson(J([0.4, 2.7])), 60),
    "jax Geometric": (nd.Geometric(J([0.3])), 200),
    "jax NegativeBinomial": (nd.NegativeBinomial2(J([7.0]), J([3.5])), 200),
    "jax GammaPoisson": (nd.GammaPoisson(J([4.2, 0.5]), J([0.7, 0.5])), 200),
    "jax DiscreteUniform": (nd.DiscreteUniform(0, J([4])), 5),
    "jax expanded and masked": (nd.Poisson(2.7).expand([2]).mask(True), 60),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_means_and_modes_are_those_of_the_probabilities(name):
    dist, count = DISCRETE[name]
    values = np.arange(count)
    native = T(values, dtype=torch.float32) if name.startswith("torch") else J(values)
    scores = [np.broadcast_to(np.asarray(dist.log_prob(v)), dist.batch_shape) for v in native]
    probs = np.exp(np.array(scores, float))  # [values, batch]
    told, seen = (np.broadcast_to(np.asarray(v, float), dist.batch_shape) for v in points("c", dist, True))
    best = np.take_along_axis(probs, seen.astype(int)[None], 0)[0]
    np.testing.assert_array_less(probs.max(0) - 1e-6, best)
    if "Categorical" in name or "Ordered" in name:
        np.testing.assert_array_equal(told, seen)
    else:
        np.testing.assert_allclose(told, (values[:, None] * probs).sum(0), rtol=2e-5, atol=1e-6)


def test_a_one_hot_latent_is_told_by_its_probabilities():
    told, seen = points("c", pd.OneHotCategorical(T(P3)).expand([2]).to_event(1), True)
    np.testing.assert_allclose(told, [P3, P3])
    np.testing.assert_array_equal(seen, [[0, 1, 0]] * 2)


@pytest.mark.parametrize(
    "dist, words",
    [
        (pd.Multinomial(5, T(P3)), "no most probable value of Multinomial"),
        (nd.Multinomial(5, J(P3)), "no most probable value of Multinomial"),
        (pd.BetaBinomial(2.0, 3.0, T(7)), "no most probable value of BetaBinomial"),
        (nd.BetaBinomial(2.0, 3.0, 7), "no most probable value of BetaBinomial"),
        (nd.ZeroInflatedPoisson(0.2, 3.0), "no most probable value of ZeroInflatedPoisson"),
        (pd.RelaxedBernoulli(T(1.0), probs=T(0.3)), "RelaxedBernoulli has no mean"),
        (nd.RelaxedBernoulli(1.0, probs=0.3), "RelaxedBernoulli.* has no mean"),
        (pd.RelaxedOneHotCategorical(T(1.0), probs=T(P3)), "RelaxedOneHotCategorical has no mean"),
    ],
)
def test_what_has_none_that_is_known_is_refused_as_a_latent(dist, words):
    with pytest.raises(ProgramError, match=words):
        points("c", dist, True)


# --- pairs and programs ----------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
CODES = np.array([5.0, -3.0, 11.0], np.float32)
PROBS = np.array([0.2, 0.7, 0.9], np.float32)


def torch_pair():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", pd.Categorical(torch.ones(3)))
            b = pyro.sample("b", pd.Bernoulli(torch.full((3,), 0.5)).to_event(1))
            n = pyro.sample("n", pd.Poisson(2.0))
            pyro.sample("x", pd.Normal(T(CODES)[c][:, None] + b + n[:, None], 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", pd.Categorical(logits=3 * x))
            b = pyro.sample("b", pd.Bernoulli(T(PROBS)).to_event(1))
            pyro.sample("n", pd.Poisson(0.4 + c + b.sum(-1)))

    return Program.from_pyro(model, guide)


def jax_pair():
    def model(x):
        with numpyro.plate("data", len(x)):
            c = numpyro.sample("c", nd.Categorical(jnp.ones(3) / 3))
            b = numpyro.sample("b", nd.Bernoulli(jnp.full(3, 0.5)).to_event(1))
            n = numpyro.sample("n", nd.Poisson(2.0))
            numpyro.sample("x", nd.Normal(J(CODES)[c][:, None] + b + n[:, None], 1.0).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            c = numpyro.sample("c", nd.Categorical(logits=3 * x))
            b = numpyro.sample("b", nd.Bernoulli(J(PROBS)).to_event(1))
            numpyro.sample("n", nd.Poisson(0.4 + c + b.sum(-1)))

    return Program.from_numpyro(model, guide)


class Native(Program):
    def build(self, c):
        c.param("zero", (), lambda rng, shape, data: np.zeros(shape))

    def model(self, P, x):
        with P.plate("data", x):
            c = P.sample("c", P.dist.Categorical(logits=P.full((3,), 0.0)))
            b = P.sample("b", P.dist.Bernoulli(P.full((3,), 0.5)).to_event(1))
            n = P.sample("n", P.dist.Poisson(P.full((), 2.0)))
            mean = P.constant(CODES)[c][..., None] + b + n[..., None] + P.param("zero")
            P.sample("x", P.dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            c = P.sample("c", P.dist.Categorical(logits=3 * x))
            b = P.sample("b", P.dist.Bernoulli(P.constant(PROBS)).to_event(1))
            P.sample("n", P.dist.Poisson(0.4 + c + P.xp.sum(b, axis=-1)))


PARAMS = {"zero": np.zeros((), np.float32)}


@pytest.fixture(params=["pyro pair", "numpyro pair", *BACKENDS])
def fit(request):
    if request.param == "pyro pair":
        return ppdgm.Fit(torch_pair(), {}, "pyro")
    return (
        ppdgm.Fit(jax_pair(), {}, "numpyro") if "pair" in request.param else ppdgm.Fit(Native(), PARAMS, request.param)
    )


def test_latents_are_told_at_their_means_and_seen_at_their_modes(fit):
    """n ~ Poisson(0.4 + c + Σ b): its mean is of the modes of c and b, and x sees its floor."""
    c, b = X.argmax(1), PROBS > 0.5
    found, seen = fit.encode(X), fit.reconstruct(X)
    np.testing.assert_array_equal(found["c"], c)
    np.testing.assert_allclose(found["b"], np.tile(PROBS, (7, 1)), rtol=1e-6)
    np.testing.assert_allclose(found["n"], 0.4 + c + b.sum(), rtol=1e-6)
    np.testing.assert_allclose(seen, (CODES[c] + c + b.sum())[:, None] + np.tile(b, (7, 1)), rtol=1e-6)


def test_whole_numbers_go_to_arviz(fit):
    data = fit.to_arviz(X, draws=3, predictive=0, prior=0)
    assert "log_likelihood" in data.groups() if callable(data.groups) else "/log_likelihood" in data.groups
