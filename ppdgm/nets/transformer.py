"""The causal transformer."""

from __future__ import annotations

from math import log

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Activation, Shapes, apply_dense, dense
from ppdgm.nets.norms import layer_norm, norm
from ppdgm.nets.sequence import SequenceNet
from ppdgm.specs import PositiveInt


class Transformer(SequenceNet):
    """Causal self-attention over sequences [T] or [T, C]: each time looks at all times before it.

    h ← h + attention(norm(h)), h ← h + W₂ a(W₁ norm(h)), `layers` times; softmax(q kᵀ / √d + mask) v in each head.
    Vaswani et al. 2017, arXiv:1706.03762; norms first, as in Radford et al. 2019. Times are told apart by sines and
    cosines that are added to the input. The condition is a vector (C,), or a map (T, C), added to the input too.
    Parameters: `first`, `condition`, `layers.<i>.<inputs|mixed|wide|narrow>`, `output`, each with `.weight` and
    `.bias`; and `layers.<i>.<before|between>` and `last`, each with `.scale` and `.shift`.

    Args:
        width: the number of features of a time; a multiple of `heads`, and even.
        layers: the number of layers.
        heads: the number of heads of each attention.
        hidden: the width between W₁ and W₂, as a multiple of `width`.
        activation: a.
    """

    width: PositiveInt = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    hidden: PositiveInt = 4
    activation: Activation = "gelu"

    def sequence_params(self, inputs: int, condition: int, outputs: int) -> Shapes:
        if self.width % self.heads or self.width % 2:
            raise SpecError(f"Transformer.width: got {self.width}, expected an even multiple of heads, {self.heads}.")
        width, wide = self.width, self.hidden * self.width
        shapes = dense("first", inputs, width) | (dense("condition", condition, width) if condition else {})
        for i in range(self.layers):
            own = f"layers.{i}"
            shapes |= norm(f"{own}.before", width) | dense(f"{own}.inputs", width, 3 * width, split=3)
            shapes |= dense(f"{own}.mixed", width, width) | norm(f"{own}.between", width)
            shapes |= dense(f"{own}.wide", width, wide) | dense(f"{own}.narrow", wide, width)
        return shapes | norm("last", width) | dense("output", width, outputs)

    def sequence(self, P: Vocabulary, x: Array, condition: Array | None, outputs: int) -> Array:
        times = x.shape[-2]
        h = apply_dense(P, "first", x) + P.constant(waves(times, self.width))
        if condition is not None:
            h = h + apply_dense(P, "condition", condition)
        hidden = P.constant(np.triu(np.full((times, times), -1e9), 1))  # of later times: x is one time late already
        for i in range(self.layers):
            own = f"layers.{i}"
            h = h + apply_dense(P, f"{own}.mixed", self._attention(P, own, layer_norm(P, f"{own}.before", h), hidden))
            wide = P.activation(self.activation, apply_dense(P, f"{own}.wide", layer_norm(P, f"{own}.between", h)))
            h = h + apply_dense(P, f"{own}.narrow", wide)
        return apply_dense(P, "output", layer_norm(P, "last", h))

    def _attention(self, P: Vocabulary, own: str, h: Array, hidden: Array) -> Array:
        """The heads side by side, [..., T, width]."""
        xp, each = P.xp, self.width // self.heads
        split = apply_dense(P, f"{own}.inputs", h)
        split = xp.reshape(split, (*h.shape[:-1], 3, self.heads, each))
        query, key, value = (xp.moveaxis(split[..., i, :, :], -2, -3) for i in range(3))  # [..., heads, T, each]
        scores = query @ xp.matrix_transpose(key) / each**0.5 + hidden
        weights = xp.exp(scores - P.logsumexp(scores, -1)[..., None])
        return xp.reshape(xp.moveaxis(weights @ value, -3, -2), h.shape)


def waves(times: int, width: int) -> np.ndarray:
    """sin and cos of t / 10000^(2i / width), [T, width]. Vaswani et al. 2017, section 3.5."""
    angle = np.arange(times)[:, None] * np.exp(-log(1e4) * np.arange(0, width, 2) / width)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
