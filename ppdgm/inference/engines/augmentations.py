"""Augmentations: random changes of the rows of a minibatch, in training only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from ppdgm.errors import ProgramError, TrainingError, shown
from ppdgm.language.augmenting import Augment
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.specs import NonNegativeFloat, PositiveInt, Spec

Probability = Annotated[float, Field(gt=0, le=1)]


class Augmentation(Spec):
    """A random change of data x in training; evaluations see the data as they are.

    A subclass defines `__call__(P, x)`, for x [B, *event]: `P.random` draws, `P.xp` computes. Each row is to have a
    change of its own.
    """

    @abstractmethod
    def __call__(self, P: Vocabulary, x: Array) -> Array:
        """x, changed, of the same shape and type."""


class Flip(Augmentation):
    """Mirrors rows along an axis, each with a probability.

    Args:
        axis: −1 from left to right, −2 upside down.
        probability: of each row.
    """

    axis: Literal[-1, -2] = -1
    probability: Probability = 0.5

    def __call__(self, P: Vocabulary, x: Array) -> Array:
        _check_axes(self, x, -self.axis)
        chosen = P.random.uniform((x.shape[0],)) < self.probability
        return P.xp.where(_of_rows(P, chosen, x), P.xp.flip(x, axis=self.axis), x)


class Shift(Augmentation):
    """Moves images [..., H, W] by whole pixels, up to a number in each direction: a crop of a padded image.

    Args:
        pixels: the largest move.
        fill: the value of pixels that come in.
    """

    pixels: PositiveInt = 2
    fill: float = 0.0

    def __call__(self, P: Vocabulary, x: Array) -> Array:
        _check_axes(self, x, 2)
        xp, number = P.xp, 2 * self.pixels + 1
        for axis in (-2, -1):
            draw = P.random.uniform((x.shape[0],))  # in (0, 1)
            shape = list(x.shape)
            shape[axis] = self.pixels
            edge = xp.full_like(x[..., :1, :1], self.fill)
            edge = xp.broadcast_to(edge, tuple(shape))
            padded, found = xp.concat([edge, x, edge], axis=axis), x
            for i in range(number):
                at = slice(i, i + x.shape[axis])
                moved = padded[..., at, :] if axis == -2 else padded[..., at]
                mine = (draw * number >= i) & (draw * number < i + 1)
                found = xp.where(_of_rows(P, mine, x), moved, found)
            x = found
        return x


class AddNoise(Augmentation):
    """x + scale ε, ε ~ N(0, I).

    Args:
        scale: of the noise, in units of x.
    """

    scale: NonNegativeFloat = 0.1

    def __call__(self, P: Vocabulary, x: Array) -> Array:
        return x + self.scale * P.random.normal(tuple(x.shape))


def one_after_another(steps: Sequence[Augment]) -> Augment | None:
    """One function, of which each takes what the one before gave; None if there are none."""
    return partial(_one_after_another, tuple(steps)) if steps else None


def _one_after_another(steps: Sequence[Augment], P: Vocabulary, x: Array) -> Array:
    for step in steps:
        x = step(P, x)
    return x


def as_augmentations(value: object) -> tuple[tuple[Augmentation, ...] | Literal["own"], Augment | None]:
    """What `fit` was given, as the recipe has it, and the function.

    Raises:
        TrainingError: something else was given.
    """
    if value is None:
        return (), None
    several = tuple(value) if isinstance(value, list | tuple) else (value,)
    if wrong := [v for v in several if not callable(v) or isinstance(v, type)]:
        raise TrainingError(
            f"augment: got {shown(wrong[0])}, expected an augmentation such as Flip(), a function of P and x, or a "
            "list of them."
        )
    named = tuple(v for v in several if isinstance(v, Augmentation))
    return (named if len(named) == len(several) else "own"), one_after_another(several)


def _of_rows(P: Vocabulary, value: Array, x: Array) -> Array:
    """[B] as [B, 1, …]."""
    return P.xp.reshape(value, (-1, *(1,) * (x.ndim - 1)))


def _check_axes(which: Augmentation, x: Array, needed: int) -> None:
    if x.ndim - 1 < needed:
        raise ProgramError(
            f"augment: {type(which).__name__} changes images [..., H, W], but rows of x have the shape "
            f"{tuple(x.shape[1:])}. Leave it out."
        )
