"""A density written with `xp`, as a NumPyro distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import DTypeLike

from ppdgm.backends.numpyro.indices import drawn
from ppdgm.language.density import WrittenDensity
from ppdgm.language.vocabulary import Array, Dist, Namespace

if TYPE_CHECKING:
    from types import ModuleType


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

    def multinomial(self, total: Array, share: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.multinomial(self._next(), total, share, shape=(*shape, share.shape[-1]), dtype=self.dtype)

    def permutation(self, n: int) -> Array:
        return jax.random.permutation(self._next(), n)

    def draw(self, d: Dist, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
        return draw(d, self._next(), batch_shape)


def draw(d: Dist, key: Array, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A draw of a distribution, expanded to the batch shape, and its log-density, in one pass."""
    wide = d.expand(batch_shape)
    value, intermediates = drawn(wide, rng_key=key)
    return value, wide.log_prob(value, intermediates) if intermediates else wide.log_prob(value)


class Density(WrittenDensity, dist.Distribution):
    """A density written with `xp`. A draw keeps its log-density as its intermediate."""

    xp: ClassVar[Namespace] = jnp
    constraints: ClassVar[ModuleType] = dist.constraints
    reparametrized_params: ClassVar[list[str]] = []

    def sample_with_intermediates(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, list[Array]]:
        value, log_prob = self._sample(JaxRandom(key, self._like), (*sample_shape, *self.batch_shape))
        if not self.has_rsample:
            return jax.lax.stop_gradient(value), []
        return value, [] if log_prob is None else [log_prob]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        value = self.sample_with_intermediates(key, sample_shape)[0]
        return value if self.has_rsample else jax.lax.stop_gradient(value)

    rsample = sample

    def log_prob(self, value: Array, intermediates: list[Array] | None = None) -> Array:
        return intermediates[0] if intermediates else self._log_prob(value)
