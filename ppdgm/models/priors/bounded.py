"""Priors over latents that are positive, in the unit interval, or on the simplex."""

from __future__ import annotations

from typing import ClassVar

from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.posteriors import Family
from ppdgm.models.posteriors.bounded import check_simplex
from ppdgm.models.priors.base import Prior
from ppdgm.program import Context
from ppdgm.specs import PositiveFloat


class GammaPrior(Prior):
    """p(z) = Π_d Gamma(z_d; α, β), for latents z > 0.

    Args:
        concentration: α.
        rate: β.
    """

    family: ClassVar[Family] = "positive"
    concentration: PositiveFloat = 1.0
    rate: PositiveFloat = 1.0

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        found = P.dist.Gamma(P.full(P.shape, self.concentration), P.full(P.shape, self.rate))
        return found.to_event(len(P.shape))


class LogNormalPrior(Prior):
    """p(z): log z_d ~ N(m, s²), for latents z > 0.

    Args:
        loc: m.
        scale: s.
    """

    family: ClassVar[Family] = "positive"
    loc: float = 0.0
    scale: PositiveFloat = 1.0

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return P.dist.LogNormal(P.full(P.shape, self.loc), P.full(P.shape, self.scale)).to_event(len(P.shape))


class BetaPrior(Prior):
    """p(z) = Π_d Beta(z_d; a, b), for latents in (0, 1).

    Args:
        a: the concentration at 1.
        b: the concentration at 0; a = b = 1 is uniform.
    """

    family: ClassVar[Family] = "unit"
    a: PositiveFloat = 1.0
    b: PositiveFloat = 1.0

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return P.dist.Beta(P.full(P.shape, self.a), P.full(P.shape, self.b)).to_event(len(P.shape))


class DirichletPrior(Prior):
    """p(z) = Dirichlet(α, …, α): positive numbers that add up to 1, on the last axis of the latent.

    Args:
        concentration: α; 1 is uniform, less prefers few large numbers.
    """

    family: ClassVar[Family] = "simplex"
    concentration: PositiveFloat = 1.0

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_simplex(self, shape)
        return ()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        found = P.dist.Dirichlet(P.full(P.shape, self.concentration))
        return found.to_event(len(P.shape) - 1) if len(P.shape) > 1 else found
