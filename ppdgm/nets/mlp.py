"""Fully connected nets: plain, gated and residual."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import ClassVar, Literal

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Activation, Depth, Dropout, Net, Shapes, apply_dense, dense, flatten, unflatten
from ppdgm.nets.norms import norm, running, vector_norm
from ppdgm.specs import PositiveInt, Shape


class FullyConnected(Net):
    """The fields that fully connected nets share.

    Args:
        norm: "layer" normalises each hidden layer before its activation, over the layer. "batch" does so over the rows
            of the minibatch in training, and with running means elsewhere: `norms.<i>.mean`, `.variance`.
        dropout: the probability with which a number of a hidden layer is set to 0, in training only.
    """

    usual: ClassVar[bool] = True  #: named first in messages

    norm: Literal["layer", "batch"] | None = None
    dropout: Dropout = 0.0

    def states(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        return running(self.params(inputs, outputs)) if self.norm == "batch" else {}

    def _finish(self, P: Vocabulary, i: int, h: Array, activation: str) -> Array:
        """The norm of a hidden layer, and its activation."""
        return P.activation(activation, vector_norm(P, self.norm, f"norms.{i}", h))


class MLP(FullyConnected):
    """Multilayer perceptron: h ← drop(a(norm(W h + b))) for each hidden layer, then a linear layer.

    Parameters: `layers.<i>.weight` [in, out], `layers.<i>.bias`, and with a norm `norms.<i>.scale`, `.shift`.

    Args:
        hidden: widths of the hidden layers; () for a linear map.
        activation: the function after each hidden layer.
    """

    hidden: Shape = (200, 200)
    activation: Activation = "tanh"

    @property
    def last_bias(self) -> str:
        return f"layers.{len(self.hidden)}.bias"

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        widths = (prod(inputs), *self.hidden, prod(outputs))
        shapes: Shapes = {}
        for i, (a, b) in enumerate(pairwise(widths)):
            shapes |= dense(f"layers.{i}", a, b)
            if self.norm and i < len(self.hidden):
                shapes |= norm(f"norms.{i}", b)
        return shapes

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        h = flatten(P, x, inputs)
        for i in range(len(self.hidden)):
            h = self._finish(P, i, apply_dense(P, f"layers.{i}", h), self.activation)
            h = P.dropout(h, self.dropout)
        return unflatten(P, apply_dense(P, f"layers.{len(self.hidden)}", h), outputs)


class GatedMLP(FullyConnected):
    """Gated perceptron: h ← drop(a(norm(W h + b)) · σ(V h + c)) for each hidden layer, then a linear layer.

    The net of Tomczak & Welling 2018, arXiv:1705.07120. Parameters: `layers.<i>.weight` [in, 2 out] holds W, then V;
    with a norm `norms.<i>.scale`, `.shift`.

    Args:
        hidden: widths of the hidden layers.
        activation: a, the function of the half that is gated.
    """

    hidden: Shape = (300, 300)
    activation: Activation = "identity"

    @property
    def last_bias(self) -> str:
        return f"layers.{len(self.hidden)}.bias"

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        shapes: Shapes = {}
        for i, (a, b) in enumerate(pairwise((prod(inputs), *self.hidden))):
            shapes |= dense(f"layers.{i}", a, 2 * b, split=2) | (norm(f"norms.{i}", b) if self.norm else {})
        last = (prod(inputs), *self.hidden)[-1]
        return shapes | dense(f"layers.{len(self.hidden)}", last, prod(outputs))

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        h = flatten(P, x, inputs)
        for i, width in enumerate(self.hidden):
            both = apply_dense(P, f"layers.{i}", h)
            h = self._finish(P, i, both[..., :width], self.activation) * P.activation("sigmoid", both[..., width:])
            h = P.dropout(h, self.dropout)
        return unflatten(P, apply_dense(P, f"layers.{len(self.hidden)}", h), outputs)


class ResidualMLP(FullyConnected):
    """Residual perceptron: h ← h + W₂ drop(a(W₁ a(norm(h)))), between an input and an output layer.

    He et al. 2016, arXiv:1603.05027. Parameters: `input`, `blocks.<i>.0`, `blocks.<i>.1`, `output`, each `.weight`
    and `.bias`, and with a norm `norms.<i>.scale`, `.shift`.

    Args:
        width: the width of every layer.
        blocks: number of residual blocks.
        activation: a, inside the blocks and before the output layer.
        norm: of the input of each block, "layer" or "batch" as for `MLP`.
    """

    width: PositiveInt = 200
    blocks: Depth = 2
    activation: Activation = "silu"
    norm: Literal["layer", "batch"] | None = "layer"

    @property
    def last_bias(self) -> str:
        return "output.bias"

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        shapes = dense("input", prod(inputs), self.width)
        for i in range(self.blocks):
            shapes |= dense(f"blocks.{i}.0", self.width, self.width)
            shapes |= dense(f"blocks.{i}.1", self.width, self.width)
            if self.norm:
                shapes |= norm(f"norms.{i}", self.width)
        return shapes | dense("output", self.width, prod(outputs))

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        h = apply_dense(P, "input", flatten(P, x, inputs))
        for i in range(self.blocks):
            r = apply_dense(P, f"blocks.{i}.0", self._finish(P, i, h, self.activation))
            r = P.dropout(P.activation(self.activation, r), self.dropout)
            h = h + apply_dense(P, f"blocks.{i}.1", r)
        return unflatten(P, apply_dense(P, "output", P.activation(self.activation, h)), outputs)
