"""The facts that an abstract run of a plain NumPyro pair shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to, constraints

from ppdgm.backends.numpyro.foreign import path_name
from ppdgm.backends.numpyro.sites import Message
from ppdgm.language import pair_mistakes
from ppdgm.language.native import Tree
from ppdgm.language.tracer import Params
from ppdgm.language.vocabulary import Array

Part = tuple[int, int | None]  # a plate's size and subsample_size


class Leaves(NamedTuple):
    """The content of a parameter site: its pytree, and its leaves' dotted names and shapes."""

    tree: Tree  # the structure
    names: list[str]
    shapes: list[tuple[int, ...]]

    def at(self, params: Params, constrain: Callable[[Array], Array]) -> Tree:
        """The pytree at these values, which are unconstrained."""
        values = [constrain(params[n]) for n in self.names]
        for name, value, shape in zip(self.names, values, self.shapes, strict=True):
            pair_mistakes.check_shape(name, jnp.shape(value), shape)
        return jax.tree.unflatten(self.tree, values)


@dataclass
class Probe:
    """The facts from one abstract run: the data plate, the parameters, and how it failed.

    Attributes:
        rows: whether a parameter has one row for each row of the data.
        scales: of sites, in training.
        shared: latents shared by all data, with their batch and event shapes.
        outside: sites outside the data plate, with their batch shapes.
        marked: sites that the guide enumerates.
        summed: sites that are enumerated, and summed out of the model.
        width: number of dimensions of plates.
    """

    plate: Part | None = None
    params: dict[str, Leaves] = field(default_factory=dict)
    of_guide: set[str] = field(default_factory=set)
    rows: bool = False
    scales: dict[str, float] = field(default_factory=dict)
    shared: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    outside: dict[str, tuple[int, ...]] = field(default_factory=dict)
    marked: list[str] = field(default_factory=list)
    summed: list[str] = field(default_factory=list)
    width: int = 1
    error: Exception | None = None


def has_rows(msg: Message, plate: str) -> bool:
    """Whether a parameter has one row for each row of the data, and the data plate takes some of them."""
    inside = any(f.name == plate for f in msg["cond_indep_stack"])
    return inside and msg["kwargs"].get("event_dim") is not None


def leaves_of(site: str, value: Tree) -> Leaves:
    """The content of a parameter site."""
    found, tree = jax.tree_util.tree_flatten_with_path(value)
    base = site.removesuffix("$params")
    names = [f"{base}.{name}" if (name := path_name(path)) else base for path, _ in found]
    return Leaves(tree, names, [jnp.shape(leaf) for _, leaf in found])


def shapes_of(params: Mapping[str, Leaves]) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of each site's leaves."""
    return {site: leaves.shapes for site, leaves in params.items()}


def first_site_values(leaves: Leaves, msg: Message) -> dict[str, Array]:
    """The first values of a parameter site, unconstrained, as the pair itself makes them."""
    free = biject_to(msg["kwargs"].get("constraint", constraints.real)).inv
    return {n: free(jnp.asarray(v)) for n, v in zip(leaves.names, jax.tree.leaves(msg["value"]), strict=True)}
