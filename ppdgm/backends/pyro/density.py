"""A density written with `xp`, as a Pyro distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import array_api_compat.torch as xp
import pyro.distributions as dist
import torch

from ppdgm.backends.pyro.row_noise import row_noise
from ppdgm.language.density import WrittenDensity
from ppdgm.language.vocabulary import Array, Dist, Namespace

if TYPE_CHECKING:
    from types import ModuleType


class TorchRandom:
    """Noise from torch's generator."""

    def __init__(self, like: dict[str, torch.dtype | torch.device]):
        self.like = like

    def normal(self, shape: tuple[int, ...]) -> Array:
        return torch.randn(shape, **self.like)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        draw = torch.rand(shape, **self.like)  # may be 0
        return draw.clamp(min=torch.finfo(draw.dtype).tiny)

    def gumbel(self, shape: tuple[int, ...]) -> Array:
        draw = torch.empty(shape, **self.like).exponential_()
        return -draw.clamp(min=torch.finfo(draw.dtype).tiny).log()

    def gamma(self, concentration: Array, shape: tuple[int, ...]) -> Array:
        return torch._standard_gamma(torch.broadcast_to(concentration, shape).contiguous())

    def poisson(self, rate: Array, shape: tuple[int, ...]) -> Array:
        return torch.poisson(torch.broadcast_to(rate, shape).contiguous())

    def multinomial(self, total: Array, share: Array, shape: tuple[int, ...]) -> Array:
        """Each number is split between the left and the right half of the classes, again and again, by a binomial."""
        width = share.shape[-1]
        masses = [torch.nn.functional.pad(share, (0, 2 ** (width - 1).bit_length() - width))]
        while masses[-1].shape[-1] > 1:
            masses.append(masses[-1].unflatten(-1, (-1, 2)).sum(-1))
        counts = torch.broadcast_to(total, shape)[..., None]
        for mass, below in zip(masses[:0:-1], masses[-2::-1], strict=True):
            part = below.unflatten(-1, (-1, 2))[..., 0] / torch.where(mass > 0, mass, 1.0)
            wide = torch.broadcast_to(part.clamp(0.0, 1.0), counts.shape).contiguous()
            left = torch.binomial(counts.contiguous(), wide)
            counts = torch.stack([left, counts - left], -1).flatten(-2)
        return counts[..., :width]

    def permutation(self, n: int) -> Array:
        return torch.randperm(n, device=self.like.get("device"))

    def draw(self, d: Dist, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
        return draw(d, batch_shape)


def draw(d: Dist, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A draw of a distribution, expanded to the batch shape, and its log-density, in one pass."""
    noise = row_noise()
    if noise is None:
        return _draw(d, batch_shape)
    with noise.of_sites(batch_shape):
        return _draw(d, batch_shape)


def _draw(d: Dist, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
    wide = d.expand(torch.Size(batch_shape))
    if isinstance(wide, Density):
        return wide.rsample_and_log_prob()
    value = wide.rsample() if wide.has_rsample else wide.sample()
    return value, wide.log_prob(value)


class Density(WrittenDensity, dist.TorchDistribution):
    """A density written with `xp`. It remembers the log-density of its last draw."""

    xp: ClassVar[Namespace] = xp
    constraints: ClassVar[ModuleType] = dist.constraints
    shape_type: ClassVar[type] = torch.Size
    _last: tuple[Array, Array] | None = None

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Array:
        value, log_prob = self._sample(TorchRandom(self._like), (*sample_shape, *self.batch_shape))
        self._last = None if log_prob is None else (value, log_prob)
        return value

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Array:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """A draw and its log-density, in one pass."""
        value, log_prob = self._sample(TorchRandom(self._like), (*sample_shape, *self.batch_shape))
        value = value if self.has_rsample else value.detach()
        return value, self._log_prob(value) if log_prob is None or not self.has_rsample else log_prob

    def log_prob(self, value: Array) -> Array:
        if self._last is not None and self._last[0] is value:
            return self._last[1]
        found = self._log_prob(value)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))  # Pyro's enumeration asks for it
