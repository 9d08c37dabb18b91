"""Likelihoods over either backend's arrays, without a program around them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import torch
from readings import precision

from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.backends.pyro.vocabulary import TorchVocabulary
from ppdgm.language.vocabulary import Declarations
from ppdgm.program import Context


class Plain:
    looping = False
    recomputes = False

    def param(self, name, value):
        return value

    def drops(self):
        return False

    draws_terms = drops


def declare(likelihood, event=(1,)):
    """(declarations, shape of the head, first values)."""
    context = Context(Declarations())
    head = context.part(likelihood, event)
    first = {n: s.init(np.random.default_rng(0), s.shape, None) for n, s in context.declared.params.items()}
    return context.declared, head, first | {"type": np.zeros(1)}  # from which P takes its floating type


def over_torch(likelihood, dtype="float64"):
    declared, _, first = declare(likelihood)
    P = TorchVocabulary(Plain(), {n: torch.tensor(v.astype(dtype)) for n, v in first.items()}, declared)
    return lambda head: likelihood(P, head)


def over_jax(likelihood, dtype="float64"):
    declared, _, first = declare(likelihood)
    P = JaxVocabulary(Plain(), {n: jnp.asarray(v.astype(dtype)) for n, v in first.items()}, declared)
    return lambda head: likelihood(P, head)


def log_prob(backend, likelihood, x, head, dtype="float64"):
    """log p(x|head) of x [..., 1]; and its gradient with respect to the head, of the sum."""
    x, head = x.astype(dtype), head.astype(dtype)
    with precision(dtype):
        if backend == "pyro":
            leaf = torch.tensor(head, requires_grad=True)
            value = over_torch(likelihood, dtype)(leaf).log_prob(torch.tensor(x))
            value.sum().backward()
            return value.detach().numpy(), leaf.grad.numpy()
        value, gradient = _over_jax(likelihood, dtype)(jnp.asarray(head), x)
        return np.asarray(value), np.asarray(gradient)


@cache
def _over_jax(likelihood, dtype):
    @jax.jit
    def run(head, x):
        value, back = jax.vjp(lambda head: over_jax(likelihood, dtype)(head).log_prob(x), head)
        return value, back(jnp.ones_like(value))[0]

    return run
