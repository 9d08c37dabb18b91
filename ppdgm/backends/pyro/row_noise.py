"""Noise of a process's own rows: drawn for all rows of the minibatch, as one process would, and cut out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ppdgm.backends.pyro.ranks import Ranks
from ppdgm.errors import UnsupportedByBackend
from ppdgm.language.vocabulary import Array

# How many random numbers these take depends on their parameters, so those of all rows are needed.
_REJECTING = {"aten::_standard_gamma", "aten::poisson", "aten::binomial", "aten::_sample_dirichlet"}


class Coincidence(UnsupportedByBackend):
    """Two axes of an array of noise have the size of the rows."""


class RowNoise:
    """Draws within a step of one of several processes.

    Args:
        ranks: the processes.
        size: this process's number of rows, at least 2.
    """

    def __init__(self, ranks: Ranks, size: int):
        self.ranks, self.size = ranks, size
        self.on = False  # a draw may consist of others, as that of a flow

    def of_sites(self, shape: tuple[int, ...]) -> AbstractContextManager[object]:
        """For draws of batch shape [..., K, B], or [K, 1] of a latent that all rows share, which all processes have."""
        return _Cut(self, prod(shape[:-1])) if shape[-1] == self.size and not self.on else nullcontext()

    def of_arrays(self) -> AbstractContextManager[object]:
        """For draws of any shape, of which one axis has the rows; those without are the same for all rows."""
        return nullcontext() if self.on else _Cut(self, None)

    def axis(self, shape: tuple[int, ...], lead: int | None) -> int | None:
        """The axis that ends the rows: of size B, or (K B) flattened; None if the array has no rows.

        Raises:
            UnsupportedByBackend: it can't be known.
        """
        if lead is not None:
            for i in range(len(shape)):
                if prod(shape[: i + 1]) == lead * self.size and shape[i] % self.size == 0:
                    return i
            raise _unknown(shape)
        found = [i for i, n in enumerate(shape) if n == self.size]
        if len(found) > 1:
            raise Coincidence(
                f"devices: random numbers of shape {shape} have two axes of {self.size}, the rows of each process, so "
                "the axis of rows is not known. Give another batch_size."
            )
        if found:
            return found[0]
        flat = [i for i, n in enumerate(shape) if n and n % self.size == 0]
        if flat and flat[0] != 0:
            raise _unknown(shape)
        return 0 if flat else None

    def widened(self, value: Array, lead: int | None, own: bool) -> Array:
        """A parameter of a draw for the rows of all processes; if only the `own` ones count, they stand for others."""
        if (i := self.axis(tuple(value.shape), lead)) is None:
            return value
        rows = value.reshape(-1, self.size, *value.shape[i + 1 :])
        parts = [rows] * self.ranks.processes if own else self.ranks.gathered(rows)
        return torch.cat(parts, 1).reshape(self.wide(tuple(value.shape), i))

    def wide(self, shape: tuple[int, ...], i: int) -> tuple[int, ...]:
        """The shape for the rows of all processes."""
        return (*shape[:i], shape[i] * self.ranks.processes, *shape[i + 1 :])

    def cut(self, value: Array, i: int) -> Array:
        """This process's rows, of those of all."""
        rows = value.reshape(-1, self.size * self.ranks.processes, *value.shape[i + 1 :])
        mine = rows.narrow(1, self.ranks.process * self.size, self.size)
        return mine.reshape(
            *value.shape[:i], value.shape[i] // self.ranks.processes, *value.shape[i + 1 :]
        ).contiguous()


class _Cut(TorchDispatchMode):
    def __init__(self, noise: RowNoise, lead: int | None):
        super().__init__()
        self.noise, self.lead = noise, lead

    def __enter__(self) -> Any:
        self.noise.on = True
        return super().__enter__()

    def __exit__(self, *how: Any) -> None:
        self.noise.on = False
        super().__exit__(*how)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        noise, lead, name = self.noise, self.lead, func._schema.name
        if name == "aten::randperm" and args[0] % noise.size == 0:
            raise UnsupportedByBackend(
                "devices: a permutation of the minibatch's rows needs all of them, but each process has its own. Train "
                "on one device, or on the numpyro backend."
            )
        first = next((a for a in args if isinstance(a, torch.Tensor | list | tuple)), None)
        if first is None:
            return func(*args, **kwargs)
        sized = not isinstance(first, torch.Tensor)  # the draw's shape is given, rather than parameters
        shape = tuple(first) if isinstance(first, list | tuple) else tuple(first.shape)
        if (i := noise.axis(shape, lead)) is None:
            return func(*args, **kwargs)
        if sized:
            wide = list(noise.wide(shape, i))
            return noise.cut(func(*(wide if a is first else a for a in args), **kwargs), i)
        if func._schema.is_mutable:
            target = args[0].new_empty(noise.wide(shape, i))
            others = [noise.widened(a, lead, True) if isinstance(a, torch.Tensor) else a for a in args[1:]]
            func(target, *others, **kwargs)
            return args[0].copy_(noise.cut(target, i))
        own = name not in _REJECTING
        every = [noise.widened(a, lead, own) if isinstance(a, torch.Tensor) else a for a in args]
        return tree_map(lambda a: noise.cut(a, i), func(*every, **kwargs))


_now: RowNoise | None = None


def row_noise() -> RowNoise | None:
    """The noise of the step that is being taken, if its rows are divided among processes."""
    return _now


@contextmanager
def divided(noise: RowNoise) -> Iterator[None]:
    """A step whose rows are divided."""
    global _now
    _now = noise
    try:
        yield
    finally:
        _now = None


class OfRows:
    """An object whose methods draw arrays of noise, for the rows of this process."""

    def __init__(self, random: object, noise: RowNoise):
        self._random, self._noise = random, noise

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._random, name)
        if name == "draw":  # where the shape says which axis has the rows
            return method

        def drawn(*args: Any, **kwargs: Any) -> Any:
            with self._noise.of_arrays():
                return method(*args, **kwargs)

        return drawn


def _unknown(shape: tuple[int, ...]) -> UnsupportedByBackend:
    return UnsupportedByBackend(
        f"devices: random numbers of shape {tuple(shape)} can't be divided among processes, because their axis of rows "
        "is not known. Expected [B, …] or [K, B, …]. Train on one device, or on the numpyro backend."
    )
