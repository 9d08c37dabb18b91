"""Parts with discrete latents alone, and small programs of them, over NumPy arrays."""

from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from readings import BACKENDS, get_runtime

from ppdgm.inference.engines import bounds
from ppdgm.language.reader import Gradients
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import MLP, VAE, BernoulliPrior, CategoricalPrior, Gaussian
from ppdgm.program import Context

every_backend = pytest.mark.parametrize("backend", BACKENDS)
NET = MLP(hidden=(4,))
X = np.random.default_rng(3).normal(size=(4, 5)).astype("float32")


def vae(posterior, latent=1, prior=None, **parts):
    default = CategoricalPrior(weights="learned") if posterior.family == "categorical" else BernoulliPrior(probs=0.3)
    parts = {"likelihood": Gaussian(scale=0.7), "encoder": NET, "decoder": NET} | parts
    return VAE(event_shape=(5,), latent=latent, posterior=posterior, prior=prior or default, **parts)


def moved(program, dtype="float32", seed=0):
    """Parameters of which none is 0."""
    rng = np.random.default_rng(seed)
    first = program.initialise(seed, dtype="float64")
    return {n: (v + 0.3 * rng.normal(size=v.shape)).astype(dtype) for n, v in first.items()}


class Statements:
    """An interpreter for a part alone."""

    def param(self, name, value):
        return value


def array(backend, value, dtype="float64"):
    return torch.tensor(np.asarray(value, dtype)) if backend == "pyro" else jnp.asarray(value, dtype)


def speak(backend, part, shape, params, dtype="float64"):
    """P for one part over variables of `shape`."""
    context = Context(Declarations())
    context.part(part, shape)
    words = {"pyro": "TorchVocabulary", "numpyro": "JaxVocabulary"}[backend]
    vocabulary = getattr(import_module(f"ppdgm.backends.{backend}.vocabulary"), words)
    values = {n: array(backend, params.get(n, 0.0), dtype) for n in context.declared.params} | {
        "anchor": array(backend, 0.0, dtype)
    }
    return vocabulary(Statements(), values, context.declared)


def make(backend, part, logits, dtype="float64", **params):
    """The part's distribution over a latent with logits as its head."""
    logits = np.asarray(logits, dtype)
    return part(speak(backend, part, logits.shape, params, dtype), array(backend, logits, dtype))


def draw(dist, n, seed=0):
    if isinstance(dist, torch.distributions.Distribution):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return dist.expand(torch.Size((n,))).sample().numpy()
    return np.asarray(dist.expand((n,)).sample(jax.random.key(seed)))


def score(dist, y, dtype="float64"):
    backend = "pyro" if isinstance(dist, torch.distributions.Distribution) else "numpyro"
    return np.asarray(dist.log_prob(array(backend, y, dtype)))


def training_trace(backend, program, params, x, k=2, kl=True, seed=0):
    """The trace of a training step, on NumPy arrays."""
    runtime = get_runtime(backend, program)
    params, data, index = runtime.put(params), runtime.put({"x": x}), np.arange(len(x))
    if backend == "pyro":
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = runtime.tracer.trace(params, None, data, torch.tensor(index), k, None, kl, gradients=Gradients())
    else:
        found = runtime.tracer.trace(params, jax.random.key(seed), data, index, k, None, kl, gradients=Gradients())
    return runtime.fetch(found)


def gradient(backend, program, x, k, function=bounds.log_weights, given=None, kl=False):
    """(params, seed) -> gradient of the mean over particles and data of `function` of a training reading's trace."""
    tracer = get_runtime(backend, program).tracer

    @jax.jit
    def over_jax(params, key):
        def value(params):
            found = tracer.trace(
                params, key, {"x": jnp.asarray(x)}, jnp.arange(len(x)), k, given, kl, gradients=Gradients()
            )
            return function(found, jnp).mean()

        return jax.grad(value)(params)

    def over_torch(params, seed):
        leaves = {n: torch.tensor(v, requires_grad=True) for n, v in params.items()}
        values = given and {n: torch.tensor(v) for n, v in given.items()}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = tracer.trace(
                leaves, None, {"x": torch.tensor(x)}, torch.arange(len(x)), k, values, kl, gradients=Gradients()
            )
        value = function(found, torch).mean()
        grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return {n: g.numpy() for n, g in zip(leaves, grads, strict=True)}

    if backend == "pyro":
        return over_torch
    return lambda params, seed: jax.tree.map(np.asarray, over_jax(params, jax.random.key(seed)))


def check_slopes(gradients, value_of, params):
    rng, step = np.random.default_rng(11), 1e-5
    for name, value in params.items():
        direction = rng.normal(size=value.shape)
        up, down = (value_of(params | {name: value + s * step * direction}) for s in (1, -1))
        assert (gradients[name] * direction).sum() == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-7), name
