"""The Bernoulli likelihood, for binary data."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Random, Support, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood
from ppdgm.program import Context


class Bernoulli(Likelihood):
    """p(x|z) = Π σ(h)^x (1 − σ(h))^(1−x), for x in {0, 1}; h are the decoder's logits."""

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return P.dist.Bernoulli(logits=head[0]).to_event(len(P.shape))

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        return P.xp.where(random.uniform(shape) < P.activation("sigmoid", head), P.full((), 1.0), P.full((), 0.0))

    @property
    def support(self) -> Support:
        return "boolean"

    @property
    def expected_data(self) -> str:
        return f"{super().expected_data} (binarise the data first: ppdgm.data.binarise)"
