"""Minibatches: planned as arrays for whole stretches of steps, the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Plan:
    """The steps first, …, first + count − 1 of a run, padded to a fixed number of rows.

    Attributes:
        index: rows of each step, [S, B]. A ragged minibatch is padded with other rows of its epoch, so that batch
            statistics are always those of B rows.
        weight: 1 for a row, 0 for padding, [S, B].
        rate: learning rate, [S].
        hyperparameters: of each phase, the scheduled numbers of its engine at each step, each [S].
        first, count: the steps.
        phase: the number of each step's phase in the engine, [S]; by default the first one's.
        scheduled: parameters that a schedule of the program sets, at each step, each [S].
    """

    index: np.ndarray
    weight: np.ndarray
    rate: np.ndarray
    hyperparameters: tuple[dict[str, np.ndarray], ...]
    first: int
    count: int
    phase: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    scheduled: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.phase):
            object.__setattr__(self, "phase", np.zeros(len(self.rate), np.int32))


class Batches:
    """Every row once an epoch, in a new order drawn from (seed, epoch). The last minibatch may be ragged."""

    def __init__(self, data_size: int, batch_size: int, seed: int):
        self.data_size, self.batch_size, self.seed = data_size, min(batch_size, data_size), seed
        self.per_epoch = -(-data_size // self.batch_size)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def rows(self, first: int, count: int, capacity: int) -> tuple[np.ndarray, np.ndarray]:
        """Index and weight of the steps from `first` on, [capacity, B]; rows after `count` are zeros."""
        index = np.zeros((capacity, self.batch_size), np.int32)
        weight = np.zeros((capacity, self.batch_size), np.float32)
        for row in range(count):
            epoch, batch = divmod(first + row, self.per_epoch)
            order = self._order_of(epoch)
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            padding = order[: self.batch_size - len(chosen)]
            index[row], weight[row, : len(chosen)] = np.concatenate([chosen, padding]), 1.0
        return index, weight

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.data_size)
        return self._order
