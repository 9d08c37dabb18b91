"""Recurrent nets for sequences: a state carries what came before."""

from __future__ import annotations

from abc import abstractmethod

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Shapes, apply_dense, dense
from ppdgm.nets.sequence import SequenceNet
from ppdgm.specs import PositiveInt


class RecurrentNet(SequenceNet):
    """h_t = f(x_{t−1}, c_t, h_{t−1}), and outputs that are linear in h_t and the condition c_t.

    Args:
        width: the number of units of the state.
        position: whether each time has a bias of its own, `position`, which starts from the data.
    """

    width: PositiveInt = 128

    @property
    @abstractmethod
    def gates(self) -> int:
        """The number of linear maps of input and state."""

    @abstractmethod
    def first(self, zeros: Array) -> Array | tuple[Array, ...]:
        """The state before the first time, from zeros [..., width]."""

    @abstractmethod
    def step(self, P: Vocabulary, state: Array, seen: Array) -> Array:
        """The next state; `seen` has what the input adds to each gate, [..., gates, width]."""

    def sequence_params(self, inputs: int, condition: int, outputs: int) -> Shapes:
        shapes = dense("input", inputs + condition, self.gates * self.width, split=self.gates)
        shapes |= dense("state", self.width, self.gates * self.width, split=self.gates)
        return shapes | dense("outputs", self.width + condition, outputs)

    def sequence(self, P: Vocabulary, x: Array, condition: Array | None, outputs: int) -> Array:
        xp, x = P.xp, with_condition(P, x, condition)
        seen = self.by_gate(P, apply_dense(P, "input", x))
        zeros = P.full((*x.shape[:-2], self.width), 0.0)
        states = P.recur(lambda h, a: self.step(P, h, a), self.first(zeros), xp.moveaxis(seen, -3, 0))
        h = states[0] if isinstance(states, tuple) else states
        return apply_dense(P, "outputs", with_condition(P, xp.moveaxis(h, 0, -2), condition))

    def by_gate(self, P: Vocabulary, a: Array) -> Array:
        """[..., gates · width] -> [..., gates, width]."""
        return P.xp.reshape(a, (*a.shape[:-1], self.gates, self.width))


class GRU(RecurrentNet):
    """Gated recurrent unit for sequences [T] or [T, C]: h_t = (1 − u) ⊙ tanh(a + r ⊙ U h_{t−1}) + u ⊙ h_{t−1}.

    Cho et al. 2014, arXiv:1406.1078. Reset and update gates r, u = σ(W x_{t−1} + U h_{t−1} + b), and a = W x_{t−1} + b.
    Each gate has two biases, with W and with U. The condition stands beside x_{t−1} and, for the output, beside h_t: a
    vector (C,), or a map (T, C) with a row for each time. Use `clip_norm` in training. Parameters: `input`, `state`
    and `outputs`, each with `.weight` and `.bias`; gates in the order r, u, a.

    Args:
        width: the number of units of the state.
        position: whether each time has a bias of its own, `position`, which starts from the data.
    """

    @property
    def gates(self) -> int:
        return 3

    def first(self, zeros: Array) -> Array:
        return zeros

    def step(self, P: Vocabulary, state: Array, seen: Array) -> Array:
        own = self.by_gate(P, apply_dense(P, "state", state))
        reset = P.activation("sigmoid", seen[..., 0, :] + own[..., 0, :])
        update = P.activation("sigmoid", seen[..., 1, :] + own[..., 1, :])
        new = P.xp.tanh(seen[..., 2, :] + reset * own[..., 2, :])
        return new + update * (state - new)


class LSTM(RecurrentNet):
    """Long short-term memory for sequences [T] or [T, C]: c_t = f ⊙ c_{t−1} + i ⊙ tanh(g), h_t = o ⊙ tanh(c_t).

    Hochreiter & Schmidhuber 1997; Gers et al. 2000. Gates i, f, o = σ(·) and g are linear in x_{t−1} and h_{t−1}; 1 is
    added to the forget gate f before its σ, so that it starts open. The condition stands beside x_{t−1} and, for the
    output, beside h_t: a vector (C,), or a map (T, C) with a row for each time. Use `clip_norm` in training.
    Parameters: `input`, `state` and `outputs`, each with `.weight` and `.bias`; gates in the order i, f, o, g.

    Args:
        width: the number of units of the state.
        position: whether each time has a bias of its own, `position`, which starts from the data.
    """

    @property
    def gates(self) -> int:
        return 4

    def first(self, zeros: Array) -> tuple[Array, ...]:
        return zeros, zeros

    def step(self, P: Vocabulary, state: tuple[Array, Array], seen: Array) -> tuple[Array, Array]:
        h, cell = state
        gates = seen + self.by_gate(P, apply_dense(P, "state", h))
        sigmoid = lambda a: P.activation("sigmoid", a)
        kept = sigmoid(gates[..., 1, :] + 1.0) * cell
        cell = kept + sigmoid(gates[..., 0, :]) * P.xp.tanh(gates[..., 3, :])
        return sigmoid(gates[..., 2, :]) * P.xp.tanh(cell), cell


def with_condition(P: Vocabulary, x: Array, condition: Array | None) -> Array:
    """x [..., T, C] and a condition [..., T, c] or [..., 1, c], side by side; leading dimensions broadcast."""
    return x if condition is None else P.concat([x, condition])
