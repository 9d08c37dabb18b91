"""Autoregressive flows, and the affine ones: one pass in one direction, D passes in the other."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field

from ppdgm.language.shapes import broadcast_shapes
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.base import Flow
from ppdgm.models.flows.conditioner import conditioned, declare_conditioner
from ppdgm.nets import MADE, Activation
from ppdgm.program import Context
from ppdgm.specs import NonNegativeInt, PositiveFloat, PositiveInt, Shape


class Masked(Flow):
    """Layers g(x)_d = τ(x_d; c_d), τ rising; a MADE gives c_d from x_<d, and each layer reverses the ordering.

    A subclass gives `rows`, and τ with its inverse.

    Args:
        depth: number of layers.
        hidden: widths of the masked net of each layer.
        activation: the activation of these nets.
        context_size: in a posterior, how many numbers of the encoder's output these nets see for each row.
    """

    depth: PositiveInt = 4
    hidden: Shape = (200,)
    activation: Activation = "relu"
    context_size: NonNegativeInt = 64

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        seen = self.context_size if conditional else 0
        for i in range(self.depth):
            net = MADE(hidden=self.hidden, activation=self.activation, ordering="reversed" if i % 2 else "natural")
            declare_conditioner(scope, f"nets.{i}", net, (width + seen,), (self.rows, width))
        return seen

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many numbers of the net's output the map of one coordinate needs."""

    @abstractmethod
    def _move(self, P: Vocabulary, numbers: Array, x: Array) -> tuple[Array, Array]:
        """τ and log τ′ at x [..., D]; `numbers` [..., rows, D] start near 0."""

    @abstractmethod
    def _solve(self, P: Vocabulary, numbers: Array, y: Array) -> Array:
        """τ⁻¹ at y [..., D]."""

    def _one_pass(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        """g_depth(… g_1(x)) and its log|det|."""
        total = 0.0
        for i in range(self.depth):
            x, log_slope = self._move(P, conditioned(P, f"nets.{i}", x, context), x)
            total = total + P.xp.sum(log_slope, axis=-1)
        return x, total

    def _many_passes(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        """The inverse of `_one_pass` and its log|det|: each pass through a net gives one more coordinate."""
        leads = [tuple(a.shape[:-1]) for a in (y, context) if a is not None]
        y, total = P.xp.broadcast_to(y, (*broadcast_shapes(*leads), y.shape[-1])), 0.0
        for i in reversed(range(self.depth)):
            y = self._layer_inverse(P, i, y, context)
            log_slope = self._move(P, conditioned(P, f"nets.{i}", y, context), y)[1]
            total = total - P.xp.sum(log_slope, axis=-1)
        return y, total

    def _layer_inverse(self, P: Vocabulary, i: int, y: Array, context: Array | None) -> Array:
        width = y.shape[-1]
        ranks = P.constant(list(range(width))[:: -1 if i % 2 else 1])

        def place(state: tuple[Array, Array]) -> tuple[Array, Array]:
            x, known = state  # coordinates that are not known yet are 0, so that no net sees a wrong number
            found = self._solve(P, conditioned(P, f"nets.{i}", x, context), y)
            return P.xp.where(ranks == known, found, x), known + 1.0

        return P.repeat(width, place, (P.xp.zeros_like(y), P.full((), 0.0)))[0]


class Affine(Masked):
    """τ(x) = s x + t."""

    @property
    def rows(self) -> int:
        return 2

    @abstractmethod
    def _affine(self, P: Vocabulary, shift: Array, raw: Array) -> tuple[Array, Array]:
        """log s and t [..., D] from the net's outputs."""

    def _move(self, P: Vocabulary, numbers: Array, x: Array) -> tuple[Array, Array]:
        log_scale, shift = self._affine(P, numbers[..., 0, :], numbers[..., 1, :])
        return P.xp.exp(log_scale) * x + shift, log_scale

    def _solve(self, P: Vocabulary, numbers: Array, y: Array) -> Array:
        log_scale, shift = self._affine(P, numbers[..., 0, :], numbers[..., 1, :])
        return (y - shift) * P.xp.exp(-log_scale)


class IAF(Affine):
    """Inverse autoregressive flow: z ← σ z + (1 − σ) m in each layer, with m_d, σ_d functions of z_<d and the context.

    Kingma et al. 2016, arXiv:1606.04934. Use it in a posterior: a draw takes one pass, but the density of a given value
    takes D passes. σ = min_scale + (1 − min_scale) sigmoid(2 + s), which is 0.88 at the start.

    Args:
        min_scale: a floor under σ, so that the inverse stays finite.
    """

    fast: ClassVar = "forward"
    min_scale: Annotated[float, Field(gt=0, lt=1)] = 0.01

    def _affine(self, P: Vocabulary, shift: Array, raw: Array) -> tuple[Array, Array]:
        rest = (1.0 - self.min_scale) * P.activation("sigmoid", -2.0 - raw)  # 1 − σ
        return P.xp.log1p(-rest), rest * shift

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        return self._one_pass(P, x, context)

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self._many_passes(P, y, context)


class MAF(Affine):
    """Masked autoregressive flow: f⁻¹ has layers x ← exp(a) x + t, with a_d, t_d functions of x_<d and the context.

    Papamakarios et al. 2017, arXiv:1705.07057. Use it in a prior: the density of a given value takes one pass, but a
    draw takes D passes. a = max_log_scale tanh(s / max_log_scale).

    Args:
        max_log_scale: a bound on |a|, so that draws stay finite.
    """

    fast: ClassVar = "inverse"
    max_log_scale: PositiveFloat = 3.0

    def _affine(self, P: Vocabulary, shift: Array, raw: Array) -> tuple[Array, Array]:
        return self.max_log_scale * P.xp.tanh(raw / self.max_log_scale), shift

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        return self._many_passes(P, x, context)

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self._one_pass(P, y, context)
