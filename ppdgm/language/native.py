"""Names for the libraries' own objects in types. Their types differ, so `Any` stands for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Array = Any  # a NumPy, torch or JAX array: the vocabulary is the same over each
Dist = Any  # a distribution of torch, Pyro or NumPyro
DistClass = Any  # one of their classes of distributions
Constraint = Any  # the support of one
Transform = Any  # one of their transforms
Namespace = Any  # the array API's functions over torch or JAX
Module = Any  # a user's torch, Flax or Equinox module
Device = Any  # a torch or JAX device
Message = dict[str, Any]  # a message of Pyro's or NumPyro's handlers
Frame = Any  # a plate around a site, in such a message
Tree = Any  # arrays in JAX's containers
OwnOptimiser = Any  # a user's, of torch or optax
Index = Any  # what an array of theirs, or of NumPy's, takes in []
Noise = Any  # a JAX key; None on torch, which has a generator, and for runs that draw nothing
Batch = Mapping[str, Array]
Padding = int | tuple[tuple[int, int], tuple[int, int]]  # or rows above and below, columns to the left and right


class Random(Protocol):
    """The noise of densities: each call draws new numbers."""

    def normal(self, shape: tuple[int, ...]) -> Array:
        """N(0, 1)."""
        ...

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """On the open interval (0, 1)."""
        ...

    def gumbel(self, shape: tuple[int, ...]) -> Array:
        """−log(−log u)."""
        ...

    def gamma(self, concentration: Array, shape: tuple[int, ...]) -> Array:
        """Gamma(concentration, 1); the concentration broadcasts to the shape."""
        ...

    def poisson(self, rate: Array, shape: tuple[int, ...]) -> Array:
        """Poisson(rate), as floating numbers; the rate broadcasts to the shape."""
        ...

    def multinomial(self, total: Array, share: Array, shape: tuple[int, ...]) -> Array:
        """Counts [*shape, V] with the sums `total`, and the probabilities `share` [..., V]; both broadcast."""
        ...

    def permutation(self, n: int) -> Array:
        """The whole numbers below n, in random order."""
        ...

    def draw(self, dist: Dist, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
        """A draw of a native distribution, expanded to the batch shape, and its log-density; for a flow's base."""
        ...
