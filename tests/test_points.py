"""Discrete latents where a program is followed from mean to mean: others see a value that they can take, the likeliest.

Means and modes by enumeration of the library's own probabilities; in pairs and programs on both backends.
"""

import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pyro
import pyro.distributions as pd
import pytest
import torch
from numpyro.infer import autoguide as jax_guides
from pyro.infer import autoguide as torch_guides
from readings import BACKENDS
from scipy import integrate, stats
from scipy.special import expit

import ppdgm
from ppdgm import Program
from ppdgm.errors import NoMean, ProgramError
from ppdgm.language.points import points

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
        (pd.Multinomial(5, T(P3)), "the most probable value of Multinomial.* is not known"),
        (nd.Multinomial(5, J(P3)), "the most probable value of Multinomial.* is not known"),
        (pd.BetaBinomial(2.0, 3.0, T(7)), "the most probable value of BetaBinomial is not known"),
        (nd.BetaBinomial(2.0, 3.0, 7), "the most probable value of BetaBinomial is not known"),
        (nd.ZeroInflatedPoisson(0.2, 3.0), "the most probable value of ZeroInflatedPoisson is not known"),
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
    assert data["sample_stats"]["log_p_x"].shape == (1, 3, len(X))


# --- latents that are moved: means in closed form, or of draws -------------------------------------------------------

LOC, SCALE = np.log(2.0), 0.8  # of the normal under a positive latent
LOGIT = np.log(0.3 / 0.7)  # and under one in (0, 1)


@pytest.mark.parametrize(("lib", "array"), [(pd, T), (nd, J)])
def test_a_normal_that_is_moved_has_its_mean(lib, array):
    """x = 1 + 2 exp(3 + z/2), z ~ N(μ, σ²): 1 + 2 exp(3 + μ/2 + σ²/8); and the base's where nothing bends."""
    affine, exp = lib.transforms.AffineTransform, lib.transforms.ExpTransform()
    base = lib.Normal(array([0.3, -1.0]), array([0.5, 2.0])).to_event(1)
    bent = lib.TransformedDistribution(base, [affine(3.0, 0.5), exp, affine(1.0, 2.0)])
    exact = 1 + 2 * np.exp(3 + np.array([0.3, -1.0]) / 2 + np.array([0.25, 4.0]) / 8)
    np.testing.assert_allclose(points("z", bent, True)[0], exact, rtol=1e-6)
    straight = lib.TransformedDistribution(lib.Laplace(array([0.3, -1.0]), 1.0).to_event(1), [affine(3.0, 0.5)])
    np.testing.assert_allclose(points("z", straight, True)[0], [3.15, 2.5], rtol=1e-6)
    with pytest.raises(NoMean, match="no mean that is known"):
        points("z", lib.TransformedDistribution(base, [exp, exp]), True)


def by_itself(backend, bounded):
    """z > 0, u in (0, 1) where `bounded`, x ~ N(z + u, 1), and the library's own AutoNormal at known numbers."""
    start = {"z": np.full(7, 2.0, np.float32), "u": np.full(7, 0.3, np.float32)}
    lib, draw, plate = (pd, pyro.sample, pyro.plate) if backend == "pyro" else (nd, numpyro.sample, numpyro.plate)

    def model(x):
        with plate("data", 7):
            z = draw("z", lib.Gamma(2.0, 1.0))
            u = draw("u", lib.Beta(2.0, 3.0)) if bounded else 0.0
            draw("x", lib.Normal(z + u, 1.0), obs=x)

    if backend == "pyro":
        guide = torch_guides.AutoNormal(
            model, init_loc_fn=torch_guides.init_to_value(values={n: T(v) for n, v in start.items()}), init_scale=SCALE
        )
        pair = Program.from_pyro(model, guide)
    else:
        guide = jax_guides.AutoNormal(model, init_loc_fn=numpyro.infer.init_to_value(values=start), init_scale=SCALE)
        pair = Program.from_numpyro(model, guide)
    return ppdgm.fit(pair, X[:, 0], steps=1, learning_rate=0.0, batch_size=7, progress=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_positive_latent_is_told_at_its_mean_and_not_at_its_median(backend):
    fit = by_itself(backend, bounded=False)
    np.testing.assert_allclose(fit.encode(X[:, 0]), 7 * [np.exp(LOC + SCALE**2 / 2)], rtol=1e-5)
    np.testing.assert_allclose(fit.reconstruct(X[:, 0]), 7 * [np.exp(LOC + SCALE**2 / 2)], rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_no_mean_is_known_it_is_that_of_draws_and_its_error_is_told(backend):
    """1,000 draws of each of 7 data: every mean within 4 standard errors, which the warning gives."""
    fit = by_itself(backend, bounded=True)
    with pytest.warns(UserWarning, match=r"'u'.* mean (that is|is not) known.* means of 1,000 draws") as told:
        found = fit.encode(X[:, 0])
    density = lambda v, power: expit(LOGIT + SCALE * v) ** power * stats.norm.pdf(v)
    first, second = (integrate.quad(density, -12, 12, args=(p,))[0] for p in (1, 2))
    log_normal = stats.lognorm(SCALE, scale=np.exp(LOC))
    right = {"u": (first, (second - first**2) ** 0.5), "z": (log_normal.mean(), log_normal.std())}
    for name, (mean, sd) in right.items():
        error = sd / 1000**0.5
        assert np.abs(found[name] - mean).max() < 4 * error
        (said,) = re.findall(rf"([\d.e-]+) for '{name}'", str(told[0].message))
        assert float(said) == pytest.approx(error, rel=0.5)  # the largest of seven estimates
    with pytest.warns(UserWarning, match="Monte Carlo"):
        seen = fit.reconstruct(X[:, 0])
    np.testing.assert_allclose(seen, found["z"] + found["u"], rtol=1e-5)
    assert abs(found["u"].mean() - 0.3) > 4 * right["u"][1] / 7000**0.5  # the median is another number
