"""Sylvester flows."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.one_way import OneWay
from ppdgm.nets.base import unflatten
from ppdgm.program import Context
from ppdgm.specs import PositiveInt

_MOST = 0.999  # bound on the diagonal entries of R and R̃: their product stays above −1
_TINY = 1e-12


class Sylvester(OneWay):
    """z ← z + Q R tanh(R̃ Qᵀz + b), depth times, with Q, R, R̃, b of each step from the encoder. One-way.

    van den Berg et al. 2018, arXiv:1803.05649. The M columns of Q are orthonormal, and R and R̃ are upper triangular
    [M, M], so that det = Π_m (1 + tanh'(·)_m r_m r̃_m); r_m r̃_m > −1 on their diagonals makes a step invertible.

    Args:
        depth: number of steps.
        basis: how Q is made. "orthogonal": M columns, made orthonormal as by Gram and Schmidt; "householder": M = D, a
            product of reflections.
        columns: M of an orthogonal basis; by default 16, or half of D if that is less.
        reflections: the number of reflections of a Householder basis.
    """

    depth: PositiveInt = 4
    basis: Literal["orthogonal", "householder"] = "orthogonal"
    columns: PositiveInt | None = None
    reflections: PositiveInt = 8

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        if self.columns is not None and self.columns > width:
            raise SpecError(
                f"Sylvester.columns: got {self.columns}, expected at most {width}, the width of the latent."
            )
        return super().build(scope, width, conditional)

    def size(self, width: int) -> int:
        return sum(self._sizes(width))

    def _columns(self, width: int) -> int:
        return width if self.basis == "householder" else self.columns or min(16, max(1, width // 2))

    def _sizes(self, width: int) -> tuple[int, int, int]:
        """How many numbers of a step are for Q; for R and R̃ without the diagonal of R̃; for that diagonal and b."""
        m = self._columns(width)
        return (self.reflections if self.basis == "householder" else m) * width, m * m, 2 * m

    def steps(self, P: Vocabulary, x: Array, numbers: Array) -> tuple[Array, Array]:
        width, total = x.shape[-1], 0.0
        m, (q, r, _) = self._columns(width), self._sizes(width)
        basis = self._basis(P, numbers[..., :q], width)
        square = unflatten(P, numbers[..., q : q + r], (m, m))
        rest = unflatten(P, numbers[..., q + r :], (2, m))
        for i in range(self.depth):
            x, log_det = self._step(P, x, basis[..., i, :, :], square[..., i, :, :], rest[..., i, :, :])
            total = total + log_det
        return x, total

    def _step(self, P: Vocabulary, z: Array, basis: Array, square: Array, rest: Array) -> tuple[Array, Array]:
        xp, m = P.xp, square.shape[-1]
        upper = square * P.constant(np.triu(np.ones((m, m)), 1))  # R, and below R̃ᵀ, without their diagonals
        lower = square * P.constant(np.tril(np.ones((m, m)), -1))
        r, r_tilde = (_MOST * xp.tanh(d) for d in (xp.sum(square * P.constant(np.eye(m)), axis=-1), rest[..., 0, :]))
        seen = self._seen(P, basis, z)
        h = xp.tanh(_times(P, seen, lower) + r_tilde * seen + rest[..., 1, :])
        moved = _times(P, h, xp.matrix_transpose(upper)) + r * h
        log_det = xp.sum(xp.log1p((1.0 - h * h) * r * r_tilde), axis=-1)
        return z + self._back(P, basis, moved), log_det

    def _basis(self, P: Vocabulary, raw: Array, width: int) -> Array:
        """Q [..., depth, D, M], or the vectors of its reflections, [..., depth, H, D]."""
        if self.basis == "householder":
            return unflatten(P, raw, (self.reflections, width))
        shape = (width, self._columns(width))
        return orthonormal(P, unflatten(P, raw, shape) + P.constant(np.eye(*shape)))

    def _seen(self, P: Vocabulary, basis: Array, z: Array) -> Array:
        """Qᵀz."""
        if self.basis == "orthogonal":
            return _times(P, z, basis)
        for i in range(self.reflections):
            z = reflect(P, basis[..., i, :], z)
        return z

    def _back(self, P: Vocabulary, basis: Array, y: Array) -> Array:
        """Qy."""
        if self.basis == "orthogonal":
            return _times(P, y, P.xp.matrix_transpose(basis))
        for i in reversed(range(self.reflections)):
            y = reflect(P, basis[..., i, :], y)
        return y


def _times(P: Vocabulary, x: Array, matrix: Array) -> Array:
    """x [..., N] · matrix [..., N, M]."""
    return P.xp.matmul(x[..., None, :], matrix)[..., 0, :]


def orthonormal(P: Vocabulary, a: Array) -> Array:
    """Q of A = QR, R with a positive diagonal: the columns of a [..., D, M], made orthonormal one after the other.

    LAPACK computes it. It is exact up to rounding, whatever the condition number. The paper's iteration
    Q ← Q (3I − QᵀQ)/2 takes 20 rounds if columns are far from parallel, and 10 times as long (40×16, B = 100, on a
    CPU).
    """
    q, r = P.xp.linalg.qr(a)
    sign = P.xp.where(P.xp.linalg.diagonal(r) < 0, -1.0, 1.0)  # LAPACK's own sign jumps if an entry of a passes 0
    return q * sign[..., None, :]


def reflect(P: Vocabulary, v: Array, y: Array) -> Array:
    """y − 2 v vᵀy / ‖v‖², or y itself if v is 0."""
    xp = P.xp
    square = xp.sum(v * v, axis=-1, keepdims=True)
    usable = square > _TINY
    factor = xp.where(usable, 2.0 / xp.where(usable, square, 1.0), 0.0)
    return y - factor * v * xp.sum(v * y, axis=-1, keepdims=True)
