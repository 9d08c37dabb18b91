"""Masked nets: output d sees only the inputs that come before d."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal, Protocol

import numpy as np
from pydantic import field_validator

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Activation, Shapes, dense, flatten, unflatten
from ppdgm.nets.causal import CausalNet
from ppdgm.specs import NonNegativeInt, Shape

Ordering = Literal["natural", "reversed", "random"] | tuple[NonNegativeInt, ...]


class MADE(CausalNet):
    """Masked perceptron: h ← a((W ∘ M) h + b); output d depends only on the inputs before d in an ordering.

    Germain et al. 2015, arXiv:1502.03509. It maps inputs (D,) to outputs (…, D). The last C of inputs (D + C,) are a
    context, which every output sees. The hidden units are spread evenly over the positions in the ordering.
    Parameters: `layers.<i>.weight` [in, out] before the mask, `layers.<i>.bias`.

    Args:
        hidden: widths of the hidden layers, each at least D so that no output misses an input; () for a linear map.
        activation: the function after each hidden layer.
        ordering: the order of the D inputs: "natural", "reversed", "random", or the indices of the inputs in their
            order.
        seed: the seed of a random ordering.
    """

    hidden: Shape = (200, 200)
    activation: Activation = "tanh"
    ordering: Ordering = "natural"
    seed: NonNegativeInt = 0

    @field_validator("ordering")
    @classmethod
    def _is_permutation(cls, ordering: Ordering) -> Ordering:
        if not isinstance(ordering, str) and sorted(ordering) != list(range(len(ordering))):
            raise ValueError("each of 0, 1, … once, such as (2, 0, 1)")
        return ordering

    @property
    def last_bias(self) -> str:
        return f"layers.{len(self.hidden)}.bias"

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        width = outputs[-1]
        if len(inputs) != 1 or inputs[0] < width:
            raise SpecError(
                f"MADE: got inputs of shape {inputs} for outputs {outputs}; expected one vector of at least {width} "
                "numbers, one for each column of an output. Further numbers are the context."
            )
        if not isinstance(self.ordering, str) and len(self.ordering) != width:
            raise SpecError(
                f"MADE.ordering: got {len(self.ordering)} numbers; expected one for each of {width} inputs."
            )
        shapes: Shapes = {}
        for i, (a, b) in enumerate(pairwise((inputs[0], *self.hidden, prod(outputs)))):
            shapes |= dense(f"layers.{i}", a, b)
        return shapes

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        width = outputs[-1]
        return self.conditioned(P, x[..., :width], x[..., width:] if inputs[0] > width else None, outputs)

    def causal_params(self, event: tuple[int, ...], condition: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        seen = prod(condition) if condition else 0
        return self.params((prod(event) + seen,), (prod(outputs) // prod(event), prod(event)))

    def causal(
        self, P: Vocabulary, x: Array, condition: Array | None, event: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Array:
        width = prod(event)
        out = self.conditioned(P, flatten(P, x, event), condition, (prod(outputs) // width, width))
        return P.xp.reshape(out, (*out.shape[:-2], *outputs))

    def order(self, event: tuple[int, ...]) -> np.ndarray:
        return np.reshape(self.ranks(prod(event)), event)

    def conditioned(self, P: Vocabulary, x: Array, context: Array | None, outputs: tuple[int, ...]) -> Array:
        """The net of x [..., D] and a context [..., C] or None, whose leading dimensions broadcast."""
        width = outputs[-1]
        ranks = self.ranks(width)
        degrees = [[rank + 1 for rank in ranks]]
        degrees += [even_degrees(n, width, conditional=context is not None) for n in self.hidden]
        arrays = [P.constant(d) for d in (*degrees, ranks * prod(outputs[:-1]))]
        masks = [low[:, None] <= high for low, high in pairwise(arrays)]
        return unflatten(P, perceptron(P, self, x, context, masks), outputs)

    def ranks(self, width: int) -> list[int]:
        """The position of each input in the ordering, from 0."""
        order = self._order(width)
        return sorted(range(width), key=lambda d: order[d])

    def _order(self, width: int) -> list[int]:
        if self.ordering == "natural":
            return list(range(width))
        if self.ordering == "reversed":
            return list(range(width))[::-1]
        return _shuffled(width, self.seed) if self.ordering == "random" else list(self.ordering)


class Perceptron(Protocol):
    """A net of plain layers."""

    @property
    def hidden(self) -> Shape: ...
    @property
    def activation(self) -> Activation: ...


def perceptron(
    P: Vocabulary, net: Perceptron, x: Array, context: Array | None, masks: list[Array] | None = None
) -> Array:
    """The layers of a net of x [..., D] and a context [..., C], which is not expanded to the particles of x."""
    h = x
    for i in range(len(net.hidden) + 1):
        weight, bias = P.param(f"layers.{i}.weight"), P.param(f"layers.{i}.bias")
        if i == 0 and context is not None:
            width = x.shape[-1]
            weight, bias = weight[:width], P.linear(context, weight[width:], bias)
        weight = weight * masks[i] if masks else weight
        h = P.linear(h, weight, P.full((weight.shape[-1],), 0.0)) + bias if bias.ndim > 1 else P.linear(h, weight, bias)
        h = P.activation(net.activation, h) if i < len(net.hidden) else h
    return h


def even_degrees(units: int, width: int, conditional: bool) -> list[int]:
    """How many inputs, in their order, each hidden unit may see: from 1, or from 0 if there is a context to see."""
    least = 0 if conditional or width == 1 else 1
    return [least + k * (width - least) // units for k in range(units)]


def _shuffled(width: int, seed: int) -> list[int]:
    """Fisher and Yates' shuffle, with Lehmer's generator: plain whole numbers, which torch.compile can trace."""
    order, state = list(range(width)), seed % 2147483646 + 1
    for last in range(width - 1, 0, -1):
        state = state * 48271 % 2147483647
        chosen = state % (last + 1)
        order[last], order[chosen] = order[chosen], order[last]
    return order
