"""Pairs that keep parameters for each row, by its place: they only know the data that they were trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.errors import DataError, PpdgmError
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.row_independence import PARTICLES, first_difference, turned
from ppdgm.language.vocabulary import Array, Trace

if TYPE_CHECKING:
    from ppdgm.language.runtime import Runtime


def check_own_rows(
    runtime: Runtime, params: Mapping[str, np.ndarray], feed: Feed, size: int, known: Callable[[], bool]
) -> None:
    """Refuse data that a pair, such as an autoguide with latents of each row, has no parameters for.

    Args:
        runtime: of the program.
        params: by name.
        feed: of the data.
        size: N of the training data.
        known: () -> whether these are the training data.

    Raises:
        DataError: a row would be used with the parameters of another row.
    """
    if runtime.tracer.batch_size is None:
        return
    own = [n for n, v in params.items() if _has_rows(np.shape(v), size, runtime.tracer.own_rows)]
    if known():
        return
    if (own and _is_blind(runtime, params, feed)) or _goes_by_place(runtime, params, feed, sure=bool(own)):
        what = f"parameter {own[0]!r}" if own else "something in it, such as an array of its own,"
        raise DataError(
            f"Data: got other rows than the {size} that the pair was trained on, but {what} belongs to those rows, by "
            "position. A new row would get another row's values. Give the training data unchanged, or use a guide that "
            "computes each row's distribution from x."
        )


def _has_rows(shape: tuple[int, ...], size: int, known: int | None) -> bool:
    """Whether a parameter has a row for each row of the data: along any axis, or in one vector, as in autoguides."""
    return size in shape or (known is not None and len(shape) == 1 and shape[0] > 0 and shape[0] % size == 0)


def fingerprint(fields: Mapping[str, Array]) -> str:
    """A checksum of data: of all bytes of fields in memory, and of a thousand rows of streamed fields."""
    digest = hashlib.sha256()
    for name in sorted(fields):
        value = fields[name]
        digest.update(f"{name} {value.shape} {value.dtype}".encode())
        some = value if isinstance(value, np.ndarray) else value[np.linspace(0, len(value) - 1, 1000).astype(int)]
        digest.update(np.ascontiguousarray(some).data)
    return digest.hexdigest()


def _goes_by_place(runtime: Runtime, params: Mapping[str, np.ndarray], feed: Feed, sure: bool) -> bool:
    """Whether the terms and latents of a row change if it is at another place.

    If it is not `sure` that something is kept for each row, the terms must not change with other draws of a guide's
    auxiliary sites, which belong to a place.
    """
    rows, native = np.arange(cast(int, runtime.tracer.batch_size)) % feed.size, runtime.put(params)  # a pair with one

    def read(by: int, given: Mapping[str, np.ndarray], seed: int = 0) -> Trace:
        fields = {n: np.concatenate([np.roll(v[rows], by, 0), v[len(rows) :]]) for n, v in feed.fields.items()}
        return runtime.trace(native, runtime.put(fields), rows, PARTICLES, seed, given, False)

    own = read(0, {})
    given = {n: v for n, v in own.values.items() if v.shape[:2] == (PARTICLES, len(rows)) or n in own.shared}
    if len(given) < len(own.values) or len(rows) == 1:
        return False  # a latent that is summed over can't be held
    try:
        held = read(0, given)
        if not sure and first_difference(held, read(0, given, 1), (0, 0)) is not None:
            return False
        return first_difference(held, read(1, {n: turned(v) for n, v in given.items()}), (0, 0), (0, 1)) is not None
    except (PpdgmError, NotImplementedError):  # only its own draws can be scored, as for a one-way flow
        return False


def _is_blind(runtime: Runtime, params: Mapping[str, np.ndarray], feed: Feed) -> bool:
    """Whether the guide's draws of each row's latents are the same for other data at its place."""
    rows = np.arange(cast(int, runtime.tracer.batch_size)) % feed.size  # a pair with one
    native = runtime.put(params)
    draws = []
    for step in (1, -1):
        fields = {n: np.concatenate([v[rows][::step], v[len(rows) :]]) for n, v in feed.fields.items()}
        trace = runtime.trace(native, runtime.put(fields), rows, 1, 0, None, False)
        draws.append({n: v for n, v in trace.values.items() if n not in trace.shared})
    return bool(draws[0]) and all(np.array_equal(draws[0][n], draws[1][n]) for n in draws[0])
