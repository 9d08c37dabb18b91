"""Planar flows."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.one_way import OneWay
from ppdgm.specs import PositiveInt

_FLAT = -20.0  # below it m(a) is −1 to rounding; det stays above e^−20
_TINY = 1e-12


class Planar(OneWay):
    """z ← z + û tanh(wᵀz + b), depth times, with u, w, b of each step from the encoder. One-way.

    Rezende & Mohamed 2015, arXiv:1505.05770. A step is invertible if wᵀû > −1. Therefore û = u + (m(a) − a) w/‖w‖² with
    a = wᵀu, which gives wᵀû = m(a). Here m is the ELU (a above 0, eᵃ − 1 below). The paper has −1 + softplus(a)
    instead, whose û is infinite at w = 0; with the ELU û = u if a ≥ 0, and û → u as w → 0.

    Args:
        depth: number of steps.
    """

    depth: PositiveInt = 10

    def size(self, width: int) -> int:
        return 2 * width + 1

    def steps(self, P: Vocabulary, x: Array, numbers: Array) -> tuple[Array, Array]:
        width, total = x.shape[-1], 0.0
        for i in range(self.depth):
            u, w = numbers[..., i, :width], numbers[..., i, width : 2 * width]
            x, log_det = planar_step(P, x, u, w, numbers[..., i, 2 * width :])
            total = total + log_det
        return x, total


def planar_step(P: Vocabulary, z: Array, u: Array, w: Array, b: Array) -> tuple[Array, Array]:
    """z + û tanh(wᵀz + b), and log |1 + tanh'(·) wᵀû|.

    Args:
        P: the vocabulary.
        z: [..., D].
        u, w: [..., D].
        b: [..., 1].
    """
    xp = P.xp
    a = xp.sum(w * u, axis=-1, keepdims=True)
    below, above = xp.clip(xp.where(a < 0, a, 0.0), min=_FLAT), xp.where(a < 0, 0.0, a)
    bent = xp.expm1(below) + above  # m(a); 1 + m(a) = exp(below) + above, precise also near 0
    u = u + (bent - a) * w / (xp.sum(w * w, axis=-1, keepdims=True) + _TINY)
    h = xp.tanh(xp.sum(w * z, axis=-1, keepdims=True) + b)
    det = h * h + (1.0 - h * h) * (xp.exp(below) + above)  # 1 + h' m(a), with h' = 1 − h²
    return z + u * h, xp.log(det)[..., 0]
