"""Normal posteriors."""

from __future__ import annotations

from typing import Any

from ppdgm.language import Array, Vocabulary
from ppdgm.models.posteriors.base import Posterior, halves
from ppdgm.program import Context
from ppdgm.spec import NonNegativeFloat


class DiagonalNormal(Posterior):
    """q(z|x) = N(μ(x), diag σ(x)²), with σ = min_scale + softplus(s(x)). Kingma & Welling 2014, arXiv:1312.6114.

    Args:
        min_scale: a floor under σ, so that log q stays finite.
    """

    min_scale: NonNegativeFloat = 1e-4

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *shape)

    def distribution(self, P: Vocabulary, *head: Array) -> Any:
        loc, raw = halves(head[0], P.shape)
        return P.dist.Normal(loc, self.min_scale + P.softplus(raw)).to_event(len(P.shape))
