"""Guides that keep parameters for each datum, by its place: they know the data that they were trained on alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ppdgm.errors import DataError
from ppdgm.inference.feed import Feed


def check_known(
    runtime: Any, params: Mapping[str, np.ndarray], feed: Feed, size: int, known: Callable[[], bool]
) -> None:
    """Refuse other data than those that a guide has parameters for, such as an autoguide of latents of each datum.

    Args:
        runtime: of the program.
        params: by name.
        feed: of the data.
        size: N of the training data.
        known: () -> whether these are the training data.

    Raises:
        DataError: a row would meet the parameters of another.
    """
    if runtime.tracer.batch_size is None:
        return
    own = [n for n, v in params.items() if np.ndim(v) and len(v) == size]
    if own and not known() and _is_blind(runtime, params, feed):
        raise DataError(
            f"Data: got other rows than the guide was trained on, and it keeps a row of parameter {own[0]!r} for each "
            f"of those {size}, by its place. A row would be given the posterior of another. Hand over the training "
            "data as they were, or use a guide that computes each datum's distribution from x."
        )


def fingerprint(fields: Mapping[str, Any]) -> str:
    """A checksum of data: of all bytes in memory, and of a thousand rows of what is streamed."""
    digest = hashlib.sha256()
    for name in sorted(fields):
        value = fields[name]
        digest.update(f"{name} {value.shape} {value.dtype}".encode())
        some = value if isinstance(value, np.ndarray) else value[np.linspace(0, len(value) - 1, 1000).astype(int)]
        digest.update(np.ascontiguousarray(some).data)
    return digest.hexdigest()


def _is_blind(runtime: Any, params: Mapping[str, np.ndarray], feed: Feed) -> bool:
    """Whether the guide's draws of each datum's latents are the same for other data at its place."""
    rows = np.arange(runtime.tracer.batch_size) % feed.size
    native = runtime.put(params)
    draws = []
    for step in (1, -1):
        fields = {n: np.concatenate([v[rows][::step], v[len(rows) :]]) for n, v in feed.fields.items()}
        trace = runtime.trace(native, runtime.put(fields), rows, 1, 0, None, False)
        draws.append({n: v for n, v in trace.values.items() if n not in trace.shared})
    return bool(draws[0]) and all(np.array_equal(draws[0][n], draws[1][n]) for n in draws[0])
