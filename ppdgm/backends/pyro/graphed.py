"""A compiled step as a CUDA graph: one launch for all its kernels, from memory that stays where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from ppdgm.backends.pyro.step import CompiledStep, Params, Row
from ppdgm.errors import TrainingError, out_of_memory
from ppdgm.language.vocabulary import Array

WARM = 3  #: steps before the capture, in which torch compiles, and its libraries begin: a graph can't contain that


class GraphedStep(CompiledStep):
    """The compiled step, captured once and then replayed.

    A graph reads and writes the memory that it was captured with. Parameters and averages are changed in place; what
    differs between steps (rows, weights, rates, hyperparameters) is copied to one place before each replay. The
    generator of the GPU goes on in a graph as outside of it, because torch gives each replay its own offset.
    """

    def __init__(self, device: torch.device, *how: Any):
        super().__init__(*how)
        self.device, self._stream = device, torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = 0
        self._given: Params | None = None  # the data of the last step
        self._data: Params = {}  # the same, where the graph reads them
        self._copied = False
        self._own: list[Array] = []  # where the graph reads what differs between steps
        self._metrics = torch.empty(0)

    def __call__(self, data: Params, index: Array, weight: Array, row: Row, rate: Array) -> Array:
        """The metrics are overwritten by the next step."""
        with torch.no_grad():
            self._keep(data)
            now, form = tree_flatten((index, weight, row, rate))
            self._own = self._own or [v.clone() for v in now]
            torch._foreach_copy_(self._own, now)
            where = self._data, *tree_unflatten(self._own, form)
            if self._warm < WARM:
                with self._aside():
                    metrics = self.take(*where)
                self._warm, self.works = self._warm + 1, True
            else:
                if self._graph is None:
                    self._graph = self._captured(*where)
                self._graph.replay()
                metrics = self._metrics
        self.taken += 1
        return metrics

    def _keep(self, data: Params) -> None:
        """Have the data in the graph's memory: the given arrays themselves; of a stream, which gives others, copies."""
        if self._given is not None and all(v is self._given[n] for n, v in data.items()):
            return
        if self._given is None:
            self._data = data
        elif not self._copied:  # what the caller gave is never overwritten
            torch.cuda.synchronize(self.device)  # the graph may still run
            self._data, self._copied, self._graph = {n: v.clone() for n, v in data.items()}, True, None
        else:
            torch._foreach_copy_([*self._data.values()], [data[n] for n in self._data])
        self._given = data

    def _captured(self, *where: Any) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        try:
            # a thread that reads rows may allocate meanwhile; a graph knows the generator of the current device only
            with (
                torch.cuda.device(self.device),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._metrics = self.take(*where)
        except RuntimeError as error:
            if out_of_memory(error) is not None:
                raise
            raise TrainingError(
                f"compile: this step can't be a CUDA graph ({str(error).splitlines()[0]}). It may copy an array of "
                "NumPy's to the GPU, or wait for a number. Train with compile=True."
            ) from error
        return graph

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """On the stream of the capture, in the order of the calls."""
        here = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            yield
        here.wait_stream(self._stream)
