"""The base class of nets, and the pieces that nets share: first values, linear layers, flattening."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field

from ppdgm.language.vocabulary import Array, Init, Vocabulary
from ppdgm.specs import Spec

Activation = Literal["tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "sigmoid", "identity"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
Depth = Annotated[int, Field(ge=0, le=1000)]  # number of repeated blocks
Dropout = Annotated[float, Field(ge=0, lt=1)]  # the probability with which a number is set to 0
Shapes = dict[str, tuple[tuple[int, ...], Init]]  # parameter -> shape, first values


class Net(Spec):
    """A network as data: the shapes and first values of its parameters, and one application over P."""

    @property
    def last_bias(self) -> str | None:
        """The name of the bias that is added to each number or channel of the output; None if there is none."""
        return None

    @abstractmethod
    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        """The shape and first values of every parameter, for a map from events of shape `inputs` to `outputs`."""

    def states(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        """The same of its states, such as the running means of batch norms."""
        return {}

    @abstractmethod
    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        """[..., *inputs] -> [..., *outputs], for any leading dimensions."""


def glorot(fan_in: int, fan_out: int) -> Init:
    """Uniform on ±sqrt(6 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    limit = (6.0 / (fan_in + fan_out)) ** 0.5

    def init(
        rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        return rng.uniform(-limit, limit, size=shape)

    return init


def zeros(rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    """Initial values of zeros."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    """Initial values of ones."""
    return np.ones(shape)


def dense(name: str, inputs: int, outputs: int, split: int = 1) -> Shapes:
    """A linear layer's weight [inputs, outputs] and bias; it may be `split` layers of equal width, side by side."""
    init = glorot(inputs, outputs // split)
    return {f"{name}.weight": ((inputs, outputs), init), f"{name}.bias": ((outputs,), zeros)}


def apply_dense(P: Vocabulary, name: str, x: Array) -> Array:
    """The linear layer that `dense` declares."""
    return P.linear(x, P.param(f"{name}.weight"), P.param(f"{name}.bias"))


def flatten(P: Vocabulary, x: Array, event: tuple[int, ...]) -> Array:
    """[..., *event] -> [..., prod(event)]."""
    return x if len(event) == 1 else P.xp.reshape(x, (*lead(x, event), prod(event)))


def unflatten(P: Vocabulary, x: Array, event: tuple[int, ...]) -> Array:
    """[..., prod(event)] -> [..., *event]."""
    return x if len(event) == 1 else P.xp.reshape(x, (*x.shape[:-1], *event))


def lead(x: Array, event: tuple[int, ...]) -> tuple[int, ...]:
    """The leading dimensions of [..., *event]."""
    return tuple(x.shape[: len(x.shape) - len(event)])
