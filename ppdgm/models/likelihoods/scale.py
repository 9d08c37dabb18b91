"""Likelihoods with a location from the decoder, and a scale from the decoder or a parameter."""

from __future__ import annotations

from math import expm1, log
from typing import Annotated, Literal

from pydantic import Field

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood
from ppdgm.program import Context, constant
from ppdgm.specs import PositiveFloat

#: A number (fixed), one for all, one for each dimension of x, or from the decoder.
Scale = Annotated[PositiveFloat | Literal["learned", "per_dimension", "network"], Field()]


class LocationScaleLikelihood(Likelihood):
    """A likelihood with a location, the decoder's output, and a scale.

    Args:
        scale: σ. A number (fixed), "learned" (one for all), "per_dimension" (one for each dimension of x), or
            "network" (from the decoder, for each row and dimension).
        min_scale: a floor under a σ that is learned: σ = min_scale + softplus(s), 1 at the start.
    """

    scale: Scale = "learned"
    min_scale: PositiveFloat = 1e-3

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        declare_scale(context, "raw_scale", shape, self.scale, self.min_scale)
        return (2, *shape) if self.scale == "network" else shape

    def location_and_scale(self, P: Vocabulary, head: Array) -> tuple[Array, Array]:
        """μ and σ, from the decoder's output."""
        network = self.scale == "network"
        loc, raw = (row(head, P.shape, i) for i in (0, 1)) if network else (head, None)
        return loc, read_scale(P, "raw_scale", self.scale, self.min_scale, raw)


def declare_scale(context: Context, name: str, shape: tuple[int, ...], scale: float | str, floor: float) -> None:
    """Declare the parameter of a scale that is learned: 1 at the start."""
    if scale in ("learned", "per_dimension"):
        raw = log(expm1(max(1.0 - floor, 1e-3)))  # softplus⁻¹
        context.param(name, () if scale == "learned" else shape, constant(raw))


def read_scale(P: Vocabulary, name: str, scale: float | str, floor: float, raw: Array | None) -> Array:
    """The fixed number, or floor + softplus(s), with s the declared parameter or the network's output."""
    if not isinstance(scale, str):
        return P.full(P.shape, scale)
    return floor + P.softplus(raw if scale == "network" else P.param(name))


def row(head: Array, shape: tuple[int, ...], index: int) -> Array:
    """One of a head's arrays: [..., rows, *shape] to [..., *shape]."""
    return head[(..., index, *(slice(None),) * len(shape))]
