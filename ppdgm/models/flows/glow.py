"""Glow: a flow of images."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.shapes import broadcast_shapes
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.base import Flow
from ppdgm.models.flows.linear import declare_matrix, matrix, settle_norm
from ppdgm.nets.base import apply_dense, dense, glorot
from ppdgm.nets.reversible import squeeze, unsqueeze
from ppdgm.program import Context, zeros
from ppdgm.specs import NonNegativeInt, PositiveFloat, PositiveInt, Shape


class Glow(Flow):
    """Image flow: levels of squeeze, `depth` steps of (norm, 1×1 convolution, affine coupling), and split.

    Kingma & Dhariwal 2018, arXiv:1807.03039. A squeeze makes four channels of each 2×2 pixels. After each level but the
    last, half of the channels leave as noise: N(μ(h), σ(h)²) given the others h. The norm starts with outputs of mean
    0 and standard deviation 1 over the training data, the convolution as a rotation, the coupling as the identity. Both
    directions take one pass. In float32, the first pixels of f⁻¹(f(z)) are right to some 1e-4 after 30 steps.

    Args:
        image: (H, W) or (C, H, W), the shape of what the flow is over; H and W are multiples of 2^levels.
        levels: the number of levels.
        depth: the number of steps of each level.
        hidden: the number of channels inside the coupling nets: convolutions of 3×3, 1×1 and 3×3.
        max_log_scale: a bound on the log-scales of couplings and splits.
        context_size: how many numbers of a context the coupling nets see.
        seed: of the rotations.
    """

    image: Shape
    levels: PositiveInt = 2
    depth: PositiveInt = 8
    hidden: PositiveInt = 64
    max_log_scale: PositiveFloat = 2.0
    context_size: NonNegativeInt = 64
    seed: NonNegativeInt = 0

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        if len(self.image) not in (2, 3) or prod(self.image) != width:
            raise SpecError(
                f"Glow.image: got {self.image} for vectors of width {width}; expected (H, W) or (C, H, W) with so many "
                "numbers."
            )
        if any(n % 2**self.levels for n in self.image[-2:]):
            raise SpecError(
                f"Glow: got images of {self.image[-2]} × {self.image[-1]} pixels with levels={self.levels}; expected "
                f"multiples of {2**self.levels}. Use fewer levels, or pad the images."
            )
        seen = self.context_size if conditional else 0
        for level in range(self.levels):
            channels = self._shape(level)[0]
            for step in range(self.depth):
                inner = scope.scope(f"levels.{level}.{step}")
                inner.param("norm.shift", (channels,), zeros)
                inner.param("norm.log_scale", (channels,), zeros)
                declare_matrix(inner.scope("mix"), channels, "plu", self.seed + level * self.depth + step)
                half = channels // 2
                _declare_conv(inner, "net.0", half, self.hidden, 3)
                _declare_conv(inner, "net.1", self.hidden, self.hidden, 1)
                _declare_conv(inner, "net.2", self.hidden, 2 * half, 3, still=True)
                if seen:
                    for name, (shape, init) in dense("context", seen, self.hidden).items():
                        inner.param(name, shape, init)
            if level < self.levels - 1:
                _declare_conv(scope, f"levels.{level}.split", channels // 2, channels, 3, still=True)
        return seen

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        rows, seen, leading = self._rows(P, x, context)
        pieces, total, h = self._pieces(rows), 0.0, None
        for level in reversed(range(self.levels)):
            out = P.xp.reshape(pieces[level], (-1, *self._left(level)))
            if h is not None:
                loc, log_scale = self._split(P, level, h)
                out, total = out * P.xp.exp(log_scale) + loc, total + _sum(P, log_scale)
                out = P.xp.concat([h, out], axis=-3)
            for step in reversed(range(self.depth)):
                out, log_det = self._step(P.scope(f"levels.{level}.{step}"), out, seen, inverse=False)
                total = total + log_det
            h = unsqueeze(P, out)
        assert h is not None
        return P.xp.reshape(h, (*leading, x.shape[-1])), P.xp.reshape(total, leading)

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self._inverse(P, y, context)

    def settle(self, P: NumpyVocabulary, y: Array, context: Array | None) -> Array:
        return self._inverse(P, y, context, lambda step, h: settle_norm(P.scope(step), h))[0]

    def _inverse(
        self, P: Vocabulary, y: Array, context: Array | None, before: Callable[[str, Array], None] | None = None
    ) -> tuple[Array, Array]:
        """f⁻¹(y) and its log|det|; `before(norm, rows)` is called before each norm, with its rows [N, C]."""
        rows, seen, leading = self._rows(P, y, context)
        h, total, pieces = P.xp.reshape(rows, (-1, *self._channels, *self.image[-2:])), 0.0, []
        for level in range(self.levels):
            h = squeeze(P, h)
            for step in range(self.depth):
                name = f"levels.{level}.{step}"
                if before is not None:
                    before(f"{name}.norm", P.xp.reshape(P.xp.moveaxis(h, -3, -1), (-1, h.shape[-3])))
                h, log_det = self._step(P.scope(name), h, seen, inverse=True)
                total = total + log_det
            if level < self.levels - 1:
                half = h.shape[-3] // 2
                h, out = h[..., :half, :, :], h[..., half:, :, :]
                loc, log_scale = self._split(P, level, h)
                out, total = (out - loc) * P.xp.exp(-log_scale), total - _sum(P, log_scale)
            else:
                out = h
            pieces.append(P.xp.reshape(out, (-1, prod(out.shape[-3:]))))
        z = P.xp.concat(pieces, axis=-1)
        return P.xp.reshape(z, (*leading, y.shape[-1])), P.xp.reshape(total, leading)

    def _step(self, P: Vocabulary, h: Array, context: Array | None, inverse: bool) -> tuple[Array, Array]:
        """Norm, 1×1 convolution and coupling of h [N, C, H, W], from data to noise, or back; log|det| [N]."""
        xp, (channels, height, width) = P.xp, h.shape[-3:]
        log_norm, shift = P.param("norm.log_scale"), P.param("norm.shift")[:, None, None]
        scale = xp.exp(log_norm)[:, None, None]
        weight, log_mix = matrix(P.scope("mix"), "plu")
        fixed = height * width * (xp.sum(log_norm) + log_mix)
        if inverse:
            h = _mix(P, weight, (h + shift) * scale)
        a, b = h[..., : channels // 2, :, :], h[..., channels // 2 :, :, :]
        moved, log_scale = self._coupling(P, a, context)
        if inverse:
            return xp.concat([a, b * xp.exp(log_scale) + moved], axis=-3), fixed + _sum(P, log_scale)
        h = xp.concat([a, (b - moved) * xp.exp(-log_scale)], axis=-3)
        return _mix(P, xp.linalg.inv(weight), h) / scale - shift, -fixed - _sum(P, log_scale)

    def _coupling(self, P: Vocabulary, a: Array, context: Array | None) -> tuple[Array, Array]:
        """The shift and log-scale of the other half of the channels."""
        h = _conv(P, "net.0", a, 1)
        if context is not None:
            h = h + apply_dense(P, "context", context)[..., None, None]
        h = P.activation("relu", _conv(P, "net.1", P.activation("relu", h), 0))
        return self._bounded(P, _conv(P, "net.2", h, 1))

    def _split(self, P: Vocabulary, level: int, h: Array) -> tuple[Array, Array]:
        """The mean and log-scale of the channels that leave at a level."""
        return self._bounded(P, _conv(P, f"levels.{level}.split", h, 1))

    def _bounded(self, P: Vocabulary, out: Array) -> tuple[Array, Array]:
        half = out.shape[-3] // 2
        raw = out[..., half:, :, :]
        return out[..., :half, :, :], self.max_log_scale * P.xp.tanh(raw / self.max_log_scale)

    def _rows(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array | None, tuple[int, ...]]:
        """x [N, D] and the context [N, C], with their leading dimensions broadcast and joined; these dimensions."""
        lead = tuple(x.shape[:-1])
        if context is None:
            return P.xp.reshape(x, (-1, x.shape[-1])), None, lead
        lead = broadcast_shapes(lead, tuple(context.shape[:-1]))
        wide = lambda a: P.xp.reshape(P.xp.broadcast_to(a, (*lead, a.shape[-1])), (-1, a.shape[-1]))
        return wide(x), wide(context), lead

    @property
    def _channels(self) -> tuple[int]:
        return (self.image[0] if len(self.image) == 3 else 1,)

    def _shape(self, level: int) -> tuple[int, int, int]:
        """(C, H, W) of the steps of a level."""
        height, width = self.image[-2:]
        return self._channels[0] * 2 ** (level + 2), height // 2 ** (level + 1), width // 2 ** (level + 1)

    def _left(self, level: int) -> tuple[int, int, int]:
        """(C, H, W) of what leaves as noise at a level."""
        channels, height, width = self._shape(level)
        return channels // (1 if level == self.levels - 1 else 2), height, width

    def _pieces(self, z: Array) -> list[Array]:
        """The noise of each level."""
        ends = np.cumsum([0, *(prod(self._left(level)) for level in range(self.levels))]).tolist()
        return [z[..., ends[i] : ends[i + 1]] for i in range(self.levels)]


def _declare_conv(scope: Context, name: str, inputs: int, outputs: int, kernel: int, still: bool = False) -> None:
    init = zeros if still else glorot(inputs * kernel**2, outputs * kernel**2)
    scope.param(f"{name}.weight", (outputs, inputs, kernel, kernel), init)
    scope.param(f"{name}.bias", (outputs,), zeros)


def _conv(P: Vocabulary, name: str, x: Array, padding: int) -> Array:
    return P.conv2d(x, P.param(f"{name}.weight"), P.param(f"{name}.bias"), 1, padding)


def _mix(P: Vocabulary, weight: Array, h: Array) -> Array:
    """The 1×1 convolution of h [N, C, H, W]."""
    return P.xp.reshape(weight @ P.xp.reshape(h, (*h.shape[:-2], -1)), h.shape)


def _sum(P: Vocabulary, h: Array) -> Array:
    return P.xp.sum(h, axis=(-3, -2, -1))
