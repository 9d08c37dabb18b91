"""The diagonal normal posterior, and scales between bounds."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.posteriors.base import Posterior, halves
from ppdgm.program import Context
from ppdgm.specs import NonNegativeFloat, PositiveFloat


def bounded_scale(P: Vocabulary, raw: Array, low: float, high: float) -> Array:
    """σ = low + softplus(s) − softplus(s − c), c = high − low: rises with s from low to high.

    If σ is far from `high`, the last term is less than rounding, and σ = low + softplus(s) exactly, to the last bit.
    """
    raw = P.xp.clip(raw, max=high + 30.0)  # σ = high there already; above, it would be a difference of large numbers
    return low + P.softplus(raw) - P.softplus(raw - (high - low))


class ScaledPosterior(Posterior):
    """A posterior with scales between bounds.

    Args:
        min_scale: a floor under the scales, so that log q stays finite.
        max_scale: a ceiling over the scales, so that draws stay finite.
    """

    min_scale: NonNegativeFloat = 1e-4
    max_scale: PositiveFloat = 100.0

    @field_validator("max_scale")
    @classmethod
    def _in_order(cls, high: float, info: ValidationInfo) -> float:
        if high <= info.data.get("min_scale", 0.0):
            raise ValueError(f"a number greater than min_scale, {info.data['min_scale']}")
        return high

    def scale(self, P: Vocabulary, raw: Array) -> Array:
        """The scales, from the numbers s that the encoder gives."""
        return bounded_scale(P, raw, self.min_scale, self.max_scale)


class DiagonalNormal(ScaledPosterior):
    """q(z|x) = N(μ(x), diag σ(x)²), with σ = min_scale + softplus(s(x)). Kingma & Welling 2014, arXiv:1312.6114.

    Args:
        min_scale: a floor under σ, so that log q stays finite.
        max_scale: a ceiling over σ; near it, σ bends towards it.
    """

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *shape)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        loc, raw = halves(head[0], P.shape)
        return P.dist.Normal(loc, self.scale(P, raw)).to_event(len(P.shape))
