"""A program on a JAX device: its data and parameters, its readings as NumPy arrays, its training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from math import prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from ppdgm.backends.numpyro.chains import nuts
from ppdgm.backends.numpyro.keys import make_key
from ppdgm.backends.numpyro.pair import PairTracer
from ppdgm.backends.numpyro.support import describe, rows_inside, within
from ppdgm.backends.numpyro.tracer import JaxStep, JaxTracer, select
from ppdgm.errors import PpdgmError, UnsupportedByBackend
from ppdgm.language import mistakes
from ppdgm.language.reader import Gradients, Observed, Seen
from ppdgm.language.runtime import Arrays, Native, Question, traced
from ppdgm.language.runtime import Runtime as AnyRuntime
from ppdgm.language.step import check_found
from ppdgm.language.terms import split
from ppdgm.language.tracer import Params
from ppdgm.language.vocabulary import Array, Trace

if version("jaxlib") == "0.10.2":  # pip does not install it with ppdgm, but a user may install it later
    warnings.warn(
        "jaxlib 0.10.2 computes wrong sums on CPU for tens of thousands of rows (jax issue 39103), so numbers of large "
        "batches can't be trusted. Install another version: pip install 'jax!=0.10.2' 'jaxlib!=0.10.2'",
        RuntimeWarning,
        stacklevel=2,
    )


def find_device(name: str) -> Any:
    """The JAX device of a name: "auto", "cpu", "cuda" or "cuda:1"."""
    if name == "auto":
        return jax.devices()[0]
    kind, _, index = name.partition(":")
    try:
        return jax.devices({"cuda": "gpu"}.get(kind, kind))[int(index or 0)]
    except (RuntimeError, IndexError, ValueError):
        found = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        raise PpdgmError(f"No device {name!r} for JAX. Found: {found}. For a GPU: pip install 'ppdgm[cuda]'.") from None


class Runtime(AnyRuntime):
    """Runs one program with JAX.

    Args:
        program: a Program or a plain pair.
        device: "auto", "cpu", "cuda", "cuda:1".
    """

    name: ClassVar[str] = "numpyro"
    xp: ClassVar[Any] = jnp

    def __init__(self, program: Any, device: str = "auto"):
        self.device = find_device(device)
        is_pair = hasattr(program, "data_plate")
        self.tracer: JaxTracer | PairTracer = PairTracer(program) if is_pair else JaxTracer(program)
        self._compiled: dict[Callable[..., Any], Any] = {}

    def ask(self, question: Question, params: Params, seed: tuple[int, ...] | None, *at: Any, **how: Any) -> Any:
        if question not in self._compiled:
            self._compiled[question] = jax.jit(partial(question, self), static_argnames=tuple(how))
        key = None if seed is None else make_key(*seed)
        return self.fetch(self._compiled[question](params, key, *at, **how))

    def index(self, rows: np.ndarray) -> Array:
        return jax.device_put(np.asarray(rows, np.int32), self.device)

    def select(self, data: Native, index: Array) -> Native:
        return dict(select(self.tracer, data, index))

    def rows_inside(self, site: Seen) -> Array:
        return rows_inside(site)

    def initialise(self, seed: int, data: Arrays, dtype: str) -> dict[str, np.ndarray]:
        """First values of all parameters."""
        values: dict[str, np.ndarray] = self.tracer.initialise(seed, data, dtype)
        return values

    def prepare(self, data: Arrays) -> None:
        """Let a plain pair be analysed with data; nothing for a program."""
        self.tracer.prepare(data)

    def put(self, arrays: Arrays, dtype: str | None = None) -> dict[str, Array]:
        """Arrays on the device; floating ones as `dtype`."""
        cast = lambda a: a.astype(dtype) if dtype and np.issubdtype(a.dtype, np.floating) else a
        host = {n: cast(np.asarray(a)) for n, a in arrays.items()}
        if any(a.dtype == np.float64 for a in host.values()) and jnp.result_type(float) != np.float64:
            raise UnsupportedByBackend(
                "Got float64 arrays, but JAX is in 32-bit mode and would round them. Run inside `with "
                "jax.enable_x64(True):`, or set JAX_ENABLE_X64=1."
            )
        for name, a in host.items():
            _check_whole(name, a)
        return {n: jax.device_put(a, self.device) for n, a in host.items()}

    def fetch(self, arrays: Any) -> Any:
        """Device arrays as NumPy arrays."""
        return jax.tree.map(np.asarray, jax.device_get(arrays))

    def glance(self, params: Any, data: Any, index: np.ndarray, k: int, given: Arrays) -> Trace:
        """Terms of a few rows as in `trace`, step by step: nothing is compiled."""
        native, key = self.put(given, None), jax.random.key(0)
        found: Trace = self.fetch(traced(self, params, key, data, self.index(index), native, k, False))
        return found

    def joint(
        self, params: Any, data: Any, index: np.ndarray, given: Arrays, temperature: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """log p(z) and log p(x|z) at given latents, [K, B], and the gradient of log p(z) + τ · log p(x|z) by them.

        Args:
            given: latents [K, B, *event].
            temperature: τ, [K, B] or [].
        """
        tau = jnp.asarray(temperature, self._floating(params))
        found: Any = self.ask(_slopes, params, None, data, self.index(index), self.put(given), tau)
        return found

    def refine(
        self, params: Any, data: Any, start: Arrays, draws: int, warmup: int, seed: int
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Draws of one row's latents from the posterior by NumPyro's NUTS; `start` [chains, *event].

        Returns:
            Draws [chains, draws, *event] by site, and statistics [chains, draws].
        """
        index = self.index(np.zeros(1, int))
        found: Any = self.ask(_chains, params, (seed,), data, index, self.put(start), draws=draws, warmup=warmup)
        return found

    def check_walked(self, params: Any, data: Any, index: np.ndarray) -> None:
        """Refuse latents that Hamiltonian Monte Carlo can't move."""
        how = Gradients(relaxed=False, scored=[], walked=True)
        rows = self.index(index)
        run = lambda p: self.tracer.trace(p, jax.random.key(0), select(self.tracer, data, rows), rows, 1, gradients=how)
        mistakes.check_drawn(jax.eval_shape(run, params))

    def sites(
        self, params: Any, fields: Mapping[str, Any], given: Arrays | None, size: int, apart: bool = False
    ) -> tuple[dict[str, tuple[tuple[int, ...], str]], list[str]]:
        """Shape and type of each site's draws in `conditioned`, and the held sites; without `given`, in `prior`.

        Nothing is computed.
        """
        run, native = partial(self.tracer.prior, size=size, mean=False, apart=apart), self.fields(fields)
        held_at = None if given is None else self.put(given)
        latents, observed, held = jax.eval_shape(run, params, jax.random.key(0), native, given=held_at)
        return {n: (tuple(v.shape), str(v.dtype)) for n, v in (latents | observed).items()}, list(held)

    def validate(self, params: Any, data: Any, k: int, b: int) -> Trace:
        """One reading, step by step, with NumPyro's checks of arguments and values on."""
        index = np.arange(b) % len(next(iter(data.values())))
        with numpyro.validation_enabled(), warnings.catch_warnings():
            warnings.filterwarnings("error", "Out-of-support")  # NumPyro's only warning about such values
            return traced(self, params, jax.random.key(0), data, self.index(index), {}, k, False)

    def observed(self, params: Any, data: Any, index: np.ndarray, seed: int) -> list[Observed]:
        """What is known about each observed site; arrays are computed only for the bounds of supports."""
        found: list[Observed] = []

        def look(params: Any) -> Any:
            batch, rows = select(self.tracer, data, self.index(index)), self.index(index)
            sites = self.tracer.observed(params, make_key(seed), batch, rows)
            found[:] = [describe(site, batch) for site in sites]
            return [o.bounds for o in found]

        with numpyro.validation_enabled():
            if not any(jax.eval_shape(look, params)):
                return list(found)
            bounds = self.fetch(jax.jit(look)(params))
        return [replace(o, bounds=b) for o, b in zip(found, bounds, strict=True)]

    def within(self, support: Any, rows: np.ndarray) -> np.ndarray:
        """Whether all numbers of each row are in a support that has no arrays, [N]."""
        found: np.ndarray = within(support, rows)
        return found

    def noise(self, params: Any, data: Any, index: np.ndarray) -> str:
        """What to do about random numbers from outside the sample sites; "" if none count.

        A program that uses P has no key for any.
        """
        if not isinstance(self.tracer, PairTracer):
            return ""
        rows = self.index(index)
        return self.tracer.noise(params, select(self.tracer, data, rows), rows)

    def model_noise(self, params: Any, fields: Mapping[str, Any], size: int) -> str:
        """The same for draws from the model; for a plain pair, with its guide."""
        if not isinstance(self.tracer, PairTracer):
            return ""
        return self.noise(params, self.fields(fields), np.arange(size))

    def rehearse(
        self, engine: Any, params: Any, data: Any, b: int, plan: Any, data_size: int
    ) -> tuple[list[str], list[str]]:
        """The objective of each phase as in training, only to find its errors; nothing is computed."""
        index = self.index(np.arange(b) % len(next(iter(data.values()))))
        scored: list[str] = []
        names: list[str] = []

        def run(params: Any, j: int, engine: Any) -> None:
            batch, now = select(self.tracer, data, index), jax.tree.map(lambda v: jnp.asarray(v[0]), plan[j])
            step = JaxStep(self.tracer, params, jax.random.key(0), batch, index, jnp.ones(b), now, data_size)
            names.extend(check_found(type(engine).__name__, engine.objective(step)))
            scored.extend(step.scored)

        for j, phase in enumerate(engine.phases()):
            jax.eval_shape(partial(run, j=j, engine=phase.engine), params)
        return scored, list(dict.fromkeys(names))

    def why_not_compiled(self, engine: Any, optimiser: Any) -> str:
        """Why torch.compile can't take the steps of a run, in words."""
        return "this is for torch.compile on the pyro backend; on numpyro, JAX always compiles every step"

    def batch_statistics(self, params: Any, data: Any, b: int) -> str | None:
        """What in the program's modules depends on the rows of a minibatch: nothing, because they keep no state."""
        return None

    def bytes_written(self, params: Any, data: Any, k: int, b: int) -> int:
        """Bytes of all intermediate results of one reading with K particles and B rows; nothing is computed.

        B is the pair's own if its data plate fixes it.
        """
        self.tracer.prepare(data)
        index = jnp.zeros(self.tracer.batch_size or b, jnp.int32)
        run = partial(traced, self, given={}, k=k, kl=True)
        return _bytes(jax.make_jaxpr(run)(params, jax.random.key(0), data, index).jaxpr)

    def _floating(self, params: Any) -> Any:
        return next((v.dtype for v in params.values() if jnp.issubdtype(v.dtype, jnp.floating)), np.float32)


def _slopes(runtime: AnyRuntime, params: Any, _: None, data: Any, index: Array, given: Any, temperature: Array) -> Any:
    batch = runtime.select(data, index)
    whole = {n: v for n, v in given.items() if not jnp.issubdtype(v.dtype, jnp.floating)}  # these have no slopes

    def tempered(z: Any) -> Any:
        every = {n: whole.get(n, z.get(n)) for n in given}
        prior, seen = split(runtime.tracer.model(params, batch, index, every), every)
        return (prior + temperature * seen).sum(), (prior, seen)

    moved = {n: v for n, v in given.items() if n not in whole}
    slopes, (prior, seen) = jax.grad(tempered, has_aux=True)(moved)
    return prior, seen, slopes | {n: jnp.zeros_like(v) for n, v in whole.items()}


def _chains(
    runtime: AnyRuntime, params: Any, key: Array, data: Any, index: Array, start: Any, draws: int, warmup: int
) -> Any:
    batch = runtime.select(data, index)

    def log_density(z: Any) -> Array:
        return sum(v.sum() for v in runtime.tracer.model(params, batch, index, _lone(z)).values())

    return nuts(log_density, start, key, draws, warmup)


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


def _lone(z: Mapping[str, Array]) -> dict[str, Array]:
    """One particle of one row, [1, 1, *event]."""
    return {n: v[None, None] for n, v in z.items()}


def _bytes(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        inner = [getattr(v, "jaxpr", v) for v in eqn.params.values() if hasattr(getattr(v, "jaxpr", v), "eqns")]
        total += sum(_bytes(j) for j in inner)
        if not inner:
            total += sum(prod(v.aval.shape) * getattr(v.aval.dtype, "itemsize", 8) for v in eqn.outvars)
    return total
