"""Runs of a program over data, in chunks of rows; latents that all rows share are the same for all chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.inference.evaluation.estimates import memory_told
from ppdgm.inference.inputs.feed import Feed

Sites = dict[str, np.ndarray]
_ALIKE = 1e-4  # relative to the larger number: means from chunks of other data, in float32


def chunks(runtime: Any, size: int, rows: int) -> list[np.ndarray]:
    """Indices of rows, in chunks of one size: the last chunk is filled up from the first rows.

    A chunk has at least two rows, so that an axis of one belongs to a latent that all rows share.
    """
    rows = runtime.tracer.batch_size or min(size, max(rows, 2))
    return [np.arange(start, start + rows) % size for start in range(0, size, rows)]


def over_chunks(
    runtime: Any,
    params: Any,
    feed: Feed,
    function: Callable[[Any, np.ndarray, int], Sites],
    size: int,
    rows: int,
) -> Sites:
    """Join the results of `function(data, index, chunk)`, [·, B, …] each, over the first `size` rows.

    Results that all rows share, [·, 1, …], must be the same for each chunk. Names may have a prefix before a "/".

    Raises:
        ProgramError: a shared result differs between chunks.
    """
    parts: list[Sites] = []
    every = chunks(runtime, size, rows)
    for i, index in enumerate(every):
        data, where = feed.rows(index)
        with memory_told():
            parts.append(function(data, where, i))
    shared = _shared(runtime, params, data, where, parts[0]) if len(parts) > 1 else []
    for name in shared:
        _check_alike(name, [p[name] for p in parts])
    join = lambda name: np.concatenate([p[name] for p in parts], axis=1)[:, :size]
    return {n: first if n in shared else join(n) for n, first in parts[0].items()}


class SharedDraws:
    """Draws of the guide, chunk by chunk; a latent that all rows share is drawn once for all chunks.

    Args:
        runtime, params: of the program.
        k: draws for each row.
    """

    def __init__(self, runtime: Any, params: Any, k: int):
        self.runtime, self.params, self.k = runtime, params, k
        self.held: Sites | None = None
        self.first: Sites | None = None

    def __call__(self, data: Any, index: np.ndarray, seed: int) -> Sites:
        """Latents [K, B, *event], or [K, 1, *event] if all rows share them."""
        if self.first is not None and self.held is None:
            names = _shared(self.runtime, self.params, data, index, self.first)
            self.held = {n: self.first[n] for n in names}
        found: Sites = self.runtime.draws(self.params, data, index, self.k, seed, self.held)
        self.first = self.first or found
        return found


def _shared(runtime: Any, params: Any, data: Any, index: np.ndarray, found: Sites) -> list[str]:
    """Names of the latents that all rows share, among those found for a chunk."""
    if len(index) > 1:
        return [n for n, v in found.items() if v.shape[1] == 1]
    names = runtime.trace(params, data, index, 1, 0, None, False).shared
    return [n for n in found if n in names or n.partition("/")[2] in names]


def _check_alike(name: str, parts: list[np.ndarray]) -> None:
    first = parts[0].astype(float)
    size = max(float(np.abs(first).max(initial=0.0)), 1e-30)
    if any(np.abs(p - first).max(initial=0.0) > _ALIKE * size for p in parts):
        raise ProgramError(
            f"Site {name.partition('/')[2] or name!r} is one latent for all data, but the guide computes it from the "
            "current rows, so it differs between chunks of rows. Compute it only from parameters, or draw it inside "
            "the data plate."
        )
