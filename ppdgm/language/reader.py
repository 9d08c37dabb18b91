"""What a run of a program needs of a backend's distributions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ppdgm.language import mistakes
from ppdgm.language.divergence import Library, closed_form
from ppdgm.language.shapes import broadcast_shapes
from ppdgm.language.states import Minibatch
from ppdgm.language.steps import Tree, check_carry, mapped, stacked
from ppdgm.language.supports import Supports
from ppdgm.language.unseen import Unseen
from ppdgm.language.vocabulary import Array, Batch, Dist, Namespace, Noise


@dataclass(frozen=True)
class Gradients:
    """How gradients pass through the draws of a guide, in a reading that will be differentiated.

    Attributes:
        relaxed: relaxations are drawn, if there are any; else the distributions that they stand for.
        scored: a list for the sites whose draws carry no gradient; None: they are refused.
        enumerate: a discrete site takes all its values, whether it asks for it or not.
        walked: draws are where Markov chains begin, which need densities over all real numbers.
        mixed: nets multiply in bfloat16.
        rematerialise: the layers of nets are computed again for the gradient, in place of being kept.
        loose: a list for the sites that are relaxed, or None.
        minibatch: of a training step; None outside of one.
    """

    relaxed: bool = True
    scored: list[str] | None = None
    enumerate: bool = False
    walked: bool = False
    mixed: bool = False
    rematerialise: bool = False
    loose: list[str] | None = None
    minibatch: Minibatch | None = None

    def note(self, name: str, dist: Dist, inside: bool, pathwise: bool) -> None:
        """Refuse, or note, a site of the guide whose draw carries no gradient, because it is not `pathwise`."""
        if self.walked:
            mistakes.check_walked(name, dist, inside)
        if pathwise:
            return
        if self.scored is None:
            raise mistakes.not_pathwise(name, dist)
        if not inside:
            raise mistakes.scored_outside(name, dist)
        self.scored.append(name)


class Reader(ABC):
    """The operations on native distributions that a direct reading needs; one object per run.

    Attributes:
        xp: array-API namespace.
        library: the backend's distributions, for closed-form KLs.
        supports: what is known of their supports.
        native: class of these distributions.
        arrays: types of the values that a site may be observed at.
        gradients: None: no gradients will be taken.
    """

    xp: ClassVar[Namespace]
    library: ClassVar[Library]
    supports: ClassVar[Supports]
    native: ClassVar[type]
    arrays: ClassVar[tuple[type, ...]]
    gradients: Gradients | None
    noises: int = 0  #: how often the program took noise of its own

    @abstractmethod
    def has_pathwise(self, d: Dist) -> bool:
        """Whether a draw is a differentiable function of the distribution's parameters."""

    @abstractmethod
    def draw(self, d: Dist, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """A fresh draw for each of [..., K, B], and its log-density."""

    @abstractmethod
    def observe(self, d: Dist, value: Array) -> Array:
        """log p of data."""

    @abstractmethod
    def as_draw(self, d: Dist, value: Array) -> Array:
        """A value in the type of a draw."""

    @abstractmethod
    def noise(self) -> Noise:
        """What `P.random` draws from: a key that is used once, or None for the library's generator."""

    def log_prob(self, d: Dist, value: Array) -> Array:
        return d.log_prob(value)

    def confine(self, d: Dist, value: Array, log_prob: Array) -> Array:
        """log p of a latent drawn elsewhere: −∞ outside its support."""
        return self.supports.confine(d, value, log_prob)

    def kl(self, q: Dist, p: Dist) -> Array | None:
        """Closed-form KL [..., B, D], or None if there is none."""
        return closed_form(q, p, self.library)

    def broadcast(self, x: Array, shape: tuple[int, ...]) -> Array:
        return self.xp.broadcast_to(x, shape)

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        return self.xp.reshape(x, shape)

    def hold(self, d: Dist, value: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """A given value, in the layout and type of a draw for each of [K, B], and its log-density.

        If it is outside the support, a draw takes its place, and the log-density is NaN.
        """
        xp, drawn = self.xp, self.draw(d, shape)[0]
        value = xp.astype(xp.broadcast_to(value, drawn.shape), drawn.dtype)
        inside = xp.all(xp.reshape(self.supports.check(d.support, value), (*shape, -1)), axis=-1)
        value = xp.where(xp.reshape(inside, (*shape, *(1,) * len(d.event_shape))), value, drawn)
        return value, xp.where(inside, self.log_prob(d, value), float("nan"))

    def fork(self) -> Noise:
        """The noise of a scan; None if all draws come from one generator."""
        return None

    def at(self, noise: Noise, t: Array) -> Reader:
        """A reader with the draws of one time of a scan."""
        return self

    def times(self, length: int) -> Array | None:
        """The numbers of times that `at` takes; None if it needs none."""
        return None

    def loop(
        self, step: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, at: Tree, length: int
    ) -> tuple[Tree, Tree]:
        """step(… step(step(carry, at₀), at₁) …): the last carry, and what the steps gave, [T, …]."""
        found = []
        for t in range(length):
            before = carry
            carry, given = step(carry, mapped(lambda a, t=t: a if isinstance(a, Unseen) else a[t], at))
            check_carry(before, carry, t == 0)
            found.append(given)
        return carry, stacked(found, self._together)

    def keep(self, d: Dist) -> object:
        """A distribution as a step of a loop can give it; None if it can't."""
        return d

    def over(self, function: Callable[..., Array | None], *kept: object) -> Array | None:
        """The function of each time's distributions, [T, …]; None if it is None."""
        found = [function(*each) for each in zip(*kept, strict=True)]
        return None if any(v is None for v in found) else self._together(found)

    def _together(self, each: list[Array]) -> Array | list[Array]:
        """Arrays of all times as one, [T, …]; the first may be smaller, because the first carry is."""
        if not isinstance(each[0], self.arrays):
            return each
        shape = broadcast_shapes(*(tuple(a.shape) for a in each))
        return self.xp.stack([self.broadcast(a, shape) for a in each], axis=0)

    def same(self, a: Array, b: Array) -> bool | None:
        """Whether two arrays have the same numbers; None if they are not known, or in training."""
        return None

    def stamps(self, batch: Batch) -> list[int]:
        """Numbers that change when a field of the batch is changed in place; none if fields can't be."""
        return []
