"""A density written with `xp`, as a NumPyro distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import DTypeLike

from ppdgm.language.vocabulary import Array, Support

_CONSTRAINTS = {
    "real": dist.constraints.real,
    "positive": dist.constraints.positive,
    "unit_interval": dist.constraints.unit_interval,
    "boolean": dist.constraints.boolean,
    "nonnegative_integer": dist.constraints.nonnegative_integer,
}


class JaxRandom:
    """Noise from one key: each call folds its own number into the key."""

    def __init__(self, key: Array, dtype: DTypeLike):
        self.key, self.dtype, self.calls = key, dtype, 0

    def _next(self) -> Array:
        self.calls += 1
        return jax.random.fold_in(self.key, self.calls)

    def normal(self, shape: tuple[int, ...]) -> Array:
        return jax.random.normal(self._next(), shape, self.dtype)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        tiny = jnp.finfo(self.dtype).tiny
        return jax.random.uniform(self._next(), shape, self.dtype, minval=tiny)

    def gumbel(self, shape: tuple[int, ...]) -> Array:
        return jax.random.gumbel(self._next(), shape, self.dtype)

    def gamma(self, concentration: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.gamma(self._next(), jnp.broadcast_to(concentration, shape), shape, self.dtype)

    def poisson(self, rate: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.poisson(self._next(), jnp.broadcast_to(rate, shape), shape).astype(self.dtype)

    def draw(self, d: Any, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
        return draw(d, self._next(), batch_shape)


def draw(d: Any, key: Array, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A draw of a distribution, expanded to the batch shape, and its log-density, in one pass."""
    wide = d.expand(batch_shape)
    value, intermediates = wide(rng_key=key, sample_intermediates=True)
    return value, wide.log_prob(value, intermediates) if intermediates else wide.log_prob(value)


class Density(dist.Distribution):
    """A density written with `xp`. A draw keeps its log-density as its intermediate."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    reparametrized_params: ClassVar[list[str]] = []

    def __init__(
        self,
        sample: Callable[[Any, tuple[int, ...]], tuple[Array, Array | None]],
        log_prob: Callable[[Array], Array],
        event_shape: tuple[int, ...],
        batch_shape: tuple[int, ...],
        dtype: DTypeLike,
        support: Support = "real",
        mean: Callable[[], Array] | None = None,
        mode: Callable[[], Array] | None = None,
        pathwise: bool = True,
        kl: Callable[[Any], Array | None] | None = None,
        about: Mapping[str, Any] | None = None,
        values: Callable[[], Array] | None = None,
        discrete: Any = None,
    ):
        self._sample, self._log_prob, self._dtype = sample, log_prob, dtype
        self._rest = {
            "support": support, "mean": mean, "mode": mode, "pathwise": pathwise, "kl": kl, "about": about,
            "values": values, "discrete": discrete,
        }  # fmt: skip
        self.about, self.closed_form, self.discrete, self.mode_of = about or {}, kl, discrete, mode
        super().__init__(tuple(batch_shape), tuple(event_shape), validate_args=False)

    @property
    def support(self) -> Any:
        kind = self._rest["support"]
        known = _CONSTRAINTS[kind] if isinstance(kind, str) else dist.constraints.integer_interval(*kind)
        return dist.constraints.independent(known, len(self.event_shape))

    @property
    def has_rsample(self) -> bool:
        return bool(self._rest["pathwise"])

    @property
    def has_enumerate_support(self) -> bool:
        return self._rest["values"] is not None

    @property
    def mean(self) -> Array:
        if self._rest["mean"] is None:
            raise NotImplementedError  # the library's own sign for: the mean is not known
        return self._rest["mean"]()

    def expand(self, batch_shape: tuple[int, ...]) -> Density:
        return Density(self._sample, self._log_prob, self.event_shape, tuple(batch_shape), self._dtype, **self._rest)

    def sample_with_intermediates(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, list[Array]]:
        value, log_prob = self._sample(JaxRandom(key, self._dtype), (*sample_shape, *self.batch_shape))
        if not self.has_rsample:
            return jax.lax.stop_gradient(value), []
        return value, [] if log_prob is None else [log_prob]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        value = self.sample_with_intermediates(key, sample_shape)[0]
        return value if self.has_rsample else jax.lax.stop_gradient(value)

    rsample = sample

    def log_prob(self, value: Array, intermediates: list[Array] | None = None) -> Array:
        return intermediates[0] if intermediates else self._log_prob(value)

    def enumerate_support(self, expand: bool = True) -> Array:
        """All values, [S, 1, …, *event_shape]."""
        values = self._rest["values"]()
        values = jnp.reshape(values, (len(values), *(1,) * len(self.batch_shape), *self.event_shape))
        return jnp.broadcast_to(values, (len(values), *self.batch_shape, *self.event_shape)) if expand else values
