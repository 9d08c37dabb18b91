"""Gradients of a function of a trace, as NumPy arrays, for checks of programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ppdgm.language.reader import Gradients
from ppdgm.language.runtime import Arrays, Native, Runtime
from ppdgm.language.tracer import Params
from ppdgm.language.vocabulary import Array, Namespace, Noise, Trace


def differentiable(
    runtime: Runtime, function: Callable[[Trace, Namespace], Array], k: int, seed: int, kl: bool
) -> Callable[[Arrays, Arrays, Arrays], tuple[float, dict[str, dict[str, np.ndarray]]]]:
    """A scalar `function(trace, xp)` of a reading as in training, with its gradient.

    Args:
        runtime: of the program.
        function: of the trace.
        k: particles.
        seed: of the draws, which are the same in each call.
        kl: whether the trace has closed forms.

    Returns:
        (params, data, given values) -> (value, {"params", "data" and "given": gradients by name}).
    """

    def on_numpy(params: Arrays, data: Arrays, given: Arrays) -> tuple[float, dict[str, dict[str, np.ndarray]]]:
        native = [runtime.put(arrays) for arrays in (params, data, given)]
        index = runtime.index(np.arange(len(next(iter(data.values())))))
        how: dict[str, object] = {"function": function, "k": k, "kl": kl}
        value, gradients = runtime.ask(_slopes, native[0], (seed,), *native[1:], index, **how)
        return float(value), gradients

    return on_numpy


def _slopes(
    runtime: Runtime,
    params: Params,
    noise: Noise,
    data: Native,
    given: Native,
    index: Array,
    function: Callable[[Trace, Namespace], Array],
    k: int,
    kl: bool,
) -> tuple[Array, dict[str, Native]]:
    groups: dict[str, Mapping[str, Array]] = {"params": params, "data": data, "given": given}
    floating = lambda v: runtime.xp.isdtype(v.dtype, "real floating")
    moved = {(g, n): v for g, arrays in groups.items() for n, v in arrays.items() if floating(v)}

    def value(z: dict[tuple[str, str], Array]) -> tuple[Array, Array]:
        now = {g: {n: z.get((g, n), v) for n, v in arrays.items()} for g, arrays in groups.items()}
        trace = runtime.tracer.trace(
            now["params"], noise, now["data"], index, k, now["given"], kl, gradients=Gradients()
        )
        found = function(trace, runtime.xp)
        return found, found

    slopes, found = runtime.slopes(value, moved)
    return found, {g: {n: slopes[g, n] for n in arrays if (g, n) in slopes} for g, arrays in groups.items()}
