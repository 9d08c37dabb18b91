"""Equinox and Flax NNX modules in place of a net: their parameters by dotted name, and their application."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from ppdgm.backends.numpyro.noise import in_inference
from ppdgm.errors import ProgramError, UnsupportedByBackend
from ppdgm.language.native import Tree
from ppdgm.language.vocabulary import Array, Module

if TYPE_CHECKING:
    from types import ModuleType


_NO_STATE = (
    "The numpyro backend runs nets as pure functions of parameters, batch statistics of NNX and input. Use a net of "
    'ppdgm, such as MLP(norm="batch"); layer norm or group norm; or the pyro backend.'
)


def module_params(module: Module) -> dict[str, np.ndarray]:
    """The module's trainable arrays by dotted name.

    Raises:
        UnsupportedByBackend: the module keeps running state.
    """
    _refuse_state(module)
    return {name: np.asarray(leaf) for name, leaf in _named_leaves(module)}


def module_states(module: Module) -> dict[str, np.ndarray]:
    """The batch statistics of an NNX module by dotted name."""
    if not _is_nnx(module):
        return {}
    from flax import nnx

    return {name: np.asarray(leaf) for name, leaf in _named(nnx.state(module, nnx.BatchStat))}


def apply_module(
    module: Module, params: Mapping[str, Array], x: Array, event_ndim: int, key: Array | None
) -> tuple[Array, dict[str, Array]]:
    """The module with `params` in place of its own, applied to [..., *event].

    Args:
        module: an Equinox or NNX module.
        params: its trainable arrays and its batch statistics, by name.
        x: its input.
        event_ndim: number of axes of an event.
        key: in training, for its dropout; None elsewhere: then dropout is off, and batch norm takes its running means.

    Returns:
        The output, and in training the new batch statistics.
    """
    if _is_nnx(module):
        from flax import nnx

        graph, state, stats, rest = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
        if key is not None:
            streams, tree = jax.tree.flatten(rest, is_leaf=_is_key)
            fresh = [jax.random.fold_in(key, i) if _is_key(v) else v for i, v in enumerate(streams)]
            rest = jax.tree.unflatten(tree, fresh)
        merged = nnx.merge(graph, _replace(state, params), _replace(stats, params), rest)
        if key is None:
            merged.eval()
            return merged(x), {}
        return merged(x), dict(_named(nnx.state(merged, nnx.BatchStat)))
    import equinox as eqx

    trainable, static = eqx.partition(module if key is not None else in_inference(module), eqx.is_inexact_array)
    call = eqx.combine(_replace(trainable, params), static)
    lead = x.shape[: x.ndim - event_ndim]
    rows = jnp.reshape(x, (-1, *x.shape[len(lead) :]))
    if key is None:
        out = jax.vmap(call)(rows)
    else:
        try:
            out = jax.vmap(lambda row, key: call(row, key=key))(rows, jax.random.split(key, len(rows)))
        except TypeError as error:
            raise ProgramError(
                f"{type(module).__name__} has dropout, so training calls it with a key, and that failed: {error}. "
                "Write __call__(self, x, *, key=None), and give the key to its layers."
            ) from error
    return jnp.reshape(out, (*lead, *out.shape[1:])), {}


def has_dropout(module: Module) -> bool:
    """Whether the module has dropout that is not switched off."""
    if _is_nnx(module):
        from flax import nnx

        return any(isinstance(m, nnx.Dropout) and not m.deterministic for _, m in nnx.iter_modules(module))
    import equinox as eqx

    layers = jax.tree.leaves(module, is_leaf=lambda m: isinstance(m, eqx.nn.Dropout))
    return any(isinstance(m, eqx.nn.Dropout) and not m.inference for m in layers)


def _is_key(leaf: object) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


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
    return _named(_trainable(module))


def _named(tree: Tree) -> list[tuple[str, Array]]:
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _replace(tree: Tree, params: Mapping[str, Array]) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: params[path_name(path)], tree)


def path_name(path: tuple[Tree, ...]) -> str:
    """A pytree path as a dotted name."""
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return name.removesuffix(".value").strip(".")


def _refuse_state(module: Module) -> None:
    if _is_nnx(module):
        from flax import nnx

        rest = nnx.split(module, nnx.Param, nnx.BatchStat, nnx.RngState, ...)[4]
        if jax.tree.leaves(rest):
            raise UnsupportedByBackend(
                f"{type(module).__name__} has state of its own kind beside its parameters. {_NO_STATE}"
            )
        return
    import equinox as eqx

    for layer in jax.tree.leaves(module, is_leaf=functools.partial(_is_stateful, eqx=eqx)):
        if _is_stateful(layer, eqx):
            raise UnsupportedByBackend(
                f"{type(module).__name__} contains {type(layer).__name__}, which needs state. {_NO_STATE}"
            )


def _is_stateful(layer: Module, eqx: ModuleType) -> bool:
    return isinstance(layer, eqx.nn.StatefulLayer) and not isinstance(layer, eqx.nn.Sequential)
