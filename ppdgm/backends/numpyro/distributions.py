"""NumPyro's distributions as programs see them, with what must not differ from Pyro put right."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as native

from ppdgm.language import Array


class BernoulliLogits(native.BernoulliLogits):
    """NumPyro's, but for two things: values are floating, as Pyro's, and the gradient is right at logits of 0.

    NumPyro scores with clip(h, 0) + log1p(exp(−|h|)) − xh, of which JAX takes the derivative −x at h = 0, not σ(0) − x:
    the first gradient of a decoder whose last layer starts from zeros is wrong by half a unit per pixel.
    """

    def log_prob(self, value: Array) -> Array:
        """x h − log(1 + exp h)."""
        if self._validate_args:
            self._validate_sample(value)
        return _log_prob(self.logits, jnp.asarray(value, jnp.result_type(self.logits)))  # whole numbers have no tangent

    def enumerate_support(self, expand: bool = True) -> Array:
        return super().enumerate_support(expand).astype(jnp.result_type(self.logits))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return super().sample(key, sample_shape).astype(jnp.result_type(self.logits))


def _score(logits: Array, value: Array) -> Array:
    # The form without overflow that XLA's CPU runs fastest; its derivative is written out below.
    return value * logits - jnp.clip(logits, 0) - jnp.log1p(jnp.exp(-jnp.abs(logits)))


def _score_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    logits, value = primals
    small = jnp.exp(-jnp.abs(logits))  # shared with the value, which a call of jax.nn.sigmoid would not be
    mean = jnp.where(logits >= 0, 1.0, small) / (1.0 + small)
    return _score(logits, value), (value - mean) * tangents[0] + logits * tangents[1]


_log_prob = jax.custom_jvp(_score)
_log_prob.defjvp(_score_jvp)


class Distributions:
    """`numpyro.distributions`, with the classes of this file in the place of its own."""

    @staticmethod
    def Bernoulli(probs: Any = None, logits: Any = None, **options: Any) -> Any:
        """Bernoulli by probabilities or by logits."""
        return native.Bernoulli(probs, **options) if logits is None else BernoulliLogits(logits, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(native, name)
