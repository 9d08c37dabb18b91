"""Published NumPyro programs with nets, or with latents of each row: autoencoders, topic models, mixtures."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import random
from jax.example_libraries import stax
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer.autoguide import AutoDelta, AutoNormal

from benchmarks.published.listing import Made, binary, choices, counts, normal, published

N, Z = 40, 2
CHAINS = "AutoNormal; published with NUTS"
NB = "notebooks/source/"


@published("numpyro", "examples/vae.py", "batch")
def vae() -> Made:
    encoder = lambda: stax.serial(
        stax.Dense(8, W_init=stax.randn()),
        stax.Softplus,
        stax.FanOut(2),
        stax.parallel(stax.Dense(Z, W_init=stax.randn()), stax.serial(stax.Dense(Z, W_init=stax.randn()), stax.Exp)),
    )
    decoder = lambda out: stax.serial(
        stax.Dense(8, W_init=stax.randn()), stax.Softplus, stax.Dense(out, W_init=stax.randn()), stax.Sigmoid
    )

    def model(batch):
        batch = jnp.reshape(batch, (batch.shape[0], -1))
        size, width = jnp.shape(batch)
        decode = numpyro.module("decoder", decoder(width), (size, Z))
        with numpyro.plate("batch", size):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([Z]).to_event(1))
            return numpyro.sample("obs", dist.Bernoulli(decode(z)).to_event(1), obs=batch)

    def guide(batch):
        batch = jnp.reshape(batch, (batch.shape[0], -1))
        size, width = jnp.shape(batch)
        encode = numpyro.module("encoder", encoder(), (size, width))
        loc, scale = encode(batch)
        with numpyro.plate("batch", size):
            return numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return model, guide, {"batch": binary(N, 6, 6)}


def _prodlda(normed: bool) -> Made:
    from flax import linen as nn
    from numpyro.contrib.module import flax_module

    words, topics = 10, 3

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x, is_training):
            h = nn.Dropout(0.2, deterministic=not is_training)(nn.relu(nn.Dense(8)(x)))
            h = nn.Dense(topics)(h)
            h = nn.BatchNorm(use_bias=False, use_scale=False, use_running_average=not is_training)(h) if normed else h
            return jnp.exp(h / 2)

    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, x, is_training):
            h = nn.Dense(words, use_bias=False)(nn.Dropout(0.2, deterministic=not is_training)(x))
            return (
                nn.BatchNorm(use_bias=False, use_scale=False, use_running_average=not is_training)(h) if normed else h
            )

    state = {"apply_rng": ["dropout"], "mutable": ["batch_stats"]} if normed else {"apply_rng": ["dropout"]}

    def model(docs):
        decode = flax_module("decoder", Decoder(), input_shape=(1, topics), is_training=True, **state)
        with numpyro.plate("documents", docs.shape[0], subsample_size=8):
            batch = numpyro.subsample(docs, event_dim=1)
            theta = numpyro.sample("theta", dist.Dirichlet(jnp.ones(topics)))
            logits = decode(theta, True, rngs={"dropout": numpyro.prng_key()})
            numpyro.sample("obs", dist.Multinomial(batch.sum(-1), logits=logits), obs=batch)

    def guide(docs):
        encode = flax_module("encoder", Encoder(), input_shape=(1, words), is_training=True, **state)
        with numpyro.plate("documents", docs.shape[0], subsample_size=8):
            batch = numpyro.subsample(docs, event_dim=1)
            numpyro.sample("theta", dist.Dirichlet(encode(batch, True, rngs={"dropout": numpyro.prng_key()})))

    return model, guide, {"docs": counts(N, words) + 1.0}


@published("numpyro", "examples/prodlda.py", "documents")
def prodlda() -> Made:
    return _prodlda(True)


@published("numpyro", "examples/prodlda.py", "documents", "without batch norms; the library's ELBO has dropout on")
def prodlda_without_batch_norm() -> Made:
    return _prodlda(False)


@published("numpyro", NB + "nnx_example.ipynb", "data")
def nnx_example() -> Made:
    from flax import nnx
    from numpyro.contrib.module import nnx_module, random_nnx_module

    class Loc(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(1, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.sigmoid(self.first(x)))

    class Scale(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(1, 1, rngs=rngs)

        def __call__(self, x):
            return nnx.softplus(self.linear(x))

    loc, scale = Loc(nnx.Rngs(0)), Scale(nnx.Rngs(1))
    prior = {"linear.kernel": dist.HalfNormal(1), "linear.bias": dist.Normal(0, 1)}

    def model(x, y):
        mu_nn = nnx_module("mu_nn", loc)
        sigma_nn = random_nnx_module("sigma_nn", scale, prior=prior)
        mu = numpyro.deterministic("mu", mu_nn(x).squeeze(-1))
        sigma = numpyro.deterministic("sigma", sigma_nn(x).squeeze(-1))
        with numpyro.plate("data", len(x)):
            numpyro.sample("likelihood", dist.Normal(mu, sigma), obs=y)

    return model, AutoNormal(model), {"x": normal(N, 1), "y": normal(N)}


_INDEX = "all documents are handed over, and the plate's indices take a batch of them"


@published("numpyro", NB + "tbip.ipynb", "d", _INDEX)
def tbip() -> Made:
    people, topics, words = 4, 3, 6

    def model(counts, author):
        with numpyro.plate("i", people):
            x = numpyro.sample("x", dist.Normal())
        with numpyro.plate("k", size=topics, dim=-2), numpyro.plate("k_v", size=words, dim=-1):
            beta, eta = numpyro.sample("beta", dist.Gamma(0.3, 0.3)), numpyro.sample("eta", dist.Normal())
        with numpyro.plate("d", size=len(counts), subsample_size=8, dim=-2) as d:
            with numpyro.plate("d_k", size=topics, dim=-1):
                theta = numpyro.sample("theta", dist.Gamma(0.3, 0.3))
            ideal = jnp.exp(jnp.expand_dims(x[author[d]], (1, 2)) * jnp.expand_dims(eta, 0))
            rate = jnp.sum(jnp.expand_dims(theta, 2) * jnp.expand_dims(beta, 0) * ideal, 1)
            with numpyro.plate("v", size=words, dim=-1):
                numpyro.sample("Y_batch", dist.Poisson(rate), obs=counts[d])

    def guide(counts, author):
        positive = {"constraint": constraints.positive}
        mu_x = numpyro.param("mu_x", -1 + 2 * random.uniform(random.key(1), (people,)))
        s_x = numpyro.param("sigma_y", jnp.ones([people]), **positive)
        mu_eta = numpyro.param("mu_eta", random.normal(random.key(2), (topics, words)))
        s_eta = numpyro.param("sigma_eta", jnp.ones([topics, words]), **positive)
        mu_theta = numpyro.param("mu_theta", jnp.zeros([len(counts), topics]))
        s_theta = numpyro.param("sigma_theta", jnp.ones([len(counts), topics]), **positive)
        mu_beta = numpyro.param("mu_beta", jnp.zeros([topics, words]))
        s_beta = numpyro.param("sigma_beta", jnp.ones([topics, words]), **positive)
        with numpyro.plate("i", people):
            numpyro.sample("x", dist.Normal(mu_x, s_x))
        with numpyro.plate("k", size=topics, dim=-2), numpyro.plate("k_v", size=words, dim=-1):
            numpyro.sample("beta", dist.LogNormal(mu_beta, s_beta))
            numpyro.sample("eta", dist.Normal(mu_eta, s_eta))
        documents = numpyro.plate("d", size=len(counts), subsample_size=8, dim=-2)
        with documents as d, numpyro.plate("d_k", size=topics, dim=-1):
            numpyro.sample("theta", dist.LogNormal(mu_theta[d], s_theta[d]))

    return model, guide, {"counts": counts(N, words), "author": choices(people, N)}


@published("numpyro", NB + "gmm.ipynb", "data")
def gmm() -> Made:
    def model(data):
        weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(2)))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with numpyro.plate("components", 2):
            locs = numpyro.sample("locs", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", len(data)):
            assignment = numpyro.sample("assignment", dist.Categorical(weights), infer={"enumerate": "parallel"})
            numpyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    guide = AutoDelta(handlers.block(model, hide=["assignment", "obs"]))
    return model, guide, {"data": normal(N)}


@published(
    "numpyro", "examples/toy_mixture_model_discrete_enumeration.py", "data_plate", "the dictionary obs is fields"
)
def toy_mixture() -> Made:
    from numpyro.ops.indexing import Vindex

    def model(A, C):
        p_a = numpyro.sample("p_A", dist.Beta(1, 1))
        p_b = numpyro.sample("p_B", dist.Beta(jnp.ones(2), jnp.ones(2)).to_event(1))
        p_c = numpyro.sample("p_C", dist.Beta(jnp.ones(2), jnp.ones(2)).to_event(1))
        with numpyro.plate("data_plate", len(A)):
            a = numpyro.sample("A", dist.Bernoulli(p_a.repeat(len(A))), obs=A)
            b = numpyro.sample("B", dist.Bernoulli(Vindex(p_b)[a.astype(int)]), infer={"enumerate": "parallel"})
            numpyro.sample("C", dist.Bernoulli(Vindex(p_c)[b.astype(int)]), obs=C)

    def guide(A, C):
        a = numpyro.param("a", jnp.array([1.0, 10.0]), constraint=constraints.positive)
        numpyro.sample("p_A", dist.Beta(a[0], a[1]))
        for name in ("b", "c"):
            value = numpyro.param(name, jnp.array([[10.0, 1.0], [1.0, 10.0]]), constraint=constraints.positive)
            numpyro.sample(f"p_{name.upper()}", dist.Beta(value[:, 0], value[:, 1]).to_event(1))

    return model, guide, {"A": choices(2, N), "C": choices(2, N)}


@published(
    "numpyro", "examples/annotation.py", "item", "sizes are not read off the data", "AutoNormal; published with NUTS"
)
def annotation_multinomial() -> Made:
    classes = 3

    def model(annotations):
        items, positions = annotations.shape
        with numpyro.plate("class", classes):
            zeta = numpyro.sample("zeta", dist.Dirichlet(jnp.ones(classes)))
        pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(classes)))
        with numpyro.plate("item", items, dim=-2):
            c = numpyro.sample("c", dist.Categorical(pi), infer={"enumerate": "parallel"})
            with numpyro.plate("position", positions):
                numpyro.sample("y", dist.Categorical(zeta[c]), obs=annotations)

    guide = AutoNormal(handlers.block(model, hide=["c", "y"]))
    return model, guide, {"annotations": choices(classes, N, 4)}
