"""Likelihoods: distributions over a datum, given the decoder's output."""

from __future__ import annotations

from math import expm1, log
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ppdgm.errors import DataError
from ppdgm.language import Array, Vocabulary
from ppdgm.models.posteriors import halves
from ppdgm.program import Context, Part, constant
from ppdgm.spec import PositiveFloat


class Likelihood(Part):
    """A distribution over the datum, given the decoder's output."""

    role: ClassVar[str] = "likelihood"

    def check(self, name: str, x: np.ndarray) -> None:
        """Refuse data outside the likelihood's support.

        Raises:
            DataError: with the index of the first bad datum.
        """
        refuse(name, x, ~np.isfinite(x), "finite numbers")


class BadData(DataError):
    """Some data of a field that a likelihood can't take.

    Attributes:
        index: of the first bad number.
        bad: how many data have one.
    """

    def __init__(self, name: str, value: Any, index: tuple[int, ...], expected: str, bad: int, size: int):
        super().__init__(
            f"Data {name!r}: got {value} at index {index}, expected {expected}. {bad} of {size} data are affected."
        )
        self.name, self.value, self.index, self.expected, self.bad = name, value, index, expected, bad

    def moved(self, row: int, bad: int, size: int) -> BadData:
        """The same, of a larger set: the first bad datum's row there, and how many are bad."""
        return BadData(self.name, self.value, (row, *self.index[1:]), self.expected, bad, size)


def refuse(name: str, x: np.ndarray, bad: np.ndarray, expected: str) -> None:
    """Raise a DataError that names the first datum where `bad`."""
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise BadData(name, x[index], index, expected, int(bad.reshape(len(x), -1).any(1).sum()), len(x))


class Bernoulli(Likelihood):
    """p(x|z) = Π σ(h)^x (1 − σ(h))^(1−x), for x in {0, 1}; h are the decoder's logits."""

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Any:
        return P.dist.Bernoulli(logits=head[0]).to_event(len(P.shape))

    def check(self, name: str, x: np.ndarray) -> None:
        super().check(name, x)
        refuse(name, x, (x != 0) & (x != 1), "0 or 1 (binarise the data first: ppdgm.data.binarise)")


class Gaussian(Likelihood):
    """p(x|z) = N(μ, diag σ²), with μ the decoder's output.

    Args:
        scale: σ. A number (fixed), "learned" (one for all), "per_dimension" (one for each dimension of x), or
            "network" (from the decoder, for each datum and dimension).
        min_scale: a floor under a σ that is learned: σ = min_scale + softplus(s), 1 at the start.
    """

    scale: Annotated[PositiveFloat | Literal["learned", "per_dimension", "network"], Field()] = "learned"
    min_scale: PositiveFloat = 1e-3

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.scale in ("learned", "per_dimension"):
            raw = log(expm1(max(1.0 - self.min_scale, 1e-3)))  # softplus⁻¹
            context.param("raw_scale", () if self.scale == "learned" else shape, constant(raw))
        return (2, *shape) if self.scale == "network" else shape

    def distribution(self, P: Vocabulary, *head: Array) -> Any:
        loc, scale = head[0], self.scale
        if scale == "network":
            loc, raw = halves(loc, P.shape)
            scale = self.min_scale + P.softplus(raw)
        elif isinstance(scale, str):
            scale = self.min_scale + P.softplus(P.param("raw_scale"))
        else:
            scale = P.full(P.shape, scale)
        return P.dist.Normal(loc, scale).to_event(len(P.shape))
