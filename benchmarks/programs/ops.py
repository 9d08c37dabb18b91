"""The few operations that losses by hand need, as each library calls them. Weights are [in, out], as in ppdgm."""

from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.nn import functional as F

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

    def transposed(self, p: Params, name: str, x: Any) -> Any:
        """Its transpose, with weights [in, out, 4, 4]."""
        kernel = jnp.flip(jnp.swapaxes(p[f"{name}.weight"], 0, 1), (2, 3))
        out = jax.lax.conv_general_dilated(x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2))
        return out + p[f"{name}.bias"][:, None, None]


class TorchOps:
    """What somebody who knows torch would write. Noise comes from torch's generator."""

    xp = torch
    relu, sigmoid, silu = staticmethod(torch.relu), staticmethod(torch.sigmoid), staticmethod(F.silu)
    softplus, logsumexp = staticmethod(F.softplus), staticmethod(torch.logsumexp)

    def __init__(self, device: str = "cpu"):
        self.device = device

    @staticmethod
    def stop(x: Any) -> Any:
        return x.detach()

    @staticmethod
    def log_softmax(x: Any) -> Any:
        return F.log_softmax(x, -1)

    def normal(self, shape: tuple[int, ...]) -> Any:
        return torch.randn(shape, device=self.device)

    def gumbel(self, shape: tuple[int, ...]) -> Any:
        return -torch.empty(shape, device=self.device).exponential_().log()

    def constant(self, value: Any) -> Any:
        return torch.as_tensor(value, dtype=torch.float32, device=self.device)

    def linear(self, p: Params, name: str, x: Any) -> Any:
        return F.linear(x, p[f"{name}.weight"].T, p[f"{name}.bias"])

    def bernoulli(self, logits: Any, x: Any) -> Any:
        return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)

    def conv(self, p: Params, name: str, x: Any) -> Any:
        return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], 2, 1)

    def transposed(self, p: Params, name: str, x: Any) -> Any:
        return F.conv_transpose2d(x, p[f"{name}.weight"], p[f"{name}.bias"], 2, 1)
