"""Plain NumPyro pairs, as their authors write them, and how tests open and train one."""

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import nnx
from numpyro.contrib.module import eqx_module, flax_module, nnx_module
from numpyro.distributions import constraints
from scipy.stats import multivariate_normal
from trainers import make_plan, make_trainer

from ppdgm.backends.numpyro import Runtime
from ppdgm.inference import SVI
from ppdgm.inference.engines import bounds
from ppdgm.inference.inputs.batches import Batches
from ppdgm.program import Program

N, B, X, D = 25, 8, 5, 2  # N mod B = 1
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(N, X)).astype("float32")


# --- helpers ------------------------------------------------------------------------------------------------------


def open_pair(model, guide, data=DATA, params=None, dtype="float32", plate="data"):
    """Runtime, parameters and data on the device."""
    data = data if isinstance(data, dict) else {"x": data}
    runtime = Runtime(Program.from_numpyro(model, guide, data_plate=plate), "cpu")
    params = runtime.initialise(0, data, dtype) if params is None else params
    return runtime, runtime.put(params, dtype), runtime.put(data, dtype)


def log_weights(opened, index, k, seed=0):
    runtime, params, data = opened
    return runtime.evaluate(bounds.log_weights, params, data, np.asarray(index), k, (seed,), False)


def read(opened, index=range(B), k=2, given=None, kl=False):
    runtime, params, data = opened
    return runtime.trace(params, data, np.asarray(index), k, 0, given, kl)


class Training:
    """A trainer that is driven step by step."""

    def __init__(self, opened, engine=None, optimiser=None, batch_size=B, rate=1e-2, seed=0):
        runtime, params, data = opened
        size = len(data["x"])
        self.engine, self.rate = engine or SVI(), rate
        self.trainer = make_trainer(runtime, self.engine, params, seed, size, optimiser)
        self.data = data
        self.batches = Batches(size, runtime.tracer.batch_size or batch_size, seed)
        self.step = 0

    def run(self, count):
        index, weight = self.batches.rows(self.step, count, count)
        rate = np.full(count, self.rate, np.float32)
        history = self.trainer.run(make_plan(self.engine, index, weight, rate, self.step, count), self.data)
        self.step += count
        return history


def standard(width=D):
    return dist.Normal(jnp.zeros(width), 1.0).to_event(1)


def plate(x, part):
    return numpyro.plate("data", x.shape[0], subsample_size=part)


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


# --- the ways in which parameters are written ------------------------------------------------------------------------


class Linen(linen.Module):
    out: int

    @linen.compact
    def __call__(self, x):
        hidden = jnp.tanh(linen.Dense(6)(x))
        return linen.Dense(self.out)(hidden)


class Nnx(nnx.Module):
    def __init__(self, inputs, out, rngs):
        self.layers = nnx.List([nnx.Linear(inputs, 6, rngs=rngs), nnx.Linear(6, out, rngs=rngs)])

    def __call__(self, x):
        return self.layers[1](jnp.tanh(self.layers[0](x)))


def by_param(name, inputs, out):
    weight = numpyro.param(f"{name}.weight", lambda key: 0.3 * jax.random.normal(key, (inputs, out)))
    return lambda x: x @ weight + numpyro.param(f"{name}.bias", jnp.zeros(out))


NNX = {"encoder": Nnx(X, 2 * D, nnx.Rngs(0)), "decoder": Nnx(D, X, nnx.Rngs(1))}
EQX = {
    "encoder": eqx.nn.MLP(X, 2 * D, 6, 1, key=jax.random.key(0)),
    "decoder": eqx.nn.MLP(D, X, 6, 1, key=jax.random.key(1)),
}
NETS = {
    "param": by_param,
    "flax": lambda name, inputs, out: flax_module(name, Linen(out), input_shape=(1, inputs)),
    "nnx": lambda name, inputs, out: nnx_module(name, NNX[name]),
    "eqx": lambda name, inputs, out: jax.vmap(eqx_module(name, EQX[name])),
}
NAMES = {
    "param": "encoder.weight",
    "flax": "encoder.Dense_0.kernel",
    "nnx": "encoder.layers.0.kernel",
    "eqx": "encoder.layers.0.weight",
}


def vae(net, part=None):
    """A published-style VAE, its nets written by `net`; the data plate full, or subsampled in two ways."""

    def model(x):
        decoder = net("decoder", D, X)
        scale = numpyro.param("scale", 0.5, constraint=constraints.positive)
        with plate(x, part):
            batch = numpyro.subsample(x, event_dim=1)
            z = numpyro.sample("z", standard())
            loc = numpyro.deterministic("loc", decoder(z))
            numpyro.sample("x", normal(loc, scale), obs=batch)

    def guide(x):
        encoder = net("encoder", X, 2 * D)
        with plate(x, part) as i:
            head = encoder(x[i])
            numpyro.sample("z", normal(head[:, :D], jnp.exp(head[:, D:])))

    return model, guide


def _layers(first, second, weight="kernel", active=np.tanh):
    def by_hand(values, name):
        turn = np.transpose if weight == "weight" else np.asarray
        (w1, b1), (w2, b2) = (
            (turn(values[f"{name}.{layer}.{weight}"]), values[f"{name}.{layer}.bias"]) for layer in (first, second)
        )
        return lambda x: active(x @ w1 + b1) @ w2 + b2

    return by_hand


NETS_BY_HAND = {
    "param": lambda values, name: lambda x: x @ values[f"{name}.weight"] + values[f"{name}.bias"],
    "flax": _layers("Dense_0", "Dense_1"),
    "nnx": _layers("layers.0", "layers.1"),
    "eqx": _layers("layers.0", "layers.1", "weight", lambda h: np.maximum(h, 0)),
}


# --- FIELD 1: a linear-Gaussian pair, whose log p(x) is known ---------------------------------------------------------

WEIGHT = RNG.normal(size=(D, X))
SCALE = 0.8
EXACT = multivariate_normal(np.zeros(X), WEIGHT.T @ WEIGHT + SCALE**2 * np.eye(X)).logpdf(DATA.astype(float))
COVARIANCE = np.linalg.inv(np.eye(D) + WEIGHT @ WEIGHT.T / SCALE**2)


def linear(part=None, exact=False):
    """The guide has the posterior's mean, and its covariance, or a diagonal one that is too wide."""

    def model(x):
        with plate(x, part) as i:
            z = numpyro.sample("z", standard())
            numpyro.sample("x", normal(z @ numpyro.param("weight", jnp.asarray(WEIGHT, x.dtype)), SCALE), obs=x[i])

    def guide(x):
        with plate(x, part) as i:
            loc = x[i] @ jnp.asarray(WEIGHT.T @ COVARIANCE / SCALE**2, x.dtype)
            wide = normal(loc, 1.3 * jnp.asarray(np.sqrt(np.diag(COVARIANCE)), x.dtype))
            numpyro.sample("z", dist.MultivariateNormal(loc, jnp.asarray(COVARIANCE, x.dtype)) if exact else wide)

    return model, guide
