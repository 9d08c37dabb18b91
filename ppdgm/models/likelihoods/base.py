"""The base class of likelihoods, and how they refuse data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ppdgm.errors import DataError, ProgramError
from ppdgm.language.unseen import is_given
from ppdgm.language.vocabulary import Array, Batch, Dist, Random, Support, Vocabulary
from ppdgm.nets.base import lead
from ppdgm.program import Part

FEW = 10  #: with fewer rows, nothing is concluded from levels that do not occur


class Likelihood(Part):
    """A distribution over a row of the data, given the decoder's output."""

    role: ClassVar[str] = "likelihood"
    missing: ClassVar[bool] = False  #: whether entries of x may be NaN, which are missing: they have no term

    def __call__(self, P: Vocabulary, *head: Array, exposure: Array | None = None) -> Dist:
        """The distribution, given the net's output and, if it reads one, the exposure of each row, [B]."""
        if not self.reads_exposure:
            if is_given(exposure):
                raise ProgramError(f"{self!r} does not read an exposure. Leave it out.")
            return super().__call__(P, *head)
        if is_given(exposure):
            ones = (1,) * len(P.scope(self.role).shape)
            return super().__call__(P, *head, P.xp.reshape(exposure * P.full((), 1.0), (*exposure.shape, *ones)))
        if self.needs_exposure:
            raise ProgramError(
                "The program is conditional on 'exposure', which is not given. Give it for each row, or one for all: "
                "fit.sample(10, given={'exposure': 1.0}); on the command line, ppdgm sample --given exposure=1."
            )
        return super().__call__(P, *head)

    def encoded(self, P: Vocabulary, x: Array) -> Array:
        """x as encoders see it: numbers of size about 1, whatever the size of the numbers in the data."""
        return x

    def encoded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `encoded` of a row of this shape."""
        return shape

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        """A draw of each number, made of noise whose distribution does not depend on the head.

        So the same noise can be used again while the head becomes known, number by number, in autoregressive models.

        Args:
            P: scoped to the part.
            random: the noise.
            shape: of the draw.
            head: the net's output.

        Raises:
            ProgramError: no such way to draw is known.
        """
        raise ProgramError(
            f"{type(self).__name__} has no draw(self, P, random, shape, head), which an autoregressive model needs."
        )

    def drawn_together(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """The group of each number, [*shape], if numbers of a group depend on each other given the head; else None."""
        return None

    def log_mass(self, P: Vocabulary, low: Array, high: Array, head: Array) -> Array:
        """log P(low < x < high) of each number, [..., *event]; `Discretised` makes whole numbers of it.

        Args:
            P: scoped to the part.
            low, high: finite edges; ±1e10 stand for infinite ones.
            head: the net's output.

        Raises:
            ProgramError: no CDF is known.
        """
        raise ProgramError(f"{type(self).__name__} has no log_mass(self, P, low, high, head), which Discretised needs.")

    @property
    def reads_exposure(self) -> bool:
        """Whether it reads the field `exposure` [N]; then `distribution` gets it after the head, [B, 1, …]."""
        return False

    @property
    def needs_exposure(self) -> bool:
        """Whether it is refused without one."""
        return self.reads_exposure

    @property
    def takes_total(self) -> bool:
        """Whether log p is that of x given its total, Σ x_j, which is taken from x: it is no log p(x)."""
        return False

    @property
    def support(self) -> Support:
        """The range of each number of x, as in `P.distribution`: stated once, for draws and for data."""
        return "real"

    @property
    def discrete(self) -> bool:
        """Whether x are whole numbers: then log p(x) is a probability's, and is also shown in bits per dimension."""
        return self.support not in ("real", "positive", "unit_interval")

    @property
    def expected_data(self) -> str:
        """What the data must be, in words, and how they become so."""
        return described(self.support)

    def check_rows(self, data: Batch) -> None:
        """Refuse rows with an `x` outside the support, or with an `exposure` that is missing, wrong, or not read.

        Raises:
            DataError: there are such rows.
        """
        if self.reads_exposure:
            self.check_exposure(data)
        elif "exposure" in data:
            raise DataError(
                f"Data: got a field 'exposure', which {type(self).__name__} does not read. Leave it out; or, for "
                "counts whose means are proportional to it, use a likelihood with exposure=True, such as "
                "Poisson(exposure=True)."
            )
        self.check("x", data["x"])

    def check_exposure(self, data: Batch) -> None:
        """Refuse exposures that are missing, not one for each row, or not positive.

        Raises:
            DataError: so it is.
        """
        if "exposure" not in data:
            if self.needs_exposure and "x" in data:  # without x, these are what is given to draw it
                raise DataError(
                    f"{type(self).__name__}(exposure=True): the data have no field 'exposure'. Give one number for "
                    "each row beside x, such as its size factor; or leave exposure=True out."
                )
            return
        exposure = np.asarray(data["exposure"])
        if exposure.ndim != 1:
            raise DataError(
                f"Data 'exposure': got rows of shape {exposure.shape[1:]}, expected one number for each row."
            )
        refuse("exposure", exposure, ~(np.isfinite(exposure) & (exposure > 0)), "positive numbers")

    def check(self, name: str, x: np.ndarray) -> None:
        """Refuse data outside the likelihood's support.

        Raises:
            DataError: there are such data; the message has the index of the first bad number.
        """
        refuse(name, x, ~np.isfinite(x), "finite numbers")
        refuse(name, x, outside_support(self.support, x), self.expected_data)


class Levels(Likelihood):
    """A likelihood of whole numbers from 0 to levels − 1: `load_data(…, scale="levels")` gives 256 of them.

    Encoders see x / (levels − 1).

    Args:
        levels: how many values a number of x can take.
    """

    levels: Annotated[int, Field(ge=2)] = 256

    def encoded(self, P: Vocabulary, x: Array) -> Array:
        return x / (self.levels - 1)

    @property
    def support(self) -> Support:
        return 0, self.levels - 1

    @property
    def expected_data(self) -> str:
        because = f"because levels={self.levels} (scale='levels' gives 0 to 255 for images)"
        return f"{super().expected_data}, {because}"

    def check(self, name: str, x: np.ndarray) -> None:
        super().check(name, x)
        if len(x) >= FEW and x.max() < self.levels // 4:
            warnings.warn(
                f"Data {name!r} have whole numbers up to {x.max():g}, but levels={self.levels}. Use "
                f"levels={int(x.max()) + 1}; or, for images with all 256 values, load_data(…, scale='levels', "
                "binarise='none').",
                stacklevel=2,
            )


_OUTSIDE: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "real": (lambda x: np.zeros(x.shape, bool), "finite numbers"),
    "positive": (lambda x: x <= 0, "positive numbers"),
    "unit_interval": (lambda x: (x < 0) | (x > 1), "numbers in [0, 1]"),
    "boolean": (lambda x: (x != 0) & (x != 1), "0 or 1"),
    "nonnegative_integer": (lambda x: (x < 0) | (x != np.rint(x)), "whole numbers from 0"),
}


def outside_support(support: Support, x: np.ndarray) -> np.ndarray:
    """Whether each number is outside a support."""
    if isinstance(support, str):
        return _OUTSIDE[support][0](x)
    low, high = support
    return (x < low) | (x > high) | (x != np.rint(x))


def described(support: Support) -> str:
    """A support in words."""
    return _OUTSIDE[support][1] if isinstance(support, str) else f"whole numbers from {support[0]} to {support[1]}"


def independent(
    P: Vocabulary,
    head: Array,
    log_prob: Callable[[Array], Array],
    sample: Callable[[Random, tuple[int, ...]], Array],
    mean: Callable[[], Array],
    support: Support,
) -> Dist:
    """Independent numbers as one distribution over a row of the data.

    Args:
        P: scoped to the part; its `shape` is the shape of a row.
        head: any array [..., *event]; only its leading dimensions are used.
        log_prob: x -> log-probability of each number, [..., *event].
        sample: (random, shape) -> a draw of each number.
        mean: () -> the mean of each number.
        support: the support of each number.
    """
    event = P.shape
    return P.distribution(
        lambda random, batch: (sample(random, (*batch, *event)), None),
        lambda x: P.xp.sum(log_prob(x), axis=tuple(range(-len(event), 0))),
        event_shape=event,
        batch_shape=lead(head, event),
        support=support,
        mean=mean,
        pathwise=False,
    )


class BadData(DataError):
    """A field has data that a likelihood does not accept.

    Attributes:
        index: the index of the first bad number.
        bad: the number of rows with a bad number.
    """

    def __init__(self, name: str, value: np.generic, index: tuple[int, ...], expected: str, bad: int, size: int):
        super().__init__(
            f"Data {name!r}: got {value} at index {index}, expected {expected}. {bad} of {size} rows are affected."
        )
        self.name, self.value, self.index, self.expected, self.bad, self.size = name, value, index, expected, bad, size

    def __reduce__(self) -> tuple[type[BadData], tuple[object, ...]]:
        return BadData, (self.name, self.value, self.index, self.expected, self.bad, self.size)

    def moved(self, row: int, bad: int, size: int) -> BadData:
        """The same error for a larger data set: `row` is the first bad row there, and `bad` the number of bad rows."""
        return BadData(self.name, self.value, (row, *self.index[1:]), self.expected, bad, size)


def refuse(name: str, x: np.ndarray, bad: np.ndarray, expected: str) -> None:
    """Raise a DataError that names the first number that is `bad`, if there is one."""
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise BadData(name, x[index], index, expected, int(bad.reshape(len(x), -1).any(1).sum()), len(x))
