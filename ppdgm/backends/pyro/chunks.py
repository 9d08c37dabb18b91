"""Particles in chunks with torch: each chunk is read without its graph, and again in the backward pass."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ppdgm.backends.pyro.noise import get_rng, set_rng
from ppdgm.language.chunks import At, Read, as_arrays, sizes, unflat
from ppdgm.language.questions import Given, Sites
from ppdgm.language.vocabulary import Array, Trace


def in_chunks(read: Read, params: Mapping[str, Array], given: Given, k: int, chunk: int, device: torch.device) -> Trace:
    """The trace of K particles, read `chunk` at a time; draws come from torch's generator, one chunk after the other.

    `torch.utils.checkpoint` would keep what each of its backward passes needs until the last one ends.

    Args:
        read: a trace of some particles.
        params: by name; gradients pass to them, and to given values.
        given: values of latents, [K, B, *event].
        k: K.
        chunk: the number of particles of a chunk; the last may be smaller.
        device: of the draws.
    """
    moving = {n: v for n, v in params.items() if v.requires_grad}
    values = dict(given or {})
    chunks = Chunks(read, params, [*moving], [*values], sizes(k, chunk), device)
    found = _Chunked.apply(chunks, *moving.values(), *values.values())
    return unflat(dict(zip(chunks.places, found, strict=True)))


@dataclass
class Chunks:
    """The readings of one trace.

    Attributes:
        read: a trace of some particles.
        params: by name.
        moving, given: names of parameters that have a gradient, and of given values.
        sizes: the number of particles of each chunk.
        device: of the draws.
        states: of each generator, before each chunk, [number of chunks, bytes].
        places, led: of a trace's arrays; and of those that have an axis of particles.
        joined: the trace's arrays.
    """

    read: Read
    params: Mapping[str, Array]
    moving: list[str]
    given: list[str]
    sizes: list[int]
    device: torch.device
    states: list[Array] = field(default_factory=list)
    places: list[At] = field(default_factory=list)
    led: frozenset[At] = frozenset()
    joined: dict[At, Array] = field(default_factory=dict)

    def parts(self) -> Iterator[tuple[int, slice]]:
        """Each chunk's number and places among the particles.

        A run and its vocabulary refer to each other, so that Python would free a chunk's results when it gets to it.
        """
        end = 0
        for i, n in enumerate(self.sizes):
            yield i, slice(end, end + n)
            end += n
            gc.collect(1)

    def keep(self, i: int) -> None:
        """Keep the generators' states before chunk i.

        In memory that is allocated once: small pieces in the holes that freed results leave would make the next chunk's
        results need new memory.
        """
        now = [s for s in get_rng(self.device) if s is not None]
        if not i:
            self.states = [torch.empty(len(self.sizes), len(s), dtype=s.dtype) for s in now]
        for kept, state in zip(self.states, now, strict=True):
            kept[i] = state

    def read_part(self, i: int, part: slice, given: Sites) -> None:
        """Write the arrays of chunk i into those of all particles."""
        self.keep(i)
        n = part.stop - part.start
        arrays, led = as_arrays(self.read(self.params, None, n, given), n)
        if not i:
            self.places, self.led, k = [*arrays], led, sum(self.sizes)
            self.joined = {a: v.new_empty((k, *v.shape[1:])) if a in led else v.clone() for a, v in arrays.items()}
        for place in self.led:
            self.joined[place][part] = arrays[place]

    def slopes_of(self, i: int, part: slice, given: Sites, slopes: Mapping[At, Array]) -> Sequence[Array | None]:
        """What chunk i adds to the gradient by each parameter, and the gradient by its given values.

        Args:
            i, part: the chunk.
            given: its values, some of which have gradients.
            slopes: the gradient by each array of the trace, of all particles.
        """
        self.go_back(i)
        n = part.stop - part.start
        arrays, _ = as_arrays(self.read(self.params, None, n, given), n)
        own = self.led if i else arrays.keys()  # what all particles share was returned of the first chunk
        ends = [a for a in slopes if a in own and arrays[a].requires_grad]
        at = [*(self.params[n] for n in self.moving), *(v for v in given.values() if v.requires_grad)]
        if not ends:
            return [None] * len(at)
        known = [slopes[a][part] if a in self.led else slopes[a] for a in ends]
        found: Sequence[Array | None] = torch.autograd.grad([arrays[a] for a in ends], at, known, allow_unused=True)
        return found

    def go_back(self, i: int) -> None:
        """Draw as before chunk i."""
        cpu, *gpu = self.states
        set_rng(self.device, (cpu[i].clone(), gpu[0][i].clone() if gpu else None))  # torch reads where storage begins

    @contextmanager
    def again(self) -> Iterator[None]:
        """The generators' states now are restored afterwards."""
        now = get_rng(self.device)
        try:
            yield
        finally:
            set_rng(self.device, now)


class _Chunked(torch.autograd.Function):
    """All chunks: (chunks, *parameters, *given values) -> a trace's arrays."""

    @staticmethod
    def forward(ctx: Any, chunks: Chunks, *at: Array) -> tuple[Array, ...]:
        given = dict(zip(chunks.given, at[len(chunks.moving) :], strict=True))
        for i, part in chunks.parts():
            chunks.read_part(i, part, {n: v[part] for n, v in given.items()})
        found = tuple(chunks.joined.pop(a) for a in chunks.places)
        ctx.chunks = chunks
        ctx.save_for_backward(*given.values())
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(v for v in found if not v.is_floating_point()))
        return found

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch has no types for it
    def backward(ctx: Any, *slopes: Array | None) -> tuple[Array | None, ...]:
        chunks: Chunks = ctx.chunks
        given = dict(zip(chunks.given, ctx.saved_tensors, strict=True))
        known = {a: g for a, g in zip(chunks.places, slopes, strict=True) if g is not None}
        total: list[Array | None] = [None] * len(chunks.moving)
        wanted = ctx.needs_input_grad[1 + len(total) :]
        of_given = {n: torch.zeros_like(v) for (n, v), want in zip(given.items(), wanted, strict=True) if want}
        with chunks.again(), torch.enable_grad():
            for i, part in chunks.parts():
                held = {n: v[part].detach().requires_grad_(n in of_given) for n, v in given.items()}
                found = chunks.slopes_of(i, part, held, known)
                total = [g if t is None else t if g is None else t + g for t, g in zip(total, found, strict=False)]
                for n, g in zip(of_given, found[len(total) :], strict=True):
                    if g is not None:
                        of_given[n][part] = g
        return None, *total, *(of_given.get(n) for n in given)


def by_chunks(function: Callable[..., Array], arrays: tuple[Array, ...], chunk: int) -> Array:
    """function(*arrays), [K, …], of arrays [K, …], a chunk at a time."""
    return torch.cat([function(*each) for each in zip(*(a.split(chunk) for a in arrays), strict=True)])
