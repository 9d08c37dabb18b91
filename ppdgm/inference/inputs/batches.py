"""Minibatches: planned as arrays for whole stretches of steps, the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.errors import TrainingError

if TYPE_CHECKING:
    from ppdgm.language.tracer import Tracer


@dataclass(frozen=True)
class Plan:
    """The steps first, …, first + count − 1 of a run, padded to a fixed number of rows.

    Attributes:
        index: rows of each step, [S, B]. A ragged minibatch is padded with other rows of its epoch, so that batch
            statistics are always those of B rows.
        weight: of a row, 1 if none are given; 0 for padding, [S, B].
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
    """Every row once an epoch, in a new order drawn from (seed, epoch). The last minibatch may be ragged.

    Args:
        data_size: N.
        batch_size: B.
        seed: of the orders.
        weights: of rows [N], of mean 1; None if each row counts once.
    """

    def __init__(self, data_size: int, batch_size: int, seed: int, weights: np.ndarray | None = None):
        self.data_size, self.batch_size, self.seed = data_size, min(batch_size, data_size), seed
        self.weights = weights
        self.per_epoch = -(-data_size // self.batch_size)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def rows(self, first: int, count: int, capacity: int) -> tuple[np.ndarray, np.ndarray]:
        """Index and weight of the steps from `first` on, [capacity, B]; rows after `count` are zeros."""
        index = np.zeros((capacity, self.batch_size), np.int32)
        weight = np.zeros((capacity, self.batch_size), np.float32 if self.weights is None else self.weights.dtype)
        for row in range(count):
            epoch, batch = divmod(first + row, self.per_epoch)
            order = self._order_of(epoch)
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            padding = order[: self.batch_size - len(chosen)]
            index[row], weight[row, : len(chosen)] = np.concatenate([chosen, padding]), self._weight(chosen)
        return index, weight

    def _weight(self, rows: np.ndarray) -> np.ndarray | float:
        """Weights of a minibatch's rows; 1 if all are 0: the step then counts nothing, by its mass."""
        found = None if self.weights is None else self.weights[rows]
        return 1.0 if found is None or not found.any() else found

    def mass(self, first: int, count: int, capacity: int) -> np.ndarray | None:
        """The mean weight of each step's rows, [capacity]: the step's objective is this times a weighted mean.

        So minibatches with little weight move little, and an epoch's objective is Σ w_i ELBO_i. None without weights.
        """
        if self.weights is None:
            return None
        found = np.zeros(capacity, self.weights.dtype)
        for row in range(count):
            epoch, batch = divmod(first + row, self.per_epoch)
            rows = self._order_of(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]
            found[row] = self.weights[rows].mean()
        return found

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.data_size)
        return self._order


def choose_batch(tracer: Tracer, batch_size: int | None, size: int) -> int:
    """B, as it was asked for, or as the program's own plate has it.

    Raises:
        TrainingError: these are not the same.
    """
    own, known = tracer.batch_size, tracer.own_rows
    if own and own == known and batch_size not in (None, own):
        raise TrainingError(
            f"batch_size: got {batch_size}, but the pair needs all its {own} rows at once, because it has a "
            "parameter for each row, or an array with all rows. Leave batch_size out; or subsample the plate and "
            "index by row; or give the array as a field of the data."
        )
    if own and batch_size not in (None, own):
        raise TrainingError(
            f"batch_size: got {batch_size}, but the program's own plate fixes it at {own}. Leave it out."
        )
    if own and own > size:
        raise TrainingError(
            f"The program's plate takes minibatches of {own} rows, but the data have only {size} rows. Change "
            "the plate's size."
        )
    return own or batch_size or 100
