"""`P.scan` with a library's handlers: a Python loop, in which the sites of time t are `name_t`.

A mask is the library's own mask handler, so that the library's own objectives leave the same terms out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NoReturn, Protocol

from ppdgm.errors import ProgramError
from ppdgm.language import scan_mistakes
from ppdgm.language.scan import (
    Body,
    BodyStatements,
    by_row,
    check_arguments,
    check_body,
    check_site,
    held_still,
)
from ppdgm.language.steps import Tree, check_carry, in_place, leaves, mapped, stacked
from ppdgm.language.unseen import Unseen
from ppdgm.language.vocabulary import Array, Dist, Namespace, Noise, Vocabulary


class Primitives(Protocol):
    """What the loop needs of a library's handlers."""

    def sample(self, name: str, dist: Dist, obs: Array | None, infer: Mapping[str, object] | None) -> Array: ...
    def param(self, name: str, value: Array) -> Array: ...
    def deterministic(self, name: str, value: Array) -> Array: ...
    def noise(self) -> Noise: ...
    def sizes(self) -> dict[int, int]: ...
    def masked(self, mask: Array) -> AbstractContextManager[object]: ...
    def filled(self, dist: Dist, value: Array, mask: Array) -> Array: ...


class Timed(BodyStatements):
    """The statements of a body at one time.

    Args:
        handlers: the library's.
        t: the time.
        mask: [B], or None.
    """

    def __init__(self, handlers: Primitives, t: int, mask: Array | None):
        self.handlers, self.t, self.mask = handlers, t, mask

    def plate(self, name: str, data: Array) -> NoReturn:
        raise scan_mistakes.plate_in_scan(name)

    def sample(
        self, name: str, dist: Dist, obs: Array | None = None, infer: Mapping[str, object] | None = None
    ) -> Array:
        check_site(name, dist, obs is None, infer)
        name = f"{name}_{self.t}"
        if self.mask is None:
            return self.handlers.sample(name, dist, obs, infer)
        if obs is not None:
            obs = self.handlers.filled(dist, obs, self.mask)
        with self.handlers.masked(self.mask):
            return self.handlers.sample(name, dist, obs, infer)

    def penalty(self, name: str, value: Array) -> None:
        """Not part of the joint density."""

    def param(self, name: str, value: Array) -> Array:
        return self.handlers.param(name, value)

    def deterministic(self, name: str, value: Array) -> Array:
        return self.handlers.deterministic(f"{name}_{self.t}", value)

    def noise(self) -> Noise:
        return self.handlers.noise()

    def drops(self) -> bool:
        return False

    draws_terms = drops


def unrolled(
    handlers: Primitives, P: Vocabulary, body: Body, carry: Tree, xs: Tree, length: int | None, mask: Array | None
) -> tuple[Tree, Tree]:
    """The last carry, and the outputs of all times; see `Vocabulary.scan`.

    Raises:
        ProgramError: as in the direct interpreter; or there are several plates around that of the data.
    """
    sizes, xp = handlers.sizes(), P.xp
    scan_mistakes.check_inside(-1 in sizes)
    if len(sizes) > 2:
        raise ProgramError(
            f"P.scan: got {len(sizes)} plates around it, expected the data plate, and at most one for particles to "
            "the left of it."
        )
    b, k = sizes.pop(-1), next(iter(sizes.values()), 1)
    length = check_arguments(xs, length, mask, b)
    ready = mapped(lambda v: by_row(v, k, b, length), xs)
    at = lambda v, t: None if isinstance(v, Unseen) else v[:, :, t] if v.shape[0] > 1 else v[0, :, t]
    number = lambda v: P.constant(v) if isinstance(v, int | float) else v
    carry, outputs = mapped(number, carry), []
    for t in range(length):
        now = None if mask is None else mask[:, t]
        inner = P.told_to(Timed(handlers, t, now))
        after, output = check_body(body(inner, carry, mapped(lambda v, t=t: at(v, t), ready)), carry)
        after = mapped(number, after)
        if now is not None:
            after = mapped(lambda new, old, now=now: held_still(now, new, old, k, b, xp), after, carry)
        check_carry(carry, after, t == 0)
        carry = after
        outputs.append(mapped(number, output))
    together = lambda each: in_place(xp.stack(_wide(each, xp), axis=0), k, b, xp)
    return carry, stacked(outputs, together) if leaves(outputs) else None


def _wide(each: list[Array], xp: Namespace) -> list[Array]:
    shapes = {tuple(a.shape) for a in each}
    return list(xp.broadcast_arrays(*each)) if len(shapes) > 1 else each
