"""Data for loops: on the device at once, or, if they are streamed from disk, a chunk at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data import Stream, take
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.errors import DataError
from ppdgm.inference.inputs.batches import Plan
from ppdgm.language import pair_mistakes

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Runtime

CHUNK_BYTES = 2**26  # of a chunk of streamed rows
SAMPLED = 2000  # number of these, for first values
LOOKED = 500  # rows of a look in between


class Feed:
    """Named arrays or streams with N rows, and their rows on the device.

    Args:
        runtime: of the program.
        fields: from `as_fields`.
    """

    def __init__(self, runtime: Runtime, fields: Mapping[str, np.ndarray | Stream]):
        self.runtime, self.fields = runtime, fields
        self.size = len(next(iter(fields.values())))
        self.streamed = any(isinstance(v, Stream) for v in fields.values())

    @cached_property
    def sample(self) -> Mapping[str, np.ndarray | Stream]:
        """Rows for the inspection of a plain pair, and for first values: all, or some at random of a stream."""
        if not self.streamed:
            return self.fields
        most = int(np.clip(CHUNK_BYTES // max(self._row_bytes, 1), 1, SAMPLED))
        return take(self.fields, some_rows(self.size, most))

    @property
    def _row_bytes(self) -> int:
        return sum(prod(v.shape[1:]) * np.dtype(v.dtype).itemsize for v in self.fields.values())

    @cached_property
    def native(self) -> Native:
        """All data, on the device."""
        return self.runtime.put(self.fields)

    def some(self, count: int) -> Native:
        """The first rows, which show shapes, sizes and mistakes of a program; all rows, if a pair may need them."""
        tracer, first = self.runtime.tracer, np.arange(count) % self.size
        if self.streamed or tracer.subsamples or tracer.batch_size is not None:
            return self.rows(first)[0]
        return self.runtime.put(take(self.fields, first))

    def rows(self, index: np.ndarray) -> tuple[Native, np.ndarray]:
        """Data on the device, and the positions in them of the rows of `index`."""
        if not self.streamed:
            return self.native, index
        return self.runtime.put(self._read(index)), np.arange(len(index))

    def stretch(self, plan: Plan) -> tuple[Plan, Native]:
        """The plan and the data that its indices refer to. Streamed chunks have one shape, whatever `plan.count` is."""
        if not self.streamed:
            return plan, self.native
        index = np.zeros(plan.index.shape, plan.index.dtype)
        index[: plan.count] = np.arange(plan.count * plan.index.shape[1]).reshape(plan.count, -1)
        return replace(plan, index=index), self.runtime.put(
            self.padded(plan.index[: plan.count].ravel(), plan.index.size)
        )

    def padded(self, index: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """Rows from disk, and zeros up to this number of rows."""
        found, missing = self._read(index), size - len(index)
        fill = lambda a: np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) if missing else a
        return {n: fill(a) for n, a in found.items()}

    def check_known(self) -> None:
        """Refuse rows for which a plain pair has no parameters, if it has some for each row.

        Raises:
            ProgramError: the number of rows differs from the one that the pair knows.
            DataError: the rows are streamed, so the pair never sees all of them.
        """
        known = self.runtime.tracer.own_rows
        if known is not None and self.streamed:
            raise DataError(
                "Data: got a memory-mapped array, but a pair with parameters for each row needs all rows in memory. "
                "Give np.array(x)."
            )
        pair_mistakes.check_known(known, self.size)

    def capacity(self, batch_size: int, most: int) -> int:
        """The number of steps whose data may be in memory at a time."""
        if not self.streamed:
            return most
        return int(np.clip(CHUNK_BYTES // max(self._row_bytes * batch_size, 1), 1, most))

    def _read(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Rows from disk.

        Raises:
            DataError: the program itself draws its minibatch.
        """
        if self.runtime.tracer.subsamples:
            raise DataError(
                "Data: got a memory-mapped array, but a program that subsamples its data needs all rows in "
                "memory. Give np.array(x)."
            )
        return take(self.fields, index)


def with_bits(feed: Feed) -> Feed:
    """Rows as the steps of dynamic binarisation see them, drawn once: x ~ Bernoulli(x), of at most 500 random rows.

    All rows, if a plain pair knows each of them.
    """
    known = feed.runtime.tracer.own_rows is not None
    few = take(feed.fields, np.arange(feed.size) if known else some_rows(feed.size, LOOKED))
    x = np.asarray(few["x"])
    bits = np.random.default_rng(0).random(x.shape) < x
    return Feed(feed.runtime, {**few, "x": bits.astype(x.dtype)})
