"""What a run of a program needs of a backend's distributions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ppdgm.language.divergence import Library, closed_form
from ppdgm.language.states import Minibatch
from ppdgm.language.supports import Supports
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
        loose: a list for the sites that are relaxed, or None.
        minibatch: of a training step; None outside of one.
    """

    relaxed: bool = True
    scored: list[str] | None = None
    enumerate: bool = False
    walked: bool = False
    mixed: bool = False
    loose: list[str] | None = None
    minibatch: Minibatch | None = None


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

    def stamps(self, batch: Batch) -> list[int]:
        """Numbers that change when a field of the batch is changed in place; none if fields can't be."""
        return []
