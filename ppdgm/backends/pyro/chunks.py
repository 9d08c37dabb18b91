"""Particles in chunks with torch: each chunk is read without its graph, and again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ppdgm.backends.pyro.noise import get_rng, set_rng
from ppdgm.language.chunks import At, Read, flat, sizes, unflat
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
        states: of the generators before each chunk.
        places, led: of a trace's arrays; and of those that have an axis of particles.
    """

    read: Read
    params: Mapping[str, Array]
    moving: list[str]
    given: list[str]
    sizes: list[int]
    device: torch.device
    states: list[Rng] = field(default_factory=list)
    places: list[At] = field(default_factory=list)
    led: frozenset[At] = frozenset()

    def parts(self) -> Iterator[tuple[int, slice]]:
        """Each chunk's number and places among the particles."""
        end = 0
        for i, n in enumerate(self.sizes):
            yield i, slice(end, end + n)
            end += n

    def trace(self, part: slice, given: Sites) -> tuple[dict[At, Array], frozenset[At]]:
        """The arrays of one chunk."""
        n = part.stop - part.start
        return flat(self.read(self.params, None, n, given), n)

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
        joined: dict[At, Array] = {}
        for i, part in chunks.parts():
            chunks.states.append(get_rng(chunks.device))
            arrays, led = chunks.trace(part, {n: v[part] for n, v in given.items()})
            if not i:
                chunks.places, chunks.led = [*arrays], led
                k = sum(chunks.sizes)
                joined = {a: v.new_empty((k, *v.shape[1:])) if a in led else v.clone() for a, v in arrays.items()}
            for place in chunks.led:
                joined[place][part] = arrays[place]
        ctx.chunks = chunks
        ctx.save_for_backward(*given.values())
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(v for v in joined.values() if not v.is_floating_point()))
        return tuple(joined.values())

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
                set_rng(chunks.device, chunks.states[i])
                held = {n: v[part].detach().requires_grad_(n in of_given) for n, v in given.items()}
                arrays, _ = chunks.trace(part, held)
                # what all particles share was returned of the first chunk
                ends = [a for a in known if (a in chunks.led or not i) and arrays[a].requires_grad]
                if not ends:
                    continue
                found = torch.autograd.grad(
                    [arrays[a] for a in ends],
                    [*(chunks.params[n] for n in chunks.moving), *(held[n] for n in of_given)],
                    [known[a][part] if a in chunks.led else known[a] for a in ends],
                    allow_unused=True,
                )
                for j, g in enumerate(found[: len(total)]):
                    if g is not None:
                        total[j] = g if total[j] is None else total[j] + g
                for n, g in zip(of_given, found[len(total) :], strict=True):
                    if g is not None:
                        of_given[n][part] = g
        return None, *total, *(of_given.get(n) for n in given)


def by_chunks(function: Callable[..., Array], arrays: tuple[Array, ...], chunk: int) -> Array:
    """function(*arrays), [K, …], of arrays [K, …], a chunk at a time."""
    return torch.cat([function(*each) for each in zip(*(a.split(chunk) for a in arrays), strict=True)])
