"""Linear flows: a matrix, and a scale and shift of each coordinate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Init, Vocabulary
from ppdgm.models.flows.base import Flow
from ppdgm.program import Context, zeros
from ppdgm.specs import NonNegativeInt

_LEAST = 1e-3  # the least standard deviation that a norm starts from: a constant column has none


class InvertibleLinear(Flow):
    """f⁻¹(x) = W x, which mixes all coordinates, between couplings; log|det ∂f⁻¹/∂x| = log|det W|.

    Kingma & Dhariwal 2018, arXiv:1807.03039. W starts as a random rotation. Both directions take one pass: f solves
    W x = z. It has no context.

    Args:
        form: "plu": W = P L (U + diag s), with P and the signs of s fixed; log|det W| = Σ log|s|, and W stays
            invertible. "full": every number of W is free, and log|det W| takes D³ operations.
        seed: the seed of the rotation.
    """

    form: Literal["plu", "full"] = "plu"
    seed: NonNegativeInt = 0

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        declare_matrix(scope, width, self.form, self.seed)
        return 0

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        weight, log_det = matrix(P, self.form)
        rows = P.xp.reshape(x, (-1, x.shape[-1]))
        solved = P.xp.linalg.solve(weight, P.xp.matrix_transpose(rows))
        return P.xp.reshape(P.xp.matrix_transpose(solved), x.shape), -log_det + 0.0 * x[..., 0]

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        weight, log_det = matrix(P, self.form)
        return P.linear(y, P.xp.matrix_transpose(weight), P.full((y.shape[-1],), 0.0)), log_det + 0.0 * y[..., 0]


class ActNorm(Flow):
    """f⁻¹(x) = exp(s) (x + b): a scale and a shift of each coordinate.

    Kingma & Dhariwal 2018, arXiv:1807.03039. At the start, its outputs f⁻¹(x) have mean 0 and standard deviation 1 over
    the training data, wherever it stands in a flow model. It has no context.
    """

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        scope.param("shift", (width,), zeros)
        scope.param("log_scale", (width,), zeros)
        return 0

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        log_scale = P.param("log_scale")
        return x * P.xp.exp(-log_scale) - P.param("shift"), -P.xp.sum(log_scale) + 0.0 * x[..., 0]

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        log_scale = P.param("log_scale")
        return P.xp.exp(log_scale) * (y + P.param("shift")), P.xp.sum(log_scale) + 0.0 * y[..., 0]

    def settle(self, P: NumpyVocabulary, y: Array, context: Array | None) -> Array:
        settle_norm(P, np.reshape(y, (-1, y.shape[-1])))
        return self.inverse(P, y, context)[0]


def settle_norm(P: NumpyVocabulary, rows: np.ndarray) -> None:
    """Set `shift` and `log_scale` in scope so that exp(s) (x + b) has mean 0 and standard deviation 1 over rows."""
    P.set(shift=-rows.mean(0), log_scale=-np.log(np.maximum(rows.std(0), _LEAST)))


def declare_matrix(scope: Context, width: int, form: str, seed: int) -> None:
    """Declare an invertible matrix W [width, width] that starts as a random rotation; `matrix` reads it."""
    rotation = _rotation(width, seed)
    if form == "full":
        scope.param("weight", (width, width), _fixed(rotation))
        return
    permutation, lower, upper = _lu(rotation)
    s = np.diag(upper)
    scope.state("permutation", (width, width), _fixed(permutation))
    scope.state("sign", (width,), _fixed(np.sign(s)))
    scope.param("lower", (width, width), _fixed(np.tril(lower, -1)))
    scope.param("upper", (width, width), _fixed(np.triu(upper, 1)))
    scope.param("log_scale", (width,), _fixed(np.log(np.abs(s))))


def matrix(P: Vocabulary, form: str) -> tuple[Array, Array]:
    """W [D, D] and log|det W|."""
    if form == "full":
        weight = P.param("weight")
        return weight, P.xp.linalg.slogdet(weight)[1]
    log_scale = P.param("log_scale")
    ones = np.ones((log_scale.shape[0], log_scale.shape[0]))
    lower = P.param("lower") * P.constant(np.tril(ones, -1)) + P.constant(np.diag(ones[0]))
    upper = P.param("upper") * P.constant(np.triu(ones, 1))
    upper = upper + P.constant(np.diag(ones[0])) * (P.param("sign") * P.xp.exp(log_scale))
    return P.param("permutation") @ lower @ upper, P.xp.sum(log_scale)


def _rotation(width: int, seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng([seed, width]).normal(size=(width, width)))
    return q * np.sign(np.diag(r))


def _lu(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A = P L U, with the largest pivot of each column."""
    from scipy.linalg import lu  # not before it is needed: SciPy's import takes long

    permutation, lower, upper = lu(a)
    return permutation, lower, upper


def _fixed(value: np.ndarray) -> Init:
    def init(
        rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        return value

    return init
