"""Coupling flows: half of the vector stays, and determines the map of the other half. One pass in both directions."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.base import Flow
from ppdgm.models.flows.conditioner import conditioned, declare_conditioner
from ppdgm.nets import MLP, Activation
from ppdgm.program import Context, zeros
from ppdgm.specs import NonNegativeInt, PositiveFloat, PositiveInt, Shape


class Coupling(Flow):
    """Layers that keep one half of x and move the other, coordinate by coordinate; the halves swap between layers.

    A subclass gives `rows` and `_move`, the map of one coordinate.

    Args:
        depth: number of layers; from 2 on, each coordinate is moved.
        hidden: widths of the net of each layer.
        activation: the activation of these nets.
        context_size: in a posterior, how many numbers of the encoder's output these nets see for each row.
    """

    fast: ClassVar = "both"
    depth: PositiveInt = 4
    hidden: Shape = (200,)
    activation: Activation = "relu"
    context_size: NonNegativeInt = 64

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many numbers of the net's output the map of one coordinate needs."""

    @abstractmethod
    def _move(self, P: Vocabulary, numbers: Array, x: Array, inverse: bool) -> tuple[Array, Array]:
        """The map or its inverse at x [..., n], and its log-derivative; `numbers` [..., rows, n] start near 0."""

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        if width < 2:
            raise SpecError(
                f"{type(self).__name__}: got a latent of width {width}, expected at least 2, because one half is "
                "transformed given the other. For width 1, use IAF or MAF."
            )
        seen = self.context_size if conditional else 0
        for i in range(self.depth):
            moved = self._moved(i, width)
            kept = width - (moved.stop - moved.start)
            net = MLP(hidden=self.hidden, activation=self.activation)
            declare_conditioner(scope, f"nets.{i}", net, (kept + seen,), (self.rows, width - kept))
        return seen

    @staticmethod
    def _moved(i: int, width: int) -> slice:
        return slice(0, width // 2) if i % 2 else slice(width // 2, width)

    def _layer(self, P: Vocabulary, i: int, x: Array, context: Array | None, inverse: bool) -> tuple[Array, Array]:
        moved = self._moved(i, x.shape[-1])
        kept = x[..., moved.stop :] if i % 2 else x[..., : moved.start]
        y, log_slope = self._move(P, conditioned(P, f"nets.{i}", kept, context), x[..., moved], inverse)
        return P.concat([y, kept] if i % 2 else [kept, y]), P.xp.sum(log_slope, axis=-1)

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        return self._through(P, x, context, inverse=False)

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self._through(P, y, context, inverse=True)

    def _through(self, P: Vocabulary, x: Array, context: Array | None, inverse: bool) -> tuple[Array, Array]:
        total = 0.0
        for i in range(self.depth)[:: -1 if inverse else 1]:
            x, log_det = self._layer(P, i, x, context, inverse)
            total = total + log_det
        return x, total


class RealNVP(Coupling):
    """Affine coupling: x_b ← exp(s) x_b + t, with s and t functions of x_a and the context; x_a stays.

    Dinh et al. 2017, arXiv:1605.08803. s = max_log_scale tanh(r / max_log_scale). Both directions take one pass.

    Args:
        max_log_scale: a bound on |s|, so that neither direction overflows.
    """

    max_log_scale: PositiveFloat = 2.0

    @property
    def rows(self) -> int:
        return 2

    def _move(self, P: Vocabulary, numbers: Array, x: Array, inverse: bool) -> tuple[Array, Array]:
        shift, raw = numbers[..., 0, :], numbers[..., 1, :]
        log_scale = self.max_log_scale * P.xp.tanh(raw / self.max_log_scale)
        if inverse:
            return (x - shift) * P.xp.exp(-log_scale), -log_scale
        return P.xp.exp(log_scale) * x + shift, log_scale


class NICE(Coupling):
    """Additive coupling: x_b ← x_b + t, with t a function of x_a and the context; x_a stays. Volumes do not change.

    Dinh, Krueger & Bengio 2015, arXiv:1410.8516. Noise is first multiplied by exp(s), one number for each coordinate:
    log|det| = Σ s. Both directions take one pass.
    """

    @property
    def rows(self) -> int:
        return 1

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        scope.param("log_scale", (width,), zeros)
        return super().build(scope, width, conditional)

    def _move(self, P: Vocabulary, numbers: Array, x: Array, inverse: bool) -> tuple[Array, Array]:
        shift = numbers[..., 0, :]
        return x - shift if inverse else x + shift, 0.0 * x

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        log_scale = P.param("log_scale")
        y, none = super().forward(P, x * P.xp.exp(log_scale), context)
        return y, none + P.xp.sum(log_scale)

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        log_scale = P.param("log_scale")
        x, none = super().inverse(P, y, context)
        return x * P.xp.exp(-log_scale), none - P.xp.sum(log_scale)
