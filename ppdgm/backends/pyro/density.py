"""A density written with `xp`, as a Pyro distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pyro.distributions as dist
import torch

from ppdgm.language.vocabulary import Array, Support

_CONSTRAINTS = {
    "real": dist.constraints.real,
    "positive": dist.constraints.positive,
    "unit_interval": dist.constraints.unit_interval,
    "boolean": dist.constraints.boolean,
    "nonnegative_integer": dist.constraints.nonnegative_integer,
}


class TorchRandom:
    """Noise from torch's generator."""

    def __init__(self, like: dict[str, Any]):
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

    def draw(self, d: Any, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
        return draw(d, batch_shape)


def draw(d: Any, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A draw of a distribution, expanded to the batch shape, and its log-density, in one pass."""
    wide = d.expand(torch.Size(batch_shape))
    if isinstance(wide, Density):
        return wide.rsample_and_log_prob()
    value = wide.rsample() if wide.has_rsample else wide.sample()
    return value, wide.log_prob(value)


class Density(dist.TorchDistribution):
    """A density written with `xp`. It remembers the log-density of its last draw."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        sample: Callable[[Any, tuple[int, ...]], tuple[Array, Array | None]],
        log_prob: Callable[[Array], Array],
        event_shape: tuple[int, ...],
        batch_shape: tuple[int, ...],
        like: dict[str, Any],
        support: Support = "real",
        mean: Callable[[], Array] | None = None,
        mode: Callable[[], Array] | None = None,
        pathwise: bool = True,
        kl: Callable[[Any], Array | None] | None = None,
        about: Mapping[str, Any] | None = None,
        values: Callable[[], Array] | None = None,
        discrete: Any = None,
    ):
        self._sample, self._log_prob, self._like = sample, log_prob, like
        self._rest = {
            "support": support, "mean": mean, "mode": mode, "pathwise": pathwise, "kl": kl, "about": about,
            "values": values, "discrete": discrete,
        }  # fmt: skip
        self.about, self.closed_form, self.discrete, self.mode_of = about or {}, kl, discrete, mode
        self._last: tuple[Array, Array] | None = None
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

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

    def expand(self, batch_shape: tuple[int, ...], _instance: Any = None) -> Density:
        # Pyro's own wrapper reshapes draws, and so they would lose their remembered density.
        return Density(self._sample, self._log_prob, self.event_shape, tuple(batch_shape), self._like, **self._rest)

    def rsample(self, sample_shape: Any = ()) -> Array:
        value, log_prob = self._sample(TorchRandom(self._like), (*sample_shape, *self.batch_shape))
        self._last = None if log_prob is None else (value, log_prob)
        return value

    def sample(self, sample_shape: Any = ()) -> Array:
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

    def enumerate_support(self, expand: bool = True) -> Array:
        """All values, [S, 1, …, *event_shape]."""
        values = self._rest["values"]()
        values = values.reshape(len(values), *(1,) * len(self.batch_shape), *self.event_shape)
        return values.expand(len(values), *self.batch_shape, *self.event_shape) if expand else values
