"""PixelSNAIL: causal convolutions and attention to all earlier pixels."""

from __future__ import annotations

from math import prod

import numpy as np

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Dropout, Shapes
from ppdgm.nets.causal import CausalNet
from ppdgm.nets.convolutional import Image
from ppdgm.nets.gated_residual import CORNER, POINT, block, block_params, first_corner, first_params, with_ones
from ppdgm.nets.pixels import conv, convolved, image_of, pixel_order
from ppdgm.specs import PositiveInt


class PixelSNAIL(CausalNet):
    """Layers of gated residual blocks and then attention: each pixel looks at all earlier pixels of the image.

    Chen et al. 2018, arXiv:1712.09763. Keys and values of a pixel come from its features, its own value and its
    position; the query from features and position. The colours of a pixel do not see each other: use a likelihood that
    draws them together, as CoupledDiscretisedLogistics does. Parameters: `first.<row|left>`, `layers.<l>.<i>` and
    `layers.<l>.<content|content.out|query|query.out|mixed>`, `output`, each with `.weight` and `.bias`.

    Args:
        channels: the number of features.
        layers: the number of attentions.
        blocks: the number of residual blocks before each.
        key: the width of keys and queries.
        value: the width of values.
        dropout: the probability of dropout, in training only.
    """

    channels: PositiveInt = 64
    layers: PositiveInt = 4
    blocks: PositiveInt = 2
    key: PositiveInt = 16
    value: PositiveInt = 64
    dropout: Dropout = 0.0

    def causal_params(self, event: tuple[int, ...], condition: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        image, width = image_of(self, event), self.channels
        shapes = first_params("first", image.channels, width)
        for i in range(self.layers):
            for j in range(self.blocks):
                shapes |= block_params(self, f"layers.{i}.{j}", width, CORNER, 0, image, condition)
            content, asked = image.channels + width + 2, width + 2
            for name, inputs, size in (("content", content, self.key + self.value), ("query", asked, self.key)):
                shapes |= block_params(self, f"layers.{i}.{name}", inputs, POINT, 0, image, ())
                shapes |= conv(f"layers.{i}.{name}.out", inputs, size)
            shapes |= block_params(self, f"layers.{i}.mixed", width, POINT, self.value, image, ())
        return shapes | conv("output", width, prod(outputs) // (image.height * image.width))

    @property
    def last_bias(self) -> str:
        return "output.bias"

    def order(self, event: tuple[int, ...]) -> np.ndarray:
        return pixel_order(image_of(self, event), event)

    def causal(
        self, P: Vocabulary, x: Array, condition: Array | None, event: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Array:
        xp, image = P.xp, image_of(self, event)
        x = xp.reshape(x, (*x.shape[: x.ndim - len(event)], *image))
        h = first_corner(P, "first", with_ones(P, x))
        position, earlier = P.constant(_position(image)), P.constant(np.tri(image.height * image.width, k=-1))
        run = lambda name, h, kernel, beside=None, c=None: block(P, name, h, kernel, self.dropout, beside, c)
        for i in range(self.layers):
            own = f"layers.{i}"
            for j in range(self.blocks):
                h = run(f"{own}.{j}", h, CORNER, c=condition)
            place = xp.broadcast_to(position, (*h.shape[:-3], *position.shape))
            seen = xp.broadcast_to(x, (*h.shape[:-3], *image))  # a condition may have axes that x has not
            content, query = xp.concat([seen, h, place], axis=-3), xp.concat([h, place], axis=-3)
            content = convolved(P, f"{own}.content.out", run(f"{own}.content", content, POINT))
            query = convolved(P, f"{own}.query.out", run(f"{own}.query", query, POINT))
            key, value = content[..., : self.key, :, :], content[..., self.key :, :, :]
            h = run(f"{own}.mixed", h, POINT, beside=attention(P, query, key, value, earlier))
        h = convolved(P, "output", P.activation("elu", h))
        return xp.reshape(h, (*h.shape[:-3], *outputs))


def attention(P: Vocabulary, query: Array, key: Array, value: Array, earlier: Array) -> Array:
    """Σ_j softmax_j(q_i · k_j / √K) v_j over pixels j before i, [..., V, H, W]; 0 at the first pixel.

    Args:
        P: vocabulary.
        query, key: [..., K, H, W].
        value: [..., V, H, W].
        earlier: [H W, H W], 1 where j is before i.
    """
    xp, size = P.xp, query.shape[-3:]
    flat = lambda a: xp.reshape(a, (*a.shape[:-2], size[1] * size[2]))
    scores = xp.matrix_transpose(flat(query)) @ flat(key) / size[0] ** 0.5
    scores = xp.where(earlier > 0, scores, -1e9)  # of the first pixel all are equal, and its weights are then 0
    weights = xp.exp(scores - P.logsumexp(scores, -1)[..., None]) * earlier
    mixed = flat(value) @ xp.matrix_transpose(weights)
    return xp.reshape(mixed, (*mixed.shape[:-1], *size[1:]))


def _position(image: Image) -> np.ndarray:
    """The row and the column of each pixel, from −½ to ½, [2, H, W]."""
    along = lambda n: (np.arange(n) + 0.5) / n - 0.5
    return np.stack(np.meshgrid(along(image.height), along(image.width), indexing="ij"))
