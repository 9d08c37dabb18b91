"""The Laplace likelihood, of real data with outliers."""

from __future__ import annotations

from typing import Any

from ppdgm.language import Array, Vocabulary
from ppdgm.models.likelihoods.scale import LocationScale


class Laplace(LocationScale):
    """p(x|z) = Π exp(−|x − μ| / σ) / 2σ, with μ the decoder's output: its mean and median."""

    def distribution(self, P: Vocabulary, *head: Array) -> Any:
        return P.dist.Laplace(*self.location_and_scale(P, head[0])).to_event(len(P.shape))
