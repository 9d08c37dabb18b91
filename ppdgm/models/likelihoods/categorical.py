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
        logits = self._logits(P, head[0])
        log_total = P.logsumexp(logits, -1)

        def log_prob(x: Array) -> Array:
            of_x = xp.where(x[..., None] == levels, logits, 0.0)
            return xp.sum(of_x, axis=-1) - log_total

        def mean() -> Array:
            return xp.sum(xp.exp(logits - log_total[..., None]) * levels, axis=-1)

        return independent(
            P, log_total, log_prob, lambda random, shape: self.draw(P, random, shape, head[0]), mean, self.support
        )

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        logits = self._logits(P, head)
        return P.xp.astype(P.xp.argmax(logits + random.gumbel((*shape, self.levels)), axis=-1), logits.dtype)

    def _logits(self, P: Vocabulary, head: Array) -> Array:
        """[..., *event, levels]."""
        return P.xp.moveaxis(head, -1 - len(P.shape), -1)
