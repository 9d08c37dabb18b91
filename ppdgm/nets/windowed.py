"""Causal nets with a window: the output at a time sees a fixed number of rows before it."""

from __future__ import annotations

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Net, Shapes, apply_dense, dense
from ppdgm.nets.mlp import MLP
from ppdgm.nets.recurrent import with_condition
from ppdgm.nets.sequence import SequenceNet, shifted
from ppdgm.specs import PositiveInt


class Windowed(SequenceNet):
    """A net of the last d rows of a sequence [T] or [T, C]: the outputs at t from x_{t−d}, …, x_{t−1}.

    Bengio et al. 2003, "A neural probabilistic language model". Rows before the first one are 0. The condition stands
    beside the window: a vector (C,), or a map (T, C) with a row for each time. Parameters: those of the net, in `net`.

    Args:
        window: d, the number of rows that an output sees.
        net: the net of a window.
        position: whether each time has a bias of its own, `position`, which starts from the data.
    """

    window: PositiveInt = 8
    net: Net = MLP(hidden=(100,))

    @property
    def receptive_field(self) -> int:
        """The number of times before t that the output at t sees."""
        return self.window

    def sequence_params(self, inputs: int, condition: int, outputs: int) -> Shapes:
        if self.net.states((self.window * inputs + condition,), (outputs,)):
            raise SpecError(
                f"Windowed.net: got {self.net!r}, whose batch norm would mix the times of a sequence. Use norm='layer'."
            )
        found = self.net.params((self.window * inputs + condition,), (outputs,))
        return {f"net.{name}": value for name, value in found.items()}

    def sequence(self, P: Vocabulary, x: Array, condition: Array | None, outputs: int) -> Array:
        seen = with_condition(P, P.concat([shifted(P, x, self.window - 1 - i) for i in range(self.window)]), condition)
        return self.net.apply(P.scope("net"), seen, (seen.shape[-1],), (outputs,))


class WaveNet(SequenceNet):
    """Dilated causal convolutions over sequences [T] or [T, C], with gates: y_t = Σ_i W_i h_{t−di}, d = 1, 2, 4, ….

    van den Oord et al. 2016, arXiv:1609.03499. In each layer z = tanh(W_f ∗ h + V_f c) ⊙ σ(W_g ∗ h + V_g c); it adds a
    linear map of z to h (residual), and another to the sum from which the outputs come (skip). The input is one time
    late. The condition c is a vector (C,), or a map (T, C) with a row for each time. Parameters: `first`,
    `layers.<i>.filter` [kernel · channels, 2 · channels] with the latest time last, `.condition`, `.residual`,
    `.skip`, and `outputs.<0|1>`, each with `.weight` and `.bias`.

    Args:
        channels: the number of features.
        layers: the number of layers of a stack, with dilations 1, 2, 4, …, 2^(layers − 1).
        stacks: the number of stacks, one after the other.
        kernel: k, the number of times that a convolution sees.
        hidden: the number of features before the output, and of the sum.
        position: whether each time has a bias of its own, `position`, which starts from the data.
    """

    channels: PositiveInt = 32
    layers: PositiveInt = 6
    stacks: PositiveInt = 1
    kernel: PositiveInt = 2
    hidden: PositiveInt = 64

    @property
    def dilations(self) -> tuple[int, ...]:
        """d of each layer."""
        return tuple(2**i for i in range(self.layers)) * self.stacks

    @property
    def receptive_field(self) -> int:
        """1 + Σ (k − 1) d: the number of times before t that the output at t sees."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def sequence_params(self, inputs: int, condition: int, outputs: int) -> Shapes:
        shapes, last = dense("first", inputs, self.channels), len(self.dilations) - 1
        for i in range(last + 1):
            shapes |= dense(f"layers.{i}.filter", self.kernel * self.channels, 2 * self.channels, split=2)
            if condition:
                shapes |= dense(f"layers.{i}.condition", condition, 2 * self.channels, split=2)
            shapes |= dense(f"layers.{i}.skip", self.channels, self.hidden)
            if i < last:
                shapes |= dense(f"layers.{i}.residual", self.channels, self.channels)
        return shapes | dense("outputs.0", self.hidden, self.hidden) | dense("outputs.1", self.hidden, outputs)

    def sequence(self, P: Vocabulary, x: Array, condition: Array | None, outputs: int) -> Array:
        h, total, relu = apply_dense(P, "first", x), None, lambda h: P.activation("relu", h)
        for i, d in enumerate(self.dilations):
            seen = P.concat([shifted(P, h, d * (self.kernel - 1 - j)) for j in range(self.kernel)])
            a = apply_dense(P, f"layers.{i}.filter", seen)
            a = a if condition is None else a + apply_dense(P, f"layers.{i}.condition", condition)
            z = P.xp.tanh(a[..., : self.channels]) * P.activation("sigmoid", a[..., self.channels :])
            skip = apply_dense(P, f"layers.{i}.skip", z)
            total = skip if total is None else total + skip
            h = h if i == len(self.dilations) - 1 else h + apply_dense(P, f"layers.{i}.residual", z)
        return apply_dense(P, "outputs.1", relu(apply_dense(P, "outputs.0", relu(total))))
