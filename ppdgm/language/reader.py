"""What a run of a program needs of a backend's distributions, and what is known of observed sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from ppdgm.language.vocabulary import Array, Batch


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
    """

    relaxed: bool = True
    scored: list[str] | None = None
    enumerate: bool = False
    walked: bool = False
    mixed: bool = False
    loose: list[str] | None = None


class Seen(NamedTuple):
    """An observed site of a reading.

    Attributes:
        name: its own.
        dist: its distribution.
        value: its observed value.
        mask: of the handlers around it, like the distribution's batch; None for none.
        rows: truth over the distribution's batch -> whether it holds for each row, [B].
    """

    name: str
    dist: Any
    value: Array
    mask: Array | None
    rows: Callable[[Array], Array]


@dataclass(frozen=True)
class Observed:
    """The facts of an observed site before any row is checked.

    Attributes:
        name: its own.
        field: of the data, if the site is observed at the field as it is, or in another shape; None: at a value that is
            computed from fields.
        shape: of a row there.
        support: of its numbers, native; None if every number is in it, or if it isn't known.
        bounds: arrays in the support, which can depend on data, parameters and draws.
        told: distribution and support, as text for users.
        masked: whether some rows may not count.
    """

    name: str
    field: str | None
    shape: tuple[int, ...]
    support: Any
    bounds: tuple[Any, ...]
    told: str
    masked: bool


class Reader(Protocol):
    """The operations on native distributions that a direct reading needs; one object per run."""

    gradients: Gradients | None  #: None: no gradients will be taken
    native: ClassVar[type]  #: of the backend's distributions
    arrays: ClassVar[tuple[type, ...]]  #: types of the values that a site may be observed at

    def has_pathwise(self, dist: Any) -> bool:
        """Whether a draw is a differentiable function of the distribution's parameters."""
        ...

    def draw(self, dist: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """A fresh draw for each of [..., K, B], and its log-density."""
        ...

    def log_prob(self, dist: Any, value: Array) -> Array: ...
    def observe(self, dist: Any, value: Array) -> Array:
        """log p of data."""
        ...

    def confine(self, dist: Any, value: Array, log_prob: Array) -> Array:
        """log p of a latent drawn elsewhere: −∞ outside its support."""
        ...

    def kl(self, q: Any, p: Any) -> Array | None:
        """Closed-form KL [..., B, D], or None if there is none."""
        ...

    def as_draw(self, dist: Any, value: Array) -> Array:
        """A value in the type of a draw."""
        ...

    def broadcast(self, x: Array, shape: tuple[int, ...]) -> Array: ...
    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array: ...
    def hold(self, dist: Any, value: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """A given value, in the layout and type of a draw for each of [K, B], and its log-density.

        If it is outside the support, a draw takes its place, and the log-density is NaN.
        """
        ...

    def stamps(self, batch: Batch) -> list[int]:
        """Numbers that change when a field of the batch is changed in place; none if fields can't be."""
        ...
