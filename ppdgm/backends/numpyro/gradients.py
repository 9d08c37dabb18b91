"""Gradients of a function of a trace, as NumPy arrays, for checks of programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppdgm.backends.numpyro.keys import make_key
from ppdgm.language.reader import Gradients
from ppdgm.language.vocabulary import Array, Trace

Arrays = Mapping[str, np.ndarray]


def precision(dtype: str) -> AbstractContextManager[Any]:
    """JAX's 64-bit mode inside a block, if `dtype` is float64."""
    return jax.enable_x64(True) if dtype == "float64" else nullcontext()


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

    def run(moved: Any, fixed: Any) -> Any:
        def value(moved: Any) -> Array:
            params, data, given = ({**moved[n], **fixed[n]} for n in ("params", "data", "given"))
            index = jnp.arange(len(next(iter(data.values()))))
            terms = runtime.tracer.trace(params, make_key(seed), data, index, k, given, kl, gradients=Gradients())
            return function(terms, jnp)

        return jax.value_and_grad(value)(moved)

    compiled = jax.jit(run)

    def on_numpy(params: Arrays, data: Arrays, given: Arrays) -> tuple[float, dict[str, dict[str, np.ndarray]]]:
        groups = {"params": params, "data": data, "given": given}
        native = {n: runtime.put(arrays) for n, arrays in groups.items()}
        moved, fixed = (
            {n: {m: a for m, a in arrays.items() if jnp.issubdtype(a.dtype, jnp.floating) == floating}
             for n, arrays in native.items()}
            for floating in (True, False)
        )  # fmt: skip
        value, gradients = runtime.fetch(compiled(moved, fixed))
        return float(value), gradients

    return on_numpy
