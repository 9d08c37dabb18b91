"""A program on a JAX device: its data and parameters, its readings as NumPy arrays, its training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from ppdgm.backends.numpyro.cache import keep_compiled
from ppdgm.backends.numpyro.chains import nuts
from ppdgm.backends.numpyro.devices import Devices, find_devices
from ppdgm.backends.numpyro.indices import indexes, with_indices_checked
from ppdgm.backends.numpyro.keys import make_key
from ppdgm.backends.numpyro.own_noise import noise_of_draws, noise_of_terms
from ppdgm.backends.numpyro.pair import PairTracer
from ppdgm.backends.numpyro.precision import products
from ppdgm.backends.numpyro.quick import compile_quickly, with_checks
from ppdgm.backends.numpyro.support import SUPPORTS
from ppdgm.backends.numpyro.tracer import JaxStep, JaxTracer, select
from ppdgm.backends.numpyro.whole import Products
from ppdgm.errors import UnsupportedByBackend
from ppdgm.language.native import OwnOptimiser, Tree
from ppdgm.language.phases import EngineLike, OptimiserLike
from ppdgm.language.reader import Gradients
from ppdgm.language.runtime import Arrays, Fields, Name, Native, Question, Rest, at_most, traced
from ppdgm.language.runtime import Runtime as AnyRuntime
from ppdgm.language.step import Step
from ppdgm.language.supports import Observed, Supports
from ppdgm.language.tracer import Params
from ppdgm.language.turns import in_turn
from ppdgm.language.unseen import Unseen
from ppdgm.language.vocabulary import Array, Namespace, PairLike, ProgramLike, Trace

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

if version("jaxlib") == "0.10.2":  # pip does not install it with ppdgm, but a user may install it later
    warnings.warn(
        "jaxlib 0.10.2 computes wrong sums on CPU for tens of thousands of rows (jax issue 39103), so numbers of large "
        "batches can't be trusted. Install another version: pip install 'jax!=0.10.2' 'jaxlib!=0.10.2'",
        RuntimeWarning,
        stacklevel=2,
    )

# What stands for a field without data has no arrays; compiled functions depend on its shape.
jax.tree_util.register_pytree_node(Unseen, lambda u: ((), (u.event, u.size)), lambda known, _: Unseen(*known))


def precision(dtype: str) -> AbstractContextManager[object]:
    """JAX's 64-bit mode inside a block, if `dtype` is float64."""
    return jax.enable_x64(True) if dtype == "float64" else nullcontext()


class Runtime(AnyRuntime):
    """Runs one program with JAX.

    Args:
        program: a Program or a plain pair.
        device: "auto", "cpu", "cuda", "cuda:1".
        devices: the number of devices, or "all"; None: one of this process, whatever others do.
    """

    name: ClassVar[str] = "numpyro"
    xp: ClassVar[Namespace] = jnp
    supports: ClassVar[Supports] = SUPPORTS
    steps: ClassVar[type[Step]] = JaxStep

    share: Devices

    def __init__(
        self, program: ProgramLike | PairLike, device: str = "auto", devices: int | Literal["all"] | None = None
    ):
        self.share = find_devices(device, devices)
        self.device = self.share.home
        keep_compiled()
        is_pair = hasattr(program, "data_plate")  # so the casts are right
        self.tracer: JaxTracer | PairTracer = (
            PairTracer(cast(PairLike, program)) if is_pair else JaxTracer(cast(ProgramLike, program))
        )
        self._compiled: dict[Question, Question] = {}
        self._quick: dict[Hashable, Question] = {}
        self._indexed: dict[Hashable, Question | None] = {}
        self._always: dict[Hashable, bool] = {}
        self._products: dict[Hashable, Products] = {}

    @property
    def place(self) -> str:
        device = self.device
        if device.platform == "cpu":
            return self.share.shown("cpu", "cpu")
        name = {"gpu": "cuda"}.get(device.platform, device.platform)
        return self.share.shown(f"{name}:{device.local_hardware_id} ({device.device_kind})", device.device_kind)

    @in_turn
    def ask(self, question: Question, params: Params, seed: tuple[int, ...] | None, *at: Tree, **how: object) -> Tree:
        if question not in self._compiled:
            self._compiled[question] = jax.jit(partial(question, self), static_argnames=tuple(how), **self._whole)
        key = None if seed is None else make_key(*seed)
        with products():
            return self.fetch(self._compiled[question](params, key, *at, **how))

    @property
    def _whole(self) -> dict[str, Any]:
        """Options of `jax.jit` for results that every device has."""
        return {} if self.share.mesh is None else {"out_shardings": self.share.everywhere}

    def index(self, rows: np.ndarray) -> Array:
        return self.share.put_rows(np.asarray(rows, np.int32))

    def select(self, data: Native, index: Array) -> Native:
        return dict(select(self.tracer, data, index))

    def put(self, arrays: Arrays, dtype: str | None = None) -> dict[str, Array]:
        cast = lambda a: a.astype(dtype) if dtype and np.issubdtype(a.dtype, np.floating) else a
        host = {n: cast(np.asarray(a)) for n, a in arrays.items()}
        if any(a.dtype == np.float64 for a in host.values()) and jnp.result_type(float) != np.float64:
            raise UnsupportedByBackend(
                "Got float64 arrays, but JAX is in 32-bit mode and would round them. Run inside `with "
                "jax.enable_x64(True):`, or set JAX_ENABLE_X64=1."
            )
        for name, a in host.items():
            _check_whole(name, a)
        return {n: self.share.put(a) for n, a in host.items()}

    def settings_here(self) -> AbstractContextManager[object]:
        wide: AbstractContextManager[object] = jax.enable_x64(jnp.result_type(float) == np.float64)
        return wide

    def fetch(self, arrays: Tree) -> Tree:
        return jax.tree.map(np.asarray, jax.device_get(arrays))

    @in_turn
    def glance(self, params: Params, data: Native, index: np.ndarray, k: int, given: Arrays) -> Trace:
        """Terms of a few rows as in `trace`, with little compilation."""
        native = self.put(given, None)
        if not given and (checked := self._checked(params, data, self.index(index), k)) is not None:
            return cast(Trace, self.fetch(checked))  # compiled by the first reading
        if ("given", k) not in self._quick:
            read = partial(traced, self, k=k, kl=False)
            self._quick["given", k] = compile_quickly(read, self.device, **self._whole)
        key = jax.random.key(0)
        with products():
            found = self._quick["given", k](params, key, data, self.index(index), native)
        return cast(Trace, self.fetch(found))

    def _checked(self, params: Params, data: Native, index: Array, k: int) -> Trace | None:
        """A reading, if NumPyro would accept all arguments and values in it; None if that is not certain."""
        if ("checked", k) not in self._quick:
            read = with_checks(partial(traced, self, given={}, k=k, kl=False))
            self._quick["checked", k] = compile_quickly(read, self.device, **self._whole)
        key = jax.random.key(0)
        try:
            with products():
                found, well = self._quick["checked", k](params, key, data, index)
        except Exception:  # the reading without compilation reports it
            return None
        return cast(Trace, found) if well else None

    @in_turn
    def misplaced(self, name: Hashable, function: Question, rows: Tree, data: Tree, params: Params) -> str | None:
        moving = jax.random.key(0), data
        with suppress(Exception), products():  # of a function that can't be run: the reading without checks reports it
            if name not in self._indexed:
                self._indexed[name] = None
                some, self._always[name], jaxpr = indexes(function, rows, moving, params)
                if some:
                    self._indexed[name] = compile_quickly(with_indices_checked(function), self.device, **self._whole)
                self._products[name] = Products(jaxpr, len(jax.tree.leaves((rows, moving[0]))), data)
        found = self._beyond_axes(name, rows, moving, params)
        exact = self._products.get(name)
        if exact and (far := exact.beyond(data)) is not None:
            raise UnsupportedByBackend(
                f"A sum or product of whole numbers in the program may be {far}, but JAX is in 32-bit mode, and would "
                "keep only its last 32 bits. Make a factor floating first, 1.0 * n; or run inside `with "
                "jax.enable_x64(True):`, or set JAX_ENABLE_X64=1."
            )
        done = self._indexed.get(name) is None and not (exact and exact.counts) and found is None
        return None if done else (found or "").partition(" (`check` failed)")[0].rstrip(". ")

    def _beyond_axes(self, name: Hashable, rows: Tree, moving: Tree, params: Params) -> str | None:
        """What JAX's checks say of the function's indices; None if all are right, or it has none that change."""
        if (check := self._indexed.get(name)) is None:
            return None
        try:
            with products():
                found = cast("str | None", check(rows, moving, params).get())
        except Exception as error:  # JAX's checks do not know all of its operations
            self._indexed[name] = None
            warnings.warn(
                "The program takes numbers by an index, and JAX can't check that it stays within its axis "
                f"({type(error).__name__}). Outside of it, JAX takes another number without a word: check such data "
                "yourself, or try the Pyro backend, which refuses them.",
                stacklevel=2,
            )
            return None
        if found is None and not self._always[name]:
            self._indexed[name] = None
        return found

    @in_turn
    def look(self, question: Question, params: Params, *at: Tree, **how: object) -> Tree:
        return jax.eval_shape(partial(question, self, **how), params, jax.random.key(0), *at)

    def slopes(
        self, function: Callable[[dict[Name, Array]], tuple[Array, Rest]], z: dict[Name, Array]
    ) -> tuple[dict[Name, Array], Rest]:
        found: tuple[dict[Name, Array], Rest] = jax.grad(function, has_aux=True)(z)
        return found

    nuts = staticmethod(nuts)

    @in_turn
    def validate(self, params: Params, data: Native, k: int, b: int) -> Trace:
        """One reading with NumPyro's checks of arguments and values on; in any doubt, step by step."""
        index = np.arange(b) % len(next(iter(data.values())))
        if (found := self._checked(params, data, self.index(index), k)) is not None:
            return found
        with numpyro.validation_enabled(), warnings.catch_warnings():
            warnings.filterwarnings("error", "Out-of-support")  # NumPyro's only warning about such values
            return traced(self, params, jax.random.key(0), data, self.index(index), {}, k, False)

    @in_turn
    def observed(self, params: Params, data: Native, index: np.ndarray, seed: int) -> list[Observed]:
        """What is known about each observed site; arrays are computed only for the bounds of supports."""
        found: list[Observed] = []

        def look(params: Params) -> list[tuple[Array, ...]]:
            batch, rows = select(self.tracer, data, self.index(index)), self.index(index)
            sites = self.tracer.observed(params, make_key(seed), batch, rows)
            found[:] = [SUPPORTS.describe(site, batch) for site in sites]
            return [o.bounds for o in found]

        with numpyro.validation_enabled():
            if not any(jax.eval_shape(look, params)):
                return list(found)
            bounds = self.fetch(jax.jit(look)(params))
        return [replace(o, bounds=b) for o, b in zip(found, bounds, strict=True)]

    @in_turn
    def noise(self, params: Params, data: Native, index: np.ndarray) -> str:
        rows = self.index(index)
        if isinstance(self.tracer, PairTracer):
            return self.tracer.noise(params, select(self.tracer, data, rows), rows)
        return noise_of_terms(self.tracer, params, partial(select, self.tracer, data, rows), len(index))

    @in_turn
    def model_noise(self, params: Params, fields: Fields, size: int) -> str:
        """The same for draws from the model; for a plain pair, with its guide."""
        if isinstance(self.tracer, PairTracer):
            return self.noise(params, self.fields(fields), np.arange(size))
        return noise_of_draws(self.tracer, params, self.fields(fields), size)

    def why_not_compiled(self, engine: EngineLike, optimiser: OptimiserLike | OwnOptimiser) -> str:
        """Why torch.compile can't take the steps of a run, in words."""
        return "this is for torch.compile on the pyro backend; on numpyro, JAX always compiles every step"

    @in_turn
    def bytes_written(self, params: Params, data: Native, k: int, b: int) -> int:
        """Bytes of all intermediate results of one reading with K particles and B rows; nothing is computed.

        B is the pair's own if its data plate fixes it.
        """
        self.tracer.prepare(data)
        index = np.zeros(self.tracer.batch_size or b, np.int32)
        run = partial(traced, self, given={}, k=k, kl=True)
        return _bytes(jax.make_jaxpr(run)(params, jax.random.key(0), data, index).jaxpr)

    @in_turn
    def bytes_of_step(self, params: Params, data: Native, k: int, b: int, rematerialise: bool = False) -> int:
        self.tracer.prepare(data)
        index = np.zeros(self.tracer.batch_size or b, np.int32)

        how = Gradients(scored=[], rematerialise=rematerialise)

        def kept(params: Params, key: Array) -> Callable[..., object]:
            def terms(params: Params) -> Tree:
                batch = select(self.tracer, data, index)
                return self.tracer.trace(params, key, batch, index, k, None, True, how)[1:4]

            pull: Callable[..., object] = jax.vjp(terms, params)[1]
            return pull

        found = jax.tree.leaves(jax.eval_shape(kept, params, jax.random.key(0)))
        return at_most([prod(a.shape) * getattr(a.dtype, "itemsize", 8) for a in found])

    def free_bytes(self) -> int | None:
        found = self.device.memory_stats() or {}
        known = self.device.platform != "cpu" and "bytes_limit" in found
        return int(found["bytes_limit"] - found.get("bytes_in_use", 0)) if known else None


def _check_whole(name: str, a: np.ndarray) -> None:
    """Refuse whole numbers of which JAX would keep only the last 32 bits, without a warning."""
    held = jax.dtypes.canonicalize_dtype(a.dtype)
    if a.dtype.kind not in "iu" or held == a.dtype or not a.size:
        return
    if not np.iinfo(held).min <= (far := max(a.max(), a.min(), key=abs)) <= np.iinfo(held).max:
        raise UnsupportedByBackend(
            f"Data {name!r}: got the whole number {far}, but JAX is in 32-bit mode, and would keep only the last 32 "
            "bits. Number the values from 0, or run inside `with jax.enable_x64(True):`, or set JAX_ENABLE_X64=1."
        )


def _bytes(jaxpr: Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        inner = [getattr(v, "jaxpr", v) for v in eqn.params.values() if hasattr(getattr(v, "jaxpr", v), "eqns")]
        total += sum(_bytes(j) for j in inner)
        kept = eqn.outvars if not inner else eqn.outvars[eqn.params.get("num_carry", len(eqn.outvars)) :]  # of a scan
        total += sum(prod(v.aval.shape) * getattr(v.aval.dtype, "itemsize", 8) for v in kept)
    return total
