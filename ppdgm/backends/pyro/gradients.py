"""Gradients of a function of a trace, as NumPy arrays, for checks of programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from ppdgm.backends.pyro.runtime import seeded
from ppdgm.backends.pyro.vocabulary import unvalidated
from ppdgm.language.reader import Gradients
from ppdgm.language.vocabulary import Array, Trace

Arrays = Mapping[str, np.ndarray]


def precision(dtype: str) -> AbstractContextManager[Any]:
    """Does nothing: torch computes in its arrays' own type."""
    return nullcontext()


def differentiable(
    runtime: Any, function: Callable[[Trace, Any], Array], k: int, seed: int, kl: bool
) -> Callable[[Arrays, Arrays, Arrays], tuple[float, dict[str, dict[str, np.ndarray]]]]:
    """A scalar `function(trace, xp)` of a reading as in training, with its gradient.

    Args:
        runtime: of the program.
        k: particles.
        seed: of the draws, which are the same in each call.
        kl: whether the trace has closed forms.

    Returns:
        (params, data, given values) -> (value, {"params", "data" and "given": gradients by name}).
    """

    def on_numpy(params: Arrays, data: Arrays, given: Arrays) -> tuple[float, dict[str, dict[str, np.ndarray]]]:
        groups = {"params": runtime.put(params), "data": runtime.put(data), "given": runtime.put(given)}
        leaves = [a.requires_grad_() for arrays in groups.values() for a in arrays.values() if a.is_floating_point()]
        names = [(g, n) for g, arrays in groups.items() for n, a in arrays.items() if a.is_floating_point()]
        index = torch.arange(len(next(iter(groups["data"].values()))), device=runtime.device)
        with unvalidated(), seeded(runtime.device, seed), runtime.tracer.evaluating(groups["params"]) as native:
            terms = runtime.tracer.trace(
                native, None, groups["data"], index, k, groups["given"], kl, gradients=Gradients()
            )
            value = function(terms, xp)
        found = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        gradients: dict[str, dict[str, np.ndarray]] = {g: {} for g in groups}
        for (group, name), gradient in zip(names, found, strict=True):
            gradients[group][name] = gradient.cpu().numpy()
        return float(value.detach()), gradients

    return on_numpy
