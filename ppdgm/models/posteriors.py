"""Posteriors: distributions over a latent, given the encoder's output."""

from __future__ import annotations

from typing import Any, ClassVar

from ppdgm.language import Array, Vocabulary
from ppdgm.program import Context, Part
from ppdgm.spec import NonNegativeFloat


class Posterior(Part):
    """A distribution over the latent variable, given the encoder's output."""

    role: ClassVar[str] = "posterior"


def halves(head: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A head [..., 2, *shape] as its two parts, each [..., *shape]."""
    rest = (slice(None),) * len(shape)
    return head[(..., 0, *rest)], head[(..., 1, *rest)]


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
