"""The basic tools: a program's log-weights and traces for given parameters, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data import as_fields
from ppdgm.data.frames import is_frame
from ppdgm.errors import DataError, PpdgmError, ProgramError, require
from ppdgm.inference.evaluation.estimates import dtype_of, log_weights_of_rows
from ppdgm.inference.evaluation.result import Fit
from ppdgm.inference.inputs.parameters import as_params
from ppdgm.language.vocabulary import Trace
from ppdgm.models.relaxed import CERTAIN
from ppdgm.program import AnyProgram, PlainPair, check_program

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data

FAR = 36.0  #: log-odds beyond which a probability is 0 or 1 to rounding in float64


def log_weights(
    program: AnyProgram,
    params: Mapping[str, np.ndarray],
    x: Data,
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
    return log_weights_of_rows(_fit(program, params, backend, device)._evaluator(_by_place(x), seed, memory), k)


def _by_place(x: Data) -> Data:
    """Refuse tables: parameters alone do not say which column is which.

    Raises:
        DataError: x, or one of its fields, is a table.
    """
    for name, value in x.items() if isinstance(x, Mapping) else [("x", x)]:
        if is_frame(value):
            raise DataError(
                f"Data {name!r}: got a table, but parameters alone do not say which column is which. Give an array, "
                "frame[columns].to_numpy(), with the columns in the order of training; or use the methods of a fit."
            )
    return x


def trace(
    program: AnyProgram,
    params: Mapping[str, np.ndarray],
    x: Data,
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
    evaluator = _fit(program, params, backend, device)._evaluator(_by_place(x), seed)
    require("k", k, int, 1, "a whole number of particles, at least 1")
    if values is not None and _named("values", values):
        values = as_fields(values, dtype_of(params), typed=isinstance(program, PlainPair))
    at = evaluator.params, *evaluator.feed.rows(np.arange(evaluator.size))
    found: Trace = evaluator.runtime.trace(*at, k, seed, values, kl)
    if values and not isinstance(program, PlainPair):
        drawn = evaluator.runtime.trace(*at, 1, seed, None, False).values
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


def _fit(program: AnyProgram, params: Mapping[str, np.ndarray], backend: str | None, device: str) -> Fit:
    check_program(program)
    require("device", device, str, None, "text, such as 'auto', 'cpu' or 'cuda:1'")
    name = getattr(program, "backend", None) or ("numpyro" if backend is None else backend)
    return Fit(program, dict(as_params(program, _named("params", params))), name, device)


def _named(name: str, arrays: object) -> Mapping[str, np.ndarray]:
    if not isinstance(arrays, Mapping):
        raise PpdgmError(f"{name}: got {type(arrays).__name__}, expected arrays by name, such as fit.params.")
    return arrays
