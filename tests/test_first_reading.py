"""The first reading on JAX is one compiled program, with the same refusals as a reading step by step."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from instances import as_float32
from numpyro import distributions as dist
from zoo import ZOO

import ppdgm
from ppdgm import Program
from ppdgm.backends.numpyro import quick
from ppdgm.backends.numpyro.runtime import Runtime
from ppdgm.errors import PpdgmError
from ppdgm.models import MLP, VAE
from ppdgm.program import constant

X = np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(3, 4)


class Model(Program):
    """z ~ N(0, 1), x ~ what `likelihood` makes of a number a; the guide draws what `posterior` makes of it."""

    a: float = 0.5

    def build(self, context):
        context.param("a", (4,), constant(self.a))

    def prior(self, P):
        return P.dist.Normal(P.full((4,), 0.0), 1.0)

    def likelihood(self, P, a, z):
        return P.dist.Normal(z, P.xp.abs(a))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P).to_event(1))
            P.sample("x", self.likelihood(P, P.param("a"), z).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(x - 0.5, 1.0).to_event(1))


class Scale(Model):
    def likelihood(self, P, a, z):
        return P.dist.Normal(z, a)


class Probability(Model):
    def likelihood(self, P, a, z):
        return P.dist.Bernoulli(probs=a + 1.0, validate_args=None)


class Component(Model):
    def likelihood(self, P, a, z):
        halves = P.dist.Categorical(logits=P.full((4, 2), 0.0))
        return P.dist.MixtureSameFamily(halves, P.dist.Normal(z[..., None], P.xp.stack([a, a], axis=-1)))


class Beside(Model):
    """The wrong distribution is no site's."""

    def likelihood(self, P, a, z):
        return P.dist.Normal(z + P.dist.Gamma(a, 1.0).mean, 1.0)


class Shares(Model):
    """Probabilities that have no sum of 1."""

    def likelihood(self, P, a, z):
        weights = P.dist.Categorical(probs=P.xp.stack([a, a], axis=-1))
        return P.dist.MixtureSameFamily(weights, P.dist.Normal(z[..., None], P.full((4, 2), 1.0)))


class Positive(Model):
    """The guide draws negative values of a latent that is positive."""

    def prior(self, P):
        return P.dist.LogNormal(P.full((4,), 0.0), 1.0)


class Choice(Model):
    """It can be read, but not compiled."""

    def likelihood(self, P, a, z):
        return P.dist.Normal(z, 1.0 if a[0] > 0 else -1.0)


def pair(scale):
    def model(x):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(4), 1.0).to_event(1))
            numpyro.sample("x", dist.Normal(z, numpyro.param("scale", jnp.full(4, scale))).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    return Program.from_numpyro(model, guide)


RIGHT = {"component": Component(), "beside": Beside(), "pair": pair(1.0)}
WRONG = {
    "scale": (Scale(a=-1.0), "Normal distribution got invalid scale parameter"),
    "probability": (Probability(), "BernoulliProbs distribution got invalid probs parameter"),
    "component": (Component(a=-1.0), "Normal distribution got invalid scale parameter"),
    "beside": (Beside(a=-1.0), "Gamma distribution got invalid concentration parameter"),
    "shares": (Shares(a=0.4), "CategoricalProbs distribution got invalid probs parameter"),
    "positive": (Positive(), "Site 'z': the guide draws values outside the support of"),
    "choice": (Choice(a=-1.0), "Normal distribution got invalid scale parameter"),
    "pair": (pair(-1.0), "Normal distribution got invalid scale parameter"),
}


def opened(program):
    runtime = Runtime(program)
    data = {"x": X}
    return runtime, runtime.put(runtime.initialise(0, data, "float32")), runtime.put(data)


def one_program(runtime, params, data):
    return runtime._checked(params, data, runtime.index(np.arange(3)), 2)


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_are_read_in_one_program(name, monkeypatch):
    runtime, params, data = opened(RIGHT[name])
    found = one_program(runtime, params, data)
    monkeypatch.setattr(Runtime, "_checked", lambda *_: None)
    step_by_step = runtime.validate(params, data, 2, 3)
    assert jax.tree.structure(found) == jax.tree.structure(step_by_step)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(step_by_step), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_refused_with_the_same_words(name):
    program, words = WRONG[name]
    runtime, params, data = opened(program)
    assert one_program(runtime, params, data) is None
    with pytest.raises(PpdgmError, match=re.escape(words)):
        ppdgm.fit(program, X, steps=1, backend="numpyro", progress=False)


@pytest.mark.parametrize("name", ["hvae bottom up", "posterior spline", "gumbel codebook"])
def test_the_zoo_is_read_in_one_program(name):
    program = ZOO[name].make()
    runtime = Runtime(program)
    fields = as_float32(ZOO[name].data(np.random.default_rng(0), 3, program.event_shape))
    assert one_program(runtime, runtime.put(program.initialise(0, fields)), runtime.put(fields)) is not None


def test_numbers_that_are_not_finite_are_read_step_by_step():
    runtime, params, data = opened(Model(a=0.0))
    assert one_program(runtime, params, data) is None
    with pytest.raises(ValueError, match="invalid scale"):
        runtime.validate(params, data, 2, 3)


def test_without_what_nothing_uses_it_is_read_step_by_step(monkeypatch):
    """A JAX that leaves it out of programs would hide every check."""
    evaluated = quick._evaluated
    monkeypatch.setattr(quick, "_evaluated", lambda *args: (evaluated(*args)[0], []))
    runtime, params, data = opened(Model())
    assert one_program(runtime, params, data) is None
    assert set(runtime.validate(params, data, 2, 3).log_p) == {"z", "x"}


def test_few_programs_are_compiled(caplog):
    """Some hundred were, when the first reading was step by step."""
    net = MLP(hidden=(13, 11))  # of sizes that no other test has compiled operations for
    program = VAE(event_shape=(17,), latent=3, encoder=net, decoder=net)
    x = np.random.default_rng(0).integers(0, 2, (40, 17)).astype(np.float32)
    with jax.log_compiles():
        fit = ppdgm.fit(program, x, steps=3, batch_size=20, backend="numpyro", progress=False)
        trained = len(caplog.records)
        fit.elbo(x)
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    before = [r for r in caplog.records[:trained] if "Finished XLA compilation" in r.getMessage()]
    assert 4 <= len(before) <= 12 and len(compiled) <= 16, compiled
