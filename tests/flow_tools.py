"""A flow, a net or a part outside any program, on either backend, as functions of NumPy arrays."""

import jax
import numpy as np
import torch

from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.backends.pyro.vocabulary import TorchVocabulary
from ppdgm.language.vocabulary import Declarations
from ppdgm.program import Context


class Plain:
    """Parameters as they are."""

    looping = False
    recomputes = False

    def param(self, name, value):
        return value

    def drops(self):
        return False

    draws_terms = drops

    def estimates(self, what):
        return False


def declare(flow, width, conditional):
    """(what the flow declares, the width of its context)."""
    declared = Declarations()
    seen = flow.build(Context(declared, "flow."), width, conditional)
    return declared, seen


def draw_params(declared, scale=0.3, dtype="float64", seed=8):
    """First values moved by noise of that scale; states, such as a permutation, stay."""
    rng = np.random.default_rng(seed)
    first = {n: s.init(rng, s.shape, None) for n, s in declared.params.items()}
    moved = {n: v + scale * rng.normal(size=v.shape) for n, v in first.items()}
    return {n: (first[n] if n in declared.states else v).astype(dtype) for n, v in moved.items()}


def speak(backend, params, declared):
    """P on a backend, over NumPy arrays that are taken there, and over JAX's tracers as they are."""
    if backend == "numpyro":
        return JaxVocabulary(Plain(), params, declared)
    return TorchVocabulary(Plain(), {n: torch.as_tensor(v) for n, v in params.items()}, declared)


def run(backend, function, params, declared, *arrays):
    """function(P, *arrays) with its results as NumPy arrays; None stays None."""
    if backend == "numpyro":
        compiled = jax.jit(lambda params, *arrays: function(speak(backend, params, declared), *arrays))
        return jax.tree.map(np.asarray, compiled(params, *arrays))
    P = speak(backend, params, declared)
    out = function(P, *(None if a is None else torch.tensor(a) for a in arrays))
    return tuple(a.numpy() for a in out) if isinstance(out, tuple) else out.numpy()


def apply(backend, flow, direction, params, declared, x, context=None):
    """A flow's value and log|det| in a direction."""
    return run(backend, lambda P, x, c: getattr(flow, direction)(P.scope("flow"), x, c), params, declared, x, context)
