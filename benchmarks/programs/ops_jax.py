"""The operations of `losses.py` in JAX. Weights of linear layers are [in, out], as in ppdgm."""

from collections.abc import Callable
from math import log
from typing import Any

import jax
import jax.numpy as jnp

Params = dict[str, Any]


class JaxOps:
    """What somebody who knows JAX would write. Noise comes from the step's key."""

    xp = jnp
    stop = staticmethod(jax.lax.stop_gradient)
    relu, sigmoid, silu = staticmethod(jax.nn.relu), staticmethod(jax.nn.sigmoid), staticmethod(jax.nn.silu)
    softplus, log_softmax = staticmethod(jax.nn.softplus), staticmethod(jax.nn.log_softmax)
    logsumexp = staticmethod(jax.nn.logsumexp)

    def __init__(self, key: Any):
        self.key = key

    def _next(self) -> Any:
        self.key, key = jax.random.split(self.key)
        return key

    def normal(self, shape: tuple[int, ...]) -> Any:
        return jax.random.normal(self._next(), shape)

    def gumbel(self, shape: tuple[int, ...]) -> Any:
        return jax.random.gumbel(self._next(), shape)

    def flips(self, probabilities: Any) -> Any:
        return jax.random.bernoulli(self._next(), probabilities).astype(jnp.float32)

    @staticmethod
    def concat(parts: list[Any]) -> Any:
        return jnp.concatenate(parts, -1)

    def constant(self, value: Any) -> Any:
        return jnp.asarray(value, jnp.float32)

    def linear(self, p: Params, name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

    def bernoulli(self, logits: Any, x: Any) -> Any:
        """log p(x) of each row. `clip` and not `maximum`, whose gradient splits ties in two."""
        log_normaliser = jnp.clip(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
        return (logits * x - log_normaliser).sum(-1)

    def conv(self, p: Params, name: str, x: Any) -> Any:
        """A 4×4 convolution of stride 2."""
        out = jax.lax.conv_general_dilated(x, p[f"{name}.weight"], (2, 2), ((1, 1), (1, 1)))
        return out + p[f"{name}.bias"][:, None, None]

    def convolved(self, p: Params, name: str, x: Any, pads: Any = ((0, 0), (0, 0))) -> Any:
        """A convolution of stride 1."""
        out = jax.lax.conv_general_dilated(x, p[f"{name}.weight"], (1, 1), pads)
        return out + p[f"{name}.bias"][:, None, None]

    permuted = staticmethod(jnp.transpose)

    def transposed(self, p: Params, name: str, x: Any) -> Any:
        """Its transpose, with weights [in, out, 4, 4]."""
        kernel = jnp.flip(jnp.swapaxes(p[f"{name}.weight"], 0, 1), (2, 3))
        out = jax.lax.conv_general_dilated(x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2))
        return out + p[f"{name}.bias"][:, None, None]

    def doubly(self, p: Params, draw: Callable[..., Any], weigh: Callable[..., Any]) -> Any:
        """−IWAE, whose gradient through each draw is weighted twice: one pass through `draw` and `weigh`, and back.

        Args:
            p: the parameters.
            draw: p -> (z [K, B, D], what `weigh` needs of q).
            weigh: (p, z, q) -> log-weights [K, B].
        """

        def forward(p: Params) -> tuple[Any, Params]:
            z, back, q = jax.vjp(draw, p, has_aux=True)
            log_w, pull = jax.vjp(lambda p, z: weigh(p, z, q), p, z)
            w = jax.nn.softmax(log_w, 0)
            model, through = pull(-w / w.shape[1])
            (guide,) = back(w[..., None] * through)
            return -(jax.nn.logsumexp(log_w, 0) - log(len(w))).mean(), jax.tree.map(jnp.add, model, guide)

        loss = jax.custom_vjp(lambda p: forward(p)[0])
        loss.defvjp(forward, lambda slope, g: (jax.tree.map(lambda v: g * v, slope),))
        return loss(p)
