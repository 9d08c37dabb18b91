"""The standard normal prior."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.priors.base import Prior


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return P.dist.Normal(P.full(P.shape, 0.0), P.full(P.shape, 1.0)).to_event(len(P.shape))
