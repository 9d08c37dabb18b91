"""Classes as one-hot vectors."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np

from ppdgm.language.vocabulary import Array, Dist, Random, Support, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood, refuse
from ppdgm.nets.base import lead
from ppdgm.program import Context


class OneHot(Likelihood):
    """p(x|h) = Π softmax(h)_c over places: x has a one-hot vector of C numbers at each place, and h their logits.

    So nets see classes without an order: tokens of a text, letters of a sequence, codes of a grid. The numbers of a
    place are drawn together; use nets that do not order them: Transformer, WaveNet and other nets of sequences for
    places [T, C]; PixelSNAIL, or GatedPixelCNN(colours="together"), for [C, H, W].

    Args:
        classes: the axis of the C numbers: "last" for sequences, "first" for images.
    """

    classes: Literal["first", "last"] = "last"

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        shape, axis = P.shape, self._axis(P.shape)
        axes = tuple(range(-len(shape), 0))
        log_probs = head[0] - P.xp.expand_dims(P.logsumexp(head[0], axis), axis=axis)

        def log_prob(x: Array) -> Array:
            return P.xp.sum(x * log_probs, axis=axes)

        return P.distribution(
            lambda random, batch: (self.draw(P, random, (*batch, *shape), head[0]), None),
            log_prob,
            shape,
            lead(head[0], shape),
            support="boolean",
            mean=lambda: P.xp.exp(log_probs),
            pathwise=False,
        )

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        axis = self._axis(P.shape)
        scores = head + random.gumbel(shape)
        chosen = P.one_hot(P.xp.argmax(scores, axis=axis), shape[axis])
        return P.xp.moveaxis(chosen, -1, axis)

    def drawn_together(self, shape: tuple[int, ...]) -> np.ndarray:
        axis = self._axis(shape)
        places = np.delete(shape, axis)
        return np.broadcast_to(np.expand_dims(np.arange(prod(places)).reshape(places), axis), shape)

    @property
    def support(self) -> Support:
        return "boolean"

    @property
    def discrete(self) -> bool:
        return False  # bits per number would count the C numbers of a place, of which one decides

    @property
    def expected_data(self) -> str:
        return f"one-hot vectors: numbers of 0, and one 1 at each place along the {self.classes} axis"

    def check(self, name: str, x: np.ndarray) -> None:
        super().check(name, x)
        axis = self._axis(x.shape[1:])
        totals = np.expand_dims(x.sum(axis), axis)
        refuse(
            name,
            np.broadcast_to(totals, x.shape),
            np.broadcast_to(totals != 1, x.shape),
            f"a sum of 1 over the {self.classes} axis, as one-hot vectors have",
        )

    def _axis(self, shape: tuple[int, ...]) -> int:
        """The axis of the classes, counted from the end."""
        return -1 if self.classes == "last" else -len(shape)
