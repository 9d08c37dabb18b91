"""A masked net that is trained on many orderings of its inputs, so that it can be used in any of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Init, Vocabulary
from ppdgm.nets.base import Activation, Shapes, dense, flatten
from ppdgm.nets.causal import CausalNet, Order
from ppdgm.nets.made import even_degrees, perceptron
from ppdgm.specs import NonNegativeInt, PositiveInt, Shape


class OrderAgnosticMADE(CausalNet):
    """A MADE of several orderings: p(x) = 1/R Σ_r Π_j p_r(x_j | numbers before x_j in ordering r).

    Germain et al. 2015, arXiv:1502.03509, sections 4.2 and 4.3. Each training step draws one of the orderings and
    maximises log p_r(x). Evaluations average the likelihoods p_r(x), which is exact, and a draw of x is in an ordering
    of its own. One net has to serve all orderings: it needs more hidden units than a `MADE`, and longer training.
    `fit.impute` draws missing numbers given any others. States: `orders` [R, D], the place of each input, and with
    random connectivity `degrees.<i>` [R, hidden]. Parameters as in `MADE`.

    Args:
        hidden: widths of the hidden layers; wide ones, of 500 or more for images.
        activation: the function after each hidden layer.
        orders: R, the number of random orderings.
        connectivity: "even": hidden units are spread evenly over the places of the ordering; "random": each ordering
            has masks of its own.
        averaged: the number of orderings that evaluations average, the first of R; by default all of them. They take a
            pass each.
        seed: the seed of the orderings and of their masks.
    """

    hidden: Shape = (500,)
    activation: Activation = "relu"
    orders: PositiveInt = 8
    connectivity: Literal["even", "random"] = "even"
    averaged: PositiveInt | None = None
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _few(self) -> Self:
        if self.averaged is not None and self.averaged > self.orders:
            raise ValueError(f"averaged={self.averaged} is more than orders={self.orders}. Give at most orders.")
        return self

    @property
    def last_bias(self) -> str:
        return f"layers.{len(self.hidden)}.bias"

    @property
    def counts(self) -> tuple[int, int]:
        return self.orders, self.averaged or self.orders

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        raise SpecError(
            "OrderAgnosticMADE is for a density: the net of AutoregressiveModel or of Autoregressive. For a plain net, "
            "use MADE."
        )

    def causal_params(self, event: tuple[int, ...], condition: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        seen = prod(condition) if condition else 0
        shapes: Shapes = {}
        for i, (a, b) in enumerate(pairwise((prod(event) + seen, *self.hidden, prod(outputs)))):
            shapes |= dense(f"layers.{i}", a, b)
        return shapes

    def causal_states(self, event: tuple[int, ...], condition: tuple[int, ...]) -> Shapes:
        width, conditional = prod(event), bool(condition)
        shapes: Shapes = {"orders": ((self.orders, width), _first(self._orders(width)))}
        for i, units in enumerate(self.hidden):
            degrees = np.tile(even_degrees(units, width, conditional), (self.orders, 1))
            if self.connectivity == "random":
                least = degrees.min()
                degrees = np.random.default_rng([self.seed, width, i]).integers(
                    least, max(width, least + 1), degrees.shape
                )
                degrees[:, 0] = least  # so that no unit of the next layer is without inputs
            shapes[f"degrees.{i}"] = degrees.shape, _first(degrees)
        return shapes

    def _orders(self, width: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, width])
        return np.stack([rng.permutation(width) for _ in range(self.orders)])

    def order(self, event: tuple[int, ...]) -> np.ndarray:
        """The first ordering."""
        return self._orders(prod(event))[0].reshape(event)

    def length(self, event: tuple[int, ...]) -> int:
        return prod(event)

    def with_known_first(self, P: Vocabulary, order: Order, missing: Array) -> Order:
        assert order.places is not None  # that of `order_at`
        width = prod(missing.shape)
        late = P.xp.reshape(order.places + P.xp.where(missing, float(width), 0.0), (-1,))
        places = P.xp.sum(P.xp.where(late[None, :] < late[:, None], 1.0, 0.0), axis=1)
        return order._replace(places=P.xp.reshape(places, missing.shape))

    def order_at(self, P: Vocabulary, number: Array, event: tuple[int, ...]) -> Order:
        xp, which = P.xp, P.constant(np.arange(self.orders))[:, None] == number
        row = lambda name: xp.sum(xp.where(which, P.param(name), 0.0), axis=0)
        places = xp.reshape(row("orders"), event)
        return Order(places, tuple(row(f"degrees.{i}") for i in range(len(self.hidden))))

    def causal(
        self, P: Vocabulary, x: Array, condition: Array | None, event: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Array:
        return self.ordered(P, x, condition, event, outputs, self.order_at(P, P.full((), 0.0), event))

    def ordered(
        self,
        P: Vocabulary,
        x: Array,
        condition: Array | None,
        event: tuple[int, ...],
        outputs: tuple[int, ...],
        order: Order,
    ) -> Array:
        assert order.places is not None
        places = P.xp.reshape(order.places, (-1,))
        rows = prod(outputs) // places.shape[0]
        degrees = (places + 1.0, *order.masks, P.concat([places] * rows))
        masks = [low[:, None] <= high for low, high in pairwise(degrees)]
        out = perceptron(P, self, flatten(P, x, event), condition, masks)
        return P.xp.reshape(out, (*out.shape[:-1], *outputs))


def _first(value: np.ndarray) -> Init:
    def init(
        rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        return value.astype(float)

    return init
