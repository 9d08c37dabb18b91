"""Fully connected nets: plain, gated and residual."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import (
    Activation,
    Depth,
    Net,
    Shapes,
    apply_dense,
    dense,
    flatten,
    layer_norm,
    norm,
    unflatten,
)
from ppdgm.specs import PositiveInt, Shape


class MLP(Net):
    """Multilayer perceptron: h ← a(norm(W h + b)) for each hidden layer, then a linear layer.

    Parameters: `layers.<i>.weight` [in, out], `layers.<i>.bias`, and with a norm `norms.<i>.scale`, `.shift`.

    Args:
        hidden: widths of the hidden layers; () for a linear map.
        activation: the function after each hidden layer.
        norm: "layer" normalises each hidden layer before its activation.
    """

    hidden: Shape = (200, 200)
    activation: Activation = "tanh"
    norm: Literal["layer"] | None = None

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
            h = apply_dense(P, f"layers.{i}", h)
            if self.norm:
                h = layer_norm(P, f"norms.{i}", h)
            h = P.activation(self.activation, h)
        return unflatten(P, apply_dense(P, f"layers.{len(self.hidden)}", h), outputs)


class GatedMLP(Net):
    """Gated perceptron: h ← a(W h + b) · σ(V h + c) for each hidden layer, then a linear layer.

    The net of Tomczak & Welling 2018, arXiv:1705.07120. Parameters: `layers.<i>.weight` [in, 2 out] holds W, then V.

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
            shapes |= dense(f"layers.{i}", a, 2 * b, split=2)
        last = (prod(inputs), *self.hidden)[-1]
        return shapes | dense(f"layers.{len(self.hidden)}", last, prod(outputs))

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        h = flatten(P, x, inputs)
        for i, width in enumerate(self.hidden):
            both = apply_dense(P, f"layers.{i}", h)
            h = P.activation(self.activation, both[..., :width]) * P.activation("sigmoid", both[..., width:])
        return unflatten(P, apply_dense(P, f"layers.{len(self.hidden)}", h), outputs)


class ResidualMLP(Net):
    """Residual perceptron: h ← h + W₂ a(W₁ a(norm(h))), between an input and an output layer.

    He et al. 2016, arXiv:1603.05027. Parameters: `input`, `blocks.<i>.0`, `blocks.<i>.1`, `output`, each `.weight`
    and `.bias`, and with a norm `norms.<i>.scale`, `.shift`.

    Args:
        width: the width of every layer.
        blocks: number of residual blocks.
        activation: a, inside the blocks and before the output layer.
        norm: "layer" normalises the input of each block.
    """

    width: PositiveInt = 200
    blocks: Depth = 2
    activation: Activation = "silu"
    norm: Literal["layer"] | None = "layer"

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
            r = layer_norm(P, f"norms.{i}", h) if self.norm else h
            r = apply_dense(P, f"blocks.{i}.0", P.activation(self.activation, r))
            h = h + apply_dense(P, f"blocks.{i}.1", P.activation(self.activation, r))
        return unflatten(P, apply_dense(P, "output", P.activation(self.activation, h)), outputs)
