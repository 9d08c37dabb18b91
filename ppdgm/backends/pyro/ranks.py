"""Several torch processes, started by torchrun: each has all parameters, and its own rows of each minibatch."""

from __future__ import annotations

import atexit
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
import torch.distributed as dist

from ppdgm.errors import PpdgmError, TrainingError
from ppdgm.language.shares import OF_EVALUATIONS, OF_TRAINING, Result, Share
from ppdgm.language.vocabulary import Array

MINUTES = 10  # without an answer of another process, such as one that writes a checkpoint


@dataclass(frozen=True)
class Ranks(Share):
    """This process among those of a run; `where` has the tensors that they exchange."""

    where: torch.device = torch.device("cpu")

    def largest(self, numbers: np.ndarray) -> np.ndarray:
        if self.processes == 1:
            return numbers
        found = torch.tensor(numbers, device=self.where)
        with self._answered():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.cpu().numpy()

    def part(self, rows: Array) -> Array:
        """This process's rows, of those of all."""
        each = len(rows) // self.processes
        return rows[self.process * each : (self.process + 1) * each]

    def total(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The sum of each array over all processes: one exchange for each type."""
        found: dict[str, Array] = {}
        for dtype in dict.fromkeys(a.dtype for a in arrays.values()):
            names = [n for n, a in arrays.items() if a.dtype == dtype]
            flat = torch.cat([arrays[n].detach().reshape(-1) for n in names])
            with self._answered():
                dist.all_reduce(flat)
            parts = flat.split([arrays[n].numel() for n in names])
            found |= {n: part.reshape(arrays[n].shape) for n, part in zip(names, parts, strict=True)}
        return found

    def gathered(self, array: Array) -> list[Array]:
        """Every process's array."""
        found = [torch.empty_like(array) for _ in range(self.processes)]
        with self._answered():
            dist.all_gather(found, array.contiguous())
        return found

    def added(self, array: Array) -> Array:
        """The sum over all processes, through which gradients pass."""
        found: Array = _Added.apply(array, self)
        return found

    def check_same(self, generators: tuple[Array, Array | None]) -> None:
        """Refuse to go on if the processes no longer have the same random numbers before them.

        Raises:
            TrainingError: they differ.
        """
        if self.processes == 1:
            return
        own = np.int64(crc32(b"".join(g.numpy().tobytes() for g in generators if g is not None)))
        most, least = self.largest(np.array([own, -own]))
        if most != -least:
            raise TrainingError(
                "devices: the processes have drawn different numbers of random numbers, so they no longer take the "
                "same step: a distribution draws until a number fits, as VonMises does. Train on one device, or on the "
                "numpyro backend."
            )

    def each(self, count: int, work: Callable[[int], Result], about: tuple[object, ...]) -> Iterator[Result]:
        """The same as for the base class: each process takes one of the next pieces, and then all tell what they found.

        Raises:
            PpdgmError: the processes do different work, or one does not answer.
            Exception: of the first piece that failed, in all processes.
        """
        if self.processes == 1:
            yield from super().each(count, work, about)
            return
        for first in range(0, count, self.processes):
            mine = first + self.process
            found = _tried(work, mine) if mine < count else None
            every: list[Any] = [None] * self.processes
            with self._answered(OF_EVALUATIONS):
                dist.all_gather_object(every, ((count, *about), found if found is None else _portable(found)))
            if (asked := [a for a, _ in every]) != [asked[0]] * self.processes:
                raise PpdgmError(f"devices: the processes compute different things: {asked}. {OF_EVALUATIONS}")
            every[self.process] = None, found
            for _, (result, error) in every[: count - first]:
                if error is not None:
                    raise error
                yield result

    @contextmanager
    def _answered(self, advice: str = OF_TRAINING) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.lost(error, advice) from error


def _tried(work: Callable[[int], Result], i: int) -> tuple[Result | None, Exception | None]:
    try:
        return work(i), None
    except Exception as error:  # the other processes wait for an answer
        return None, error


def _portable(found: tuple[object, Exception | None]) -> tuple[object, Exception | None]:
    """What another process can read: of some libraries' errors, only the text."""
    try:
        pickle.loads(pickle.dumps(found[1]))
    except Exception:
        return None, PpdgmError(f"{type(found[1]).__name__}: {found[1]}")
    return found


class _Added(torch.autograd.Function):
    """y = Σ_r x_r, and ∂L/∂x_r = Σ_r ∂L_r/∂y, because the loss is the sum of all processes' losses."""

    @staticmethod
    def forward(context: Any, array: Array, ranks: Ranks) -> Array:
        context.ranks = ranks
        return ranks.total({"": array})[""]

    @staticmethod
    def backward(context: Any, gradient: Array) -> tuple[Array, None]:
        return context.ranks.total({"": gradient})[""], None


def find_ranks(
    count: int | Literal["all"] | None,
    find_device: Callable[[str], torch.device],
    name: str,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Ranks, torch.device]:
    """This process among those that torchrun started, and its device.

    Args:
        count: the number of processes that share a minibatch, or "all"; None: this one, whatever others do.
        find_device: the device of a name.
        name: "auto", "cpu", "cuda" or "cuda:1".
        environment: what torchrun says: RANK, WORLD_SIZE and LOCAL_RANK.

    Raises:
        PpdgmError: torchrun started another number of processes.
    """
    started = int(environment.get("WORLD_SIZE", "1"))
    if count is None or (started == 1 and count in (1, "all")):
        return Ranks(), find_device(name)
    if count not in (started, "all"):
        told = "is not used" if started == 1 else f"started {started}"
        start = f"torchrun --nproc-per-node {count}"
        remedy = f"Start them: {start} FILE.py, or {start} -m ppdgm fit …"
        remedy = remedy if started == 1 else f"Give devices={started}, or devices='all'."
        raise PpdgmError(
            f"devices: got {count}, which on the pyro backend is a number of processes, but torchrun {told}. {remedy}"
        )
    if ":" in name:
        kind = name.partition(":")[0]
        raise PpdgmError(f"device: got {name!r}, which is one device, with devices={count!r}. Give device={kind!r}.")
    device = find_device(name)
    if device.type == "cuda":
        local = int(environment.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise PpdgmError(
                f"devices: torchrun started more processes than the {torch.cuda.device_count()} GPUs here. Give "
                f"--nproc-per-node {torch.cuda.device_count()}."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=MINUTES))
        atexit.register(_leave)
    return Ranks(started, dist.get_rank(), started, device), device


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
