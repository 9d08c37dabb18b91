"""Rows that a training step changes at random before the program sees them, such as turned images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from ppdgm.errors import ProgramError, shown
from ppdgm.language.declarations import Declarations
from ppdgm.language.vocabulary import Array, Noise, Vocabulary

Augment = Callable[[Vocabulary, Array], Array]  # (P, x [B, *event]) -> x of the same shape


def augmented(words: type[Vocabulary], augment: Augment, fold: Callable[[int], Noise], x: Array) -> Array:
    """The rows x [B, *event], changed.

    Args:
        words: the backend's vocabulary.
        augment: a function of P, for `P.random` and `P.xp`, and x.
        fold: the noise of the n-th draw.
        x: rows of a minibatch.

    Raises:
        ProgramError: it returns something else than an array of x's shape and type, or makes a statement.
    """
    floating = words.xp.isdtype(x.dtype, "real floating")
    P = words(_Draws(fold), {"x": x} if floating else {}, Declarations())
    found = augment(P, x)
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if not isinstance(found, type(x)) and (shape is None or dtype is None):
        raise ProgramError(f"augment: got {shown(found)}, expected an array of the shape of x, {tuple(x.shape)}.")
    if tuple(found.shape) != tuple(x.shape):
        raise ProgramError(
            f"augment: got an array of shape {tuple(found.shape)}, expected that of x, {tuple(x.shape)}."
        )
    if found.dtype != x.dtype:
        raise ProgramError(
            f"augment: got numbers of type {found.dtype}, expected {x.dtype}, that of x. Convert them: "
            "P.xp.astype(…, x.dtype)."
        )
    return found


class _Draws:
    """The interpreter of an augmentation, which draws noise and has no statements."""

    looping = False
    recomputes = False

    def __init__(self, fold: Callable[[int], Noise]):
        self.fold, self.draws = fold, 0

    def noise(self) -> Noise:
        self.draws += 1
        return self.fold(self.draws - 1)

    def param(self, name: str, value: Array) -> Array:
        return value

    def drops(self) -> bool:
        return True

    def draws_terms(self) -> bool:
        return False

    def estimates(self, what: str) -> bool:
        return False

    def _refuse(self, *_: object) -> NoReturn:
        raise ProgramError(
            "augment: it changes data, so it has no P.sample, P.plate or other statement. Use P.random and P.xp."
        )

    plate = sample = penalty = deterministic = update = batch_mean = scan = _refuse
