"""The categorical likelihood, for whole numbers. It ignores their order."""

from __future__ import annotations

import numpy as np

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods.base import Levels, independent
from ppdgm.program import Context


class Categorical(Levels):
    """p(x|z) = Π softmax(h)_x, for x in {0, …, levels − 1}; h are the decoder's logits, `levels` for each dimension."""

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.levels, *shape)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, levels = P.xp, P.constant(np.arange(self.levels))
        logits = xp.moveaxis(head[0], -1 - len(P.shape), -1)  # [..., *event, levels]
        log_total = P.logsumexp(logits, -1)

        def log_prob(x: Array) -> Array:
            of_x = xp.where(x[..., None] == levels, logits, 0.0)
            return xp.sum(of_x, axis=-1) - log_total

        def sample(random: Random, shape: tuple[int, ...]) -> Array:
            drawn = xp.argmax(logits + random.gumbel((*shape, self.levels)), axis=-1)
            return xp.astype(drawn, logits.dtype)

        def mean() -> Array:
            return xp.sum(xp.exp(logits - log_total[..., None]) * levels, axis=-1)

        return independent(P, log_total, log_prob, sample, mean, self.support)
