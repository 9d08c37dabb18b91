"""The basic tools: a program's log-weights and traces for given parameters, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppdgm.data import as_fields
from ppdgm.errors import PpdgmError, ProgramError, require
from ppdgm.inference.evaluation.estimates import check_fields, dtype_of, log_weights_of_rows, parse_memory
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.parameters import as_params
from ppdgm.inference.inputs.stray_noise import check_quiet
from ppdgm.inference.inputs.support import check_support
from ppdgm.language.vocabulary import Trace
from ppdgm.models.relaxed import CERTAIN
from ppdgm.program import PlainPair, check_program
from ppdgm.registry import backend as load_backend

FAR = 36.0  #: log-odds beyond which a probability is 0 or 1 to rounding in float64


def log_weights(
    program: Any,
    params: Mapping[str, np.ndarray],
    x: Any,
    k: int = 1,
    backend: str | None = None,
    seed: int = 0,
    memory: int | str = "auto",
    device: str = "auto",
) -> np.ndarray:
    """log w_k = log p(x, z_k) − log q(z_k|x) for draws z_k ~ q, [K, N] in nats.

    If a pair keeps parameters for each row, give the rows that it was trained on, in their order. This is not checked,
    because the training data are not known here; `fit.log_weights` checks it.

    Args:
        program: a Program or a plain pair.
        params: parameters by name, as from `program.initialise()` or `fit.params`.
        x: array [N, *event_shape], or named arrays.
        k: particles per row.
        backend: "numpyro" (default) or "pyro"; a plain pair has its own.
        seed: of the draws.
        memory: limit on a chunk's intermediate results: bytes, "512 MiB" or "auto".
        device: "auto", "cpu", "cuda", "cuda:1".
    """
    runtime, native, feed = _ready(program, params, x, backend, device)
    return log_weights_of_rows(Evaluator(runtime, native, feed, parse_memory(memory, runtime.device), seed), k)


def trace(
    program: Any,
    params: Mapping[str, np.ndarray],
    x: Any,
    k: int = 1,
    backend: str | None = None,
    seed: int = 0,
    values: Mapping[str, np.ndarray] | None = None,
    kl: bool = False,
    device: str = "auto",
) -> Trace:
    """Every site's values and terms, in one piece.

    If a pair keeps parameters for each row, give the rows that it was trained on, in their order; this is not checked.

    Args:
        values: latents [K, N, *event] to score instead of drawing them. For a relaxed latent, values and draws are
            those of the discrete distribution that it stands for.
        kl: add closed-form KLs if they are valid.
        others: as for `log_weights`.
    """
    runtime, native, feed = _ready(program, params, x, backend, device)
    require("k", k, int, 1, "a whole number of particles, at least 1")
    require("seed", seed, int, 0, "a whole number, at least 0")
    if values is not None and _named("values", values):
        values = as_fields(values, dtype_of(params), typed=isinstance(program, PlainPair))
    data, index = feed.rows(np.arange(feed.size))
    found: Trace = runtime.trace(native, data, index, k, seed, values, kl)
    if values and not isinstance(program, PlainPair):
        drawn = runtime.trace(native, data, index, 1, seed, None, False).values
        for name in values.keys() & drawn.keys():
            _check_discrete(name, np.asarray(values[name]), drawn[name])
    return found


def _check_discrete(name: str, value: np.ndarray, drawn: np.ndarray) -> None:
    """Refuse values between those of a latent that evaluations draw as log one-hot vectors or certain log-odds.

    Raises:
        ProgramError: with the site.
    """
    certain = np.abs(drawn) == CERTAIN
    if drawn.dtype.kind != "f" or not drawn.size or not ((drawn == 0) | certain).all() or not certain.any():
        return
    classes, far, at = (drawn == 0).any(), np.abs(value) > FAR, np.abs(value) < np.exp(-FAR)
    fits = (at.sum(-1) == 1) & (at | far).all(-1) if classes else far
    if not fits.all():
        expected = (
            f"log one-hot vectors: one 0, and about −{CERTAIN:g} elsewhere" if classes else f"log-odds of ±{CERTAIN:g}"
        )
        raise ProgramError(
            f"values: site {name!r}: got numbers between the values of this discrete site, such as a relaxed draw, "
            f"expected {expected}. Use trace(…).values; the relaxation is only for training."
        )


def _ready(program: Any, params: Mapping[str, np.ndarray], x: Any, backend: str | None, device: str) -> Any:
    check_program(program)
    require("device", device, str, None, "text, such as 'auto', 'cpu' or 'cuda:1'")
    params = as_params(program, _named("params", params))
    fields = as_fields(x, dtype_of(params), "judge", isinstance(program, PlainPair))
    check_fields(program, fields)
    name = getattr(program, "backend", None) or ("numpyro" if backend is None else backend)
    runtime = load_backend(name).Runtime(program, device)
    feed = Feed(runtime, fields)
    runtime.prepare(feed.sample)
    check_support(program, runtime, params, feed, False)
    native = runtime.put(params)
    check_quiet(runtime, native, feed)
    return runtime, native, feed


def _named(name: str, arrays: Any) -> Mapping[str, np.ndarray]:
    if not isinstance(arrays, Mapping):
        raise PpdgmError(f"{name}: got {type(arrays).__name__}, expected arrays by name, such as fit.params.")
    return arrays
