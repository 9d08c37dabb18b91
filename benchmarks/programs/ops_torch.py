"""The operations of `losses.py` in torch. Weights of linear layers are [in, out], as in ppdgm."""

from collections.abc import Callable
from math import log
from typing import Any

import torch
from torch.nn import functional as F

Params = dict[str, Any]


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

    @staticmethod
    def flips(probabilities: Any) -> Any:
        return torch.bernoulli(probabilities)

    @staticmethod
    def concat(parts: list[Any]) -> Any:
        return torch.cat(parts, -1)

    def constant(self, value: Any) -> Any:
        return torch.as_tensor(value, dtype=torch.float32, device=self.device)

    def linear(self, p: Params, name: str, x: Any) -> Any:
        return F.linear(x, p[f"{name}.weight"].T, p[f"{name}.bias"])

    def bernoulli(self, logits: Any, x: Any) -> Any:
        return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)

    def conv(self, p: Params, name: str, x: Any) -> Any:
        return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], 2, 1)

    def convolved(self, p: Params, name: str, x: Any, pads: Any = ((0, 0), (0, 0))) -> Any:
        """A convolution of stride 1."""
        (top, bottom), (left, right) = pads
        even = top == bottom and left == right
        x, padding = (x, (top, left)) if even else (F.pad(x, (left, right, top, bottom)), 0)
        return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], 1, padding)

    permuted = staticmethod(torch.permute)

    def transposed(self, p: Params, name: str, x: Any) -> Any:
        return F.conv_transpose2d(x, p[f"{name}.weight"], p[f"{name}.bias"], 2, 1)

    @staticmethod
    def doubly(p: Params, draw: Callable[..., Any], weigh: Callable[..., Any]) -> Any:
        """−IWAE, whose gradient through each draw is weighted twice, by a hook; arguments as in `ops_jax.py`."""
        z, q = draw(p)
        log_w = weigh(p, z, [v.detach() for v in q])
        w = torch.softmax(log_w.detach(), 0)
        if z.requires_grad:
            z.register_hook(lambda slope: w[..., None] * slope)
        return -(torch.logsumexp(log_w, 0) - log(len(w))).mean()
