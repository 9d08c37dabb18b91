"""Names for the libraries' own objects in types. Their types differ, so `Any` stands for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
