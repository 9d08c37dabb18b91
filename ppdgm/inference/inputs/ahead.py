"""Streamed rows for the steps: a thread reads those of the next steps while the present ones are taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.inference.inputs.batches import Batches, Plan
from ppdgm.inference.inputs.feed import Feed

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native

WAIT = 5.0  # seconds for a thread that reads, when training stops


@dataclass
class Block:
    """The rows of the steps first, …, end − 1 on the device, one step after the other; `data` waits until they are."""

    first: int
    end: int
    data: Callable[[], Native]


class Ahead:
    """Blocks of steps: the present one, and the next one, which is being read. They do not depend on stretches.

    Args:
        feed: of streamed data.
        batches: the rows of each step.
        capacity: the number of steps of a block.
        total: the number of all steps.
    """

    def __init__(self, feed: Feed, batches: Batches, capacity: int, total: int):
        self.feed, self.batches, self.capacity, self.total = feed, batches, capacity, total
        self._now: Block | None = None
        self._next: _Reading | None = None

    def stretch(self, plan: Plan) -> tuple[Plan, Native]:
        """The same as `Feed.stretch`; the next block begins to be read.

        Raises:
            Exception: of reading the rows, in whichever thread it was.
        """
        block = self._holding(plan.first, plan.first + plan.count)
        if block.end < self.total and (self._next is None or self._next.first != block.end):
            self._wait()
            self._next = self._reading(block.end)
            self._next.start()
        data, width = block.data(), plan.index.shape[1]
        index = np.zeros(plan.index.shape, plan.index.dtype)
        begin = (plan.first - block.first) * width
        index[: plan.count] = begin + np.arange(plan.count * width).reshape(plan.count, width)
        return replace(plan, index=index), data

    def end(self, step: int) -> int:
        """The end of the block that a stretch from this step on would use."""
        known = next((b for b in (self._now, self._next) if b is not None and b.first <= step < b.end), None)
        return self._end(step) if known is None else known.end

    def close(self) -> None:
        """Stop reading."""
        if self._next is not None:
            self._next.wanted = False
            self._next.join(WAIT)
        self._now = self._next = None

    def _end(self, first: int) -> int:
        return min(first + self.capacity, self.total)

    def _holding(self, first: int, end: int) -> Block:
        """The block of these steps; what is not there, because training went back to an earlier state, is read."""
        if self._now is not None and self._now.first <= first and end <= self._now.end:
            return self._now
        if self._next is not None and self._next.first <= first and end <= self._next.end:
            reading, self._next = self._next, None
        else:
            self._wait()
            reading = self._reading(first)
            reading.run()
        self._now = None  # so that its memory is free
        self._now = reading.block()
        return self._now

    def _wait(self) -> None:
        if self._next is not None:
            self._next.join()

    def _reading(self, first: int) -> _Reading:
        end = self._end(first)
        index, _ = self.batches.rows(first, end - first, self.capacity)
        return _Reading(self.feed, index[: end - first].ravel(), index.size, first, end)


class _Reading(threading.Thread):
    """Reads a block's rows and sends them to the device.

    Args:
        feed: of the data.
        index: the rows.
        size: the number of rows of every block; a shorter one is filled up.
        first, end: steps.
    """

    def __init__(self, feed: Feed, index: np.ndarray, size: int, first: int, end: int):
        super().__init__(name="ppdgm-rows", daemon=True)  # a disk that does not answer keeps no process alive
        self.feed, self.index, self.size, self.first, self.end = feed, index, size, first, end
        self.wanted = True
        self._data: Callable[[], Native] | None = None
        self._error: BaseException | None = None
        self._settings = feed.runtime.settings_here()

    def run(self) -> None:
        """In the thread, or in the caller's own."""
        try:
            found = self.feed.padded(self.index, self.size)
            if self.wanted:
                with self._settings:
                    self._data = self.feed.runtime.send(found)
        except BaseException as error:  # raised where the rows are used
            self._error = error

    def block(self) -> Block:
        """Wait for the rows.

        Raises:
            Exception: of reading them.
        """
        if self.ident is not None:
            self.join()
        if self._error is not None:
            raise self._error
        assert self._data is not None
        return Block(self.first, self.end, self._data)
