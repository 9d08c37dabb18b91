"""Equinox and Flax NNX modules in place of a net: their parameters by dotted name, and their application."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from ppdgm.errors import UnsupportedByBackend
from ppdgm.language.native import Tree
from ppdgm.language.vocabulary import Array, Module

if TYPE_CHECKING:
    from types import ModuleType


def module_params(module: Module) -> dict[str, np.ndarray]:
    """The module's trainable arrays by dotted name.

    Raises:
        UnsupportedByBackend: the module keeps running state, or draws its own random numbers.
    """
    _refuse_state(module)
    return {name: np.asarray(leaf) for name, leaf in _named_leaves(module)}


def apply_module(module: Module, params: Mapping[str, Array], x: Array, event_ndim: int) -> Array:
    """The module with `params` in place of its own, applied to [..., *event]."""
    if _is_nnx(module):
        from flax import nnx

        graph, state, rest = nnx.split(module, nnx.Param, ...)
        return nnx.merge(graph, _replace(state, params), rest)(x)
    import equinox as eqx

    trainable, static = eqx.partition(module, eqx.is_inexact_array)
    call = eqx.combine(_replace(trainable, params), static)
    lead = x.shape[: x.ndim - event_ndim]
    out = jax.vmap(call)(jnp.reshape(x, (-1, *x.shape[len(lead) :])))
    return jnp.reshape(out, (*lead, *out.shape[1:]))


def _is_nnx(module: Module) -> bool:
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(module, nnx.Module)


def _trainable(module: Module) -> Tree:
    if _is_nnx(module):
        from flax import nnx

        return nnx.split(module, nnx.Param, ...)[1]
    import equinox as eqx

    return eqx.filter(module, eqx.is_inexact_array)


def _named_leaves(module: Module) -> list[tuple[str, Array]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(_trainable(module))
    return [(path_name(path), leaf) for path, leaf in leaves]


def _replace(tree: Tree, params: Mapping[str, Array]) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: params[path_name(path)], tree)


def path_name(path: tuple[Tree, ...]) -> str:
    """A pytree path as a dotted name."""
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return name.removesuffix(".value").strip(".")


def _refuse_state(module: Module) -> None:
    if _is_nnx(module):
        from flax import nnx

        rest = nnx.split(module, nnx.Param, ...)[2]
        if jax.tree.leaves(rest):
            raise UnsupportedByBackend(
                f"{type(module).__name__} has state in addition to its parameters (batch statistics, or generators for "
                "dropout). The numpyro backend runs nets as pure functions of parameters and input. Use layer norm or "
                "group norm, and nets without dropout; or use the pyro backend."
            )
        return
    import equinox as eqx

    for layer in jax.tree.leaves(module, is_leaf=functools.partial(_is_stateful, eqx=eqx)):
        if _is_stateful(layer, eqx):
            raise UnsupportedByBackend(
                f"{type(module).__name__} contains {type(layer).__name__}, which needs state, or its own random "
                "numbers. The numpyro backend runs nets as pure functions of parameters and input. Use layer norm or "
                "group norm, set inference=True on dropout, or use the pyro backend."
            )


def _is_stateful(layer: Module, eqx: ModuleType) -> bool:
    if isinstance(layer, eqx.nn.Dropout):
        return not layer.inference
    return isinstance(layer, eqx.nn.StatefulLayer) and not isinstance(layer, eqx.nn.Sequential)
