"""One program on one backend: its readings and gradients as functions of NumPy arrays, in float64 or float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.inference import SVI
from ppdgm.language.vocabulary import Array, Namespace, Trace
from ppdgm.registry import backend as load_backend

if TYPE_CHECKING:
    from ppdgm.language.runtime import Fields
    from ppdgm.program import AnyProgram

Arrays = Mapping[str, np.ndarray]
CHUNK = 2**14  #: number of values that are scored at once


class Bench:
    """One program on one backend.

    Args:
        program: a Program.
        backend: its name.
        params: float64 values of its parameters.
        seed: the seed of every draw.

    Raises:
        UnsupportedByBackend: the program does not run there.
    """

    def __init__(self, program: AnyProgram, backend: str, params: Arrays, seed: int):
        self.program, self.backend, self.seed = program, backend, seed
        self.module = load_backend(backend)
        self.runtime = self.module.Runtime(program, "cpu", None)
        first = self.runtime.initialise(
            seed, cast("Arrays", None), "float64"
        )  # the first values of a program without data
        self.params = {n: params.get(n, v) for n, v in first.items()}

    def _put(self, arrays: Arrays, dtype: str) -> dict[str, Array]:
        native: dict[str, Array] = self.runtime.put({n: np.asarray(a) for n, a in arrays.items()}, dtype)
        return native

    def trace(
        self,
        data: Arrays,
        k: int,
        values: Arrays | None = None,
        kl: bool = False,
        dtype: str = "float64",
        params: Arrays | None = None,
    ) -> Trace:
        """The terms at given values, or at draws if none are given."""
        with self.module.precision(dtype):
            index = np.arange(len(next(iter(data.values()))))
            given = {n: np.asarray(v).astype(dtype) for n, v in (values or {}).items()}
            found: Trace = self.runtime.trace(
                self._put(params or self.params, dtype), self._put(data, dtype), index, k, self.seed, given, kl
            )
        return found

    def score(self, data: Arrays, z: np.ndarray, dtype: str = "float64") -> np.ndarray:
        """log q(z) [n, B], for any number of values [n, B, *event] of the site "z"."""
        n, padding = len(z), -len(z) % CHUNK
        z = np.concatenate([z, np.repeat(z[-1:], padding, axis=0)])
        starts = range(0, len(z), CHUNK)
        parts = [self.trace(data, CHUNK, {"z": z[i : i + CHUNK]}, dtype=dtype).log_q["z"] for i in starts]
        return np.concatenate(parts)[:n].astype(float)

    def draws(self, data: Arrays, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws of the site "z" and their log-densities: [K, B, *event], [K, B]."""
        terms = self.trace(data, k)
        return terms.values["z"], terms.log_q["z"].astype(float)

    def means(self, data: Arrays, dtype: str = "float64") -> dict[str, np.ndarray]:
        """The means of the observed sites, [B, *event]."""
        return self.both(data, dtype)[1]

    def both(self, data: Arrays, dtype: str = "float64") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The means of latents, and the means of observed sites given them, [B, *event]."""
        with self.module.precision(dtype):
            index = np.arange(len(next(iter(data.values()))))
            found = self.runtime.means(self._put(self.params, dtype), self._put(data, dtype), index)
        latents, observed = ({n: v[0] for n, v in sites.items()} for sites in found)
        return latents, observed

    def generate(self, fields: Fields, size: int) -> dict[str, np.ndarray]:
        """Data drawn from the model, [size, *event]."""
        params = self._put(self.params, "float32")
        _, observed = self.runtime.prior(params, fields, size, self.seed, False)
        return {n: np.asarray(v[0], np.float32) for n, v in observed.items()}

    def differentiable(
        self, function: Callable[[Trace, Namespace], Array], k: int, kl: bool = False, dtype: str = "float64"
    ) -> Callable[..., tuple[float, dict[str, dict[str, np.ndarray]]]]:
        """`run(data, values, params)`: the value and gradients of a function of a reading, as in training."""
        run = self.module.differentiable(self.runtime, function, k, self.seed, kl)
        cast = lambda arrays: {
            n: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a for n, a in arrays.items()
        }

        def on_numpy(
            data: Arrays, values: Arrays | None = None, params: Arrays | None = None
        ) -> tuple[float, dict[str, dict[str, np.ndarray]]]:
            with self.module.precision(dtype):
                return run(cast(self.params if params is None else params), cast(data), cast(values or {}))

        return on_numpy


def objective(trace: Trace, xp: Namespace) -> Array:
    """What SVI maximises, with closed forms where they are valid."""
    terms = next(iter(trace.log_p.values()))
    ones = xp.ones_like(terms[0])
    return SVI()(trace, xp, ones, {"beta": 1.0}, terms.shape[1])["objective"]


def guide_log_density(trace: Trace, xp: Namespace) -> Array:
    """Σ log q of the site "z"."""
    return xp.sum(trace.log_q["z"])


def against_standard(trace: Trace, xp: Namespace) -> Array:
    """Σ log N(z; 0, I) − log q of the site "z"."""
    return xp.sum(trace.log_p["z"] - trace.log_q["z"])
