"""Functions of a program as files that JAX reads without ppdgm: serialised StableHLO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import jax
import jax.export
import jax.numpy as jnp

from ppdgm.backends.numpyro.precision import products
from ppdgm.backends.numpyro.runtime import Runtime
from ppdgm.backends.numpyro.tracer import JaxTracer
from ppdgm.errors import PpdgmError, UnsupportedByBackend
from ppdgm.language.served import Exported, Served
from ppdgm.language.turns import in_turn
from ppdgm.language.vocabulary import Array

FORMATS = ("jax",)
PLATFORMS = ("cpu", "cuda", "tpu")
KEY = "key"  # the input that draws depend on


@in_turn
def exported(runtime: Runtime, params: Mapping[str, Array], served: Served, format: str) -> Exported:
    """The function as the content of a file for `jax.export.deserialize`: of a dictionary of arrays, to another one.

    If it draws, an input is the key, as `jax.random.key_data` gives it: uint32 [2].

    Raises:
        UnsupportedByBackend: JAX can't export it, with JAX's reason.
    """
    tracer = cast(JaxTracer, runtime.tracer)  # plain pairs are refused before
    (rows,) = jax.export.symbolic_shape("batch")

    def run(arrays: Mapping[str, Array]) -> dict[str, Array]:
        given = dict(arrays)
        key = given.pop(KEY, None)
        noise = None if key is None else jax.random.wrap_key_data(key)
        return dict(served(tracer, params, noise, given))

    arrays = {n: jax.ShapeDtypeStruct((rows, *s), jnp.dtype(t)) for n, (s, t) in served.fields.items()}
    draws = served.what == "elbo" and _draws(tracer, params, served)
    if draws:
        arrays[KEY] = jax.ShapeDtypeStruct((2,), jnp.uint32)
    try:
        with products():
            made = jax.export.export(jax.jit(run), platforms=PLATFORMS)(arrays)
            content = bytes(made.serialize())
    except PpdgmError:
        raise
    except Exception as error:  # of many kinds
        raise _refused(error) from error
    inputs: list[dict[str, object]] = [
        {"name": n, "shape": ["batch", *s], "dtype": t} for n, (s, t) in served.fields.items()
    ]
    if draws:
        inputs.append({"name": KEY, "shape": [2], "dtype": "uint32", "noise": "key"})
    names = [str(path[0].key) for path, _ in jax.tree_util.tree_leaves_with_path(_like(made))]
    outputs: list[dict[str, object]] = [
        {"name": n, "shape": [d if isinstance(d, int) else str(d) for d in a.shape], "dtype": str(a.dtype)}
        for n, a in zip(names, made.out_avals, strict=True)
    ]
    return Exported(content, inputs, outputs)


def _draws(tracer: JaxTracer, params: Mapping[str, Array], served: Served) -> bool:
    """Whether the function needs a key."""
    arrays = {n: jax.ShapeDtypeStruct((3, *s), jnp.dtype(t)) for n, (s, t) in served.fields.items()}
    run = lambda arrays, key: served(tracer, params, key, arrays)
    jaxpr = jax.make_jaxpr(run)(arrays, jax.random.key(0)).jaxpr
    return any(v is jaxpr.invars[-1] for e in jaxpr.eqns for v in e.invars)


def _like(made: jax.export.Exported) -> dict[str, int]:
    """A tree of the form of its results."""
    return dict(jax.tree.unflatten(made.out_tree, range(len(made.out_avals))))


def _refused(error: Exception) -> UnsupportedByBackend:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return UnsupportedByBackend(f"export: jax.export can't take this program ({type(error).__name__}: {said}).")
