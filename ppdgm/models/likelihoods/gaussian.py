"""The Gaussian likelihood, of real data."""

from __future__ import annotations

from math import expm1, log
from typing import Annotated, Any, Literal

from pydantic import Field

from ppdgm.language import Array, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood
from ppdgm.models.posteriors import halves
from ppdgm.program import Context, constant
from ppdgm.spec import PositiveFloat


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
