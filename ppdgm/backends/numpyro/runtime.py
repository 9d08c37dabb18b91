"""A program on a JAX device: its data and parameters, its readings as NumPy arrays, its training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from ppdgm.backends.numpyro.chains import nuts
from ppdgm.backends.numpyro.keys import make_key
from ppdgm.backends.numpyro.pair import PairTracer
from ppdgm.backends.numpyro.support import describe, rows_inside, within
from ppdgm.backends.numpyro.tracer import ProgramTracer, make_tracing, model_at, select
from ppdgm.errors import PpdgmError, UnsupportedByBackend
from ppdgm.language import mistakes
from ppdgm.language.interpreter import Gradients, Observed, split
from ppdgm.language.step import check_told, knobs_of
from ppdgm.language.vocabulary import Array, Trace

Arrays = Mapping[str, np.ndarray]


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


class Runtime:
    """Runs one program with JAX.

    Args:
        program: a Program or a plain pair.
        device: "auto", "cpu", "cuda", "cuda:1".
    """

    name = "numpyro"

    def __init__(self, program: Any, device: str = "auto"):
        self.device = find_device(device)
        self.tracer: Any = PairTracer(program) if hasattr(program, "data_plate") else ProgramTracer(program)
        self._trace = jax.jit(self.trace_native, static_argnames=("k", "kl"))
        self._evaluate = jax.jit(self._evaluated, static_argnames=("function", "k", "kl"))
        self._draws = jax.jit(self._drawn, static_argnames="k")
        self._means = jax.jit(self._at_means)
        self._guide = jax.jit(self._at_given)
        self._joint = jax.jit(self._slopes)
        self._decoded = jax.jit(self._at_latents)
        self._refine = jax.jit(self._chains, static_argnames=("draws", "warmup"))
        self._predictive = jax.jit(self._predicted)
        self._inside = jax.jit(self._rows_inside)
        self.facts: list[Observed] | None = None  #: of the observed sites, once they are known
        own = () if isinstance(self.tracer, PairTracer) else ("apart",)
        self._prior = jax.jit(self.tracer.prior, static_argnames=("size", "mean", *own))

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

    def trace(
        self, params: Any, data: Any, index: np.ndarray, k: int, seed: int, given: Arrays | None, kl: bool
    ) -> Trace:
        """The per-site terms as NumPy arrays."""
        native = self.put(given or {}, None)
        found: Trace = self.fetch(self._trace(params, make_key(seed), data, self._index(index), native, k=k, kl=kl))
        return found

    def glance(self, params: Any, data: Any, index: np.ndarray, k: int, given: Arrays) -> Trace:
        """Terms of a few rows as in `trace`, step by step: nothing is compiled."""
        native, key = self.put(given, None), jax.random.key(0)
        found: Trace = self.fetch(self.trace_native(params, key, data, self._index(index), native, k, False))
        return found

    def evaluate(
        self,
        function: Callable[[Trace, Any], Array],
        params: Any,
        data: Any,
        index: np.ndarray,
        k: int,
        seed: tuple[int, ...],
        kl: bool,
    ) -> np.ndarray:
        """`function(trace, xp)` [K, B], as a NumPy array."""
        out: np.ndarray = self.fetch(
            self._evaluate(params, make_key(*seed), data, self._index(index), function=function, k=k, kl=kl)
        )
        return out

    def draws(
        self, params: Any, data: Any, index: np.ndarray, k: int, seed: int, given: Arrays | None = None
    ) -> dict[str, np.ndarray]:
        """Latents drawn from the guide, [K, B, *event], except those that are given."""
        held = self.put(given or {})
        drawn = self._draws(params, make_key(seed), data, self._index(index), held, k=k)
        found: dict[str, np.ndarray] = self.fetch(drawn)
        return found

    def means(self, params: Any, data: Any, index: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Latent and observed sites at their means, [1, B, *event]."""
        found: tuple[Any, Any] = self.fetch(self._means(params, data, self._index(index), {}))
        return found

    def seen_at(self, params: Any, data: Any, index: np.ndarray, latents: Arrays) -> dict[str, np.ndarray]:
        """Observed sites at their means given the data and all latents of the guide, [1, B, *event]."""
        found: dict[str, np.ndarray] = self.fetch(self._means(params, data, self._index(index), self.put(latents))[1])
        return found

    def guide(self, params: Any, data: Any, index: np.ndarray, given: Arrays) -> np.ndarray:
        """log q(z|x) at given latents [K, B or 1, *event], [K, B]."""
        found: np.ndarray = self.fetch(self._guide(params, data, self._index(index), self.put(given)))
        return found

    def joint(
        self, params: Any, data: Any, index: np.ndarray, given: Arrays, heat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """log p(z) and log p(x|z) at given latents, [K, B], and the gradient of log p(z) + heat · log p(x|z) by them.

        Args:
            given: latents [K, B, *event].
            heat: [K, B] or [].
        """
        heated = jnp.asarray(heat, self._floating(params))
        found: Any = self.fetch(self._joint(params, data, self._index(index), self.put(given), heated))
        return found

    def predictive(self, params: Any, data: Any, index: np.ndarray, given: Arrays, seed: int) -> dict[str, np.ndarray]:
        """Observed sites drawn from the model at given latents, [K, B, *event]."""
        if not hasattr(self.tracer, "predictive"):
            raise UnsupportedByBackend(mistakes.NO_PREDICTIVE)
        drawn = self._predictive(params, make_key(seed), data, self._index(index), self.put(given))
        found: dict[str, np.ndarray] = self.fetch(drawn)
        return found

    def decoded(self, params: Any, data: Any, index: np.ndarray, given: Arrays) -> dict[str, np.ndarray]:
        """Observed sites at their means given some latents, [1, B, *event]."""
        if not hasattr(self.tracer, "decoded"):
            raise UnsupportedByBackend(mistakes.NO_PREDICTIVE)
        found: dict[str, np.ndarray] = self.fetch(self._decoded(params, data, self._index(index), self.put(given)))
        return found

    def refine(
        self, params: Any, data: Any, start: Arrays, draws: int, warmup: int, seed: int
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Draws of one row's latents from the posterior by NumPyro's NUTS; `start` [chains, *event].

        Returns:
            Draws [chains, draws, *event] by site, and statistics [chains, draws].
        """
        index, key = self._index(np.zeros(1, int)), make_key(seed)
        found: Any = self.fetch(self._refine(params, data, index, self.put(start), key, draws=draws, warmup=warmup))
        return found

    def check_walked(self, params: Any, data: Any, index: np.ndarray) -> None:
        """Refuse latents that Hamiltonian Monte Carlo can't move."""
        how = Gradients(relaxed=False, scored=[], walked=True)
        rows = self._index(index)
        run = lambda p: self.tracer.trace(p, jax.random.key(0), select(self.tracer, data, rows), rows, 1, gradients=how)
        mistakes.check_drawn(jax.eval_shape(run, params))

    def prior(self, params: Any, fields: Mapping[str, Any], size: int, seed: int, mean: bool) -> tuple[Any, Any]:
        """Draws of latent and observed sites from the model, [1, size, *event], with the data `fields`."""
        native = self._fields(fields)
        found: tuple[Any, Any] = self.fetch(self._prior(params, make_key(seed), native, size=size, mean=mean)[:2])
        return found

    def conditioned(
        self,
        params: Any,
        fields: Mapping[str, Any],
        given: Arrays,
        size: int,
        seed: int,
        mean: bool,
        apart: bool = False,
    ) -> tuple[Any, Any, Any]:
        """The same with sites held at `given` [1, size, *event] and at data in `fields`; and the log p of those sites.

        If these are known to be `apart` from the sites drawn before them, they may come after those.
        """
        native, held = self._fields(fields), self.put(given)
        known = {"apart": True} if apart else {}  # only a program has this
        found: Any = self.fetch(self._prior(params, make_key(seed), native, size=size, mean=mean, given=held, **known))
        return found

    def sites(
        self, params: Any, fields: Mapping[str, Any], given: Arrays | None, size: int, apart: bool = False
    ) -> tuple[dict[str, tuple[tuple[int, ...], str]], list[str]]:
        """Shape and type of each site's draws in `conditioned`, and the held sites; without `given`, in `prior`.

        Nothing is computed.
        """
        known = {"apart": True} if apart else {}
        run, native = partial(self.tracer.prior, size=size, mean=False, **known), self._fields(fields)
        held_at = None if given is None else self.put(given)
        latents, observed, held = jax.eval_shape(run, params, jax.random.key(0), native, given=held_at)
        return {n: (tuple(v.shape), str(v.dtype)) for n, v in (latents | observed).items()}, list(held)

    def _fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Data on the device; None for fields that are not given."""
        native = self.put({n: v for n, v in fields.items() if v is not None})
        return {n: native.get(n) for n in fields}

    def validate(self, params: Any, data: Any, k: int, b: int) -> Trace:
        """One reading, step by step, with NumPyro's checks of arguments and values on."""
        index = np.arange(b) % len(next(iter(data.values())))
        with numpyro.validation_enabled(), warnings.catch_warnings():
            warnings.filterwarnings("error", "Out-of-support")  # NumPyro's only warning about such values
            return self.trace_native(params, jax.random.key(0), data, self._index(index), given={}, k=k, kl=False)

    def observed(self, params: Any, data: Any, index: np.ndarray, seed: int) -> list[Observed]:
        """What is known about each observed site; arrays are computed only for the bounds of supports."""
        found: list[Observed] = []

        def look(params: Any) -> Any:
            batch, rows = select(self.tracer, data, self._index(index)), self._index(index)
            sites = self.tracer.observed(params, make_key(seed), batch, rows)
            found[:] = [describe(site, batch) for site in sites]
            return [o.bounds for o in found]

        with numpyro.validation_enabled():
            if not any(jax.eval_shape(look, params)):
                return list(found)
            bounds = self.fetch(jax.jit(look)(params))
        return [replace(o, bounds=b) for o, b in zip(found, bounds, strict=True)]

    def inside(self, params: Any, data: Any, index: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Whether the value of each observed site is in its support, given a draw of the guide, [B]."""
        found: dict[str, np.ndarray] = self.fetch(self._inside(params, make_key(seed), data, self._index(index)))
        return found

    def within(self, support: Any, rows: np.ndarray) -> np.ndarray:
        """Whether all numbers of each row are in a support that has no arrays, [N]."""
        found: np.ndarray = within(support, rows)
        return found

    def noise(self, params: Any, data: Any, index: np.ndarray) -> str:
        """What to do about random numbers from outside the sample sites; "" if none count.

        A program that uses P has no key for any.
        """
        if not hasattr(self.tracer, "noise"):
            return ""
        rows = self._index(index)
        found: str = self.tracer.noise(params, select(self.tracer, data, rows), rows)
        return found

    def model_noise(self, params: Any, fields: Mapping[str, Any], size: int) -> str:
        """The same for draws from the model; for a plain pair, with its guide."""
        if not hasattr(self.tracer, "noise"):
            return ""
        return self.noise(params, self._fields(fields), np.arange(size))

    def rehearse(
        self, engine: Any, params: Any, data: Any, b: int, knobs: Mapping[str, np.ndarray], data_size: int
    ) -> list[str]:
        """The objective of each phase as in training, only to find its errors; nothing is computed.

        Returns:
            The sites whose draws carry no gradient.
        """
        index = self._index(np.arange(b) % len(next(iter(data.values()))))
        now = {n: jnp.asarray(v[0]) for n, v in knobs.items()}

        scored: list[str] = []
        metrics = engine.metrics

        def run(params: Any, j: int, engine: Any) -> None:
            batch = select(self.tracer, data, index)
            tracing = make_tracing(self.tracer, engine, params, jax.random.key(0), batch, index)
            check_told(engine, metrics, engine.objective(tracing, jnp.ones(b), knobs_of(now, j), data_size))
            scored.extend(tracing.scored)

        for j, phase in enumerate(engine.phases()):
            jax.eval_shape(partial(run, j=j, engine=phase.engine), params)
        return scored

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
        run = partial(self.trace_native, given={}, k=k, kl=True)
        return _bytes(jax.make_jaxpr(run)(params, jax.random.key(0), data, index).jaxpr)

    def _index(self, index: np.ndarray) -> Array:
        return jax.device_put(np.asarray(index, np.int32), self.device)

    def trace_native(self, params: Any, key: Array, data: Any, index: Array, given: Any, k: int, kl: bool) -> Trace:
        """The per-site terms as JAX arrays; to be jitted."""
        found: Trace = self.tracer.trace(params, key, select(self.tracer, data, index), index, k, given, kl)
        return found

    def _evaluated(
        self,
        params: Any,
        key: Array,
        data: Any,
        index: Array,
        function: Callable[..., Array],
        k: int,
        kl: bool,
    ) -> Array:
        terms = self.tracer.trace(params, key, select(self.tracer, data, index), index, k, None, kl)
        return function(terms, jnp)

    def _rows_inside(self, params: Any, key: Array, data: Any, index: Array) -> Any:
        sites = self.tracer.observed(params, key, select(self.tracer, data, index), index)
        return {s.name: rows_inside(s) for s in sites}

    def _drawn(self, params: Any, key: Array, data: Any, index: Array, given: Any, k: int) -> Any:
        return self.tracer.draws(params, key, select(self.tracer, data, index), index, k, given)

    def _at_given(self, params: Any, data: Any, index: Array, given: Any) -> Array:
        batch, k = select(self.tracer, data, index), len(next(iter(given.values())))
        given = {n: jnp.broadcast_to(v, (k, len(index), *v.shape[2:])) for n, v in given.items()}
        if hasattr(self.tracer, "guide"):
            terms = self.tracer.guide(params, batch, index, given)
        else:
            terms = self.tracer.trace(params, jax.random.key(0), batch, index, k, given).log_q
        return sum(terms.values())

    def _slopes(self, params: Any, data: Any, index: Array, given: Any, heat: Array) -> Any:
        batch = select(self.tracer, data, index)

        whole = {n: v for n, v in given.items() if not jnp.issubdtype(v.dtype, jnp.floating)}  # these have no slopes

        def tempered(z: Any) -> Any:
            every = {n: whole.get(n, z.get(n)) for n in given}
            prior, seen = split(model_at(self.tracer, params, batch, index, every), every)
            return (prior + heat * seen).sum(), (prior, seen)

        moved = {n: v for n, v in given.items() if n not in whole}
        slopes, (prior, seen) = jax.grad(tempered, has_aux=True)(moved)
        return prior, seen, slopes | {n: jnp.zeros_like(v) for n, v in whole.items()}

    def _at_latents(self, params: Any, data: Any, index: Array, given: Any) -> Any:
        return self.tracer.decoded(params, select(self.tracer, data, index), index, given)

    def _chains(self, params: Any, data: Any, index: Array, start: Any, key: Array, draws: int, warmup: int) -> Any:
        batch = select(self.tracer, data, index)

        def log_density(z: Any) -> Array:
            return sum(v.sum() for v in model_at(self.tracer, params, batch, index, _lone(z)).values())

        return nuts(log_density, start, key, draws, warmup)

    def _predicted(self, params: Any, key: Array, data: Any, index: Array, given: Any) -> Any:
        return self.tracer.predictive(params, key, select(self.tracer, data, index), index, given)

    def _floating(self, params: Any) -> Any:
        return next((v.dtype for v in params.values() if jnp.issubdtype(v.dtype, jnp.floating)), np.float32)

    def _at_means(self, params: Any, data: Any, index: Array, given: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = self.tracer.means(params, select(self.tracer, data, index), index, given)
        return found


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
