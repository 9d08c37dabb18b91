"""Pyro's distributions, corrected where they must not differ from NumPyro's, for programs and for plain pairs."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import array_api_compat.torch as xp
import pyro.distributions as native
import torch
from torch.distributions import Distribution, constraints

from ppdgm.language import density
from ppdgm.language.native import Constraint
from ppdgm.language.vocabulary import Array, Dist, Namespace

# Densities at the ends of their supports: torch leaves out one end, or computes 0 · log 0 there.


class Uniform(native.Uniform):
    """Pyro's, also at the upper end."""

    mends = native.Uniform

    def log_prob(self, value: Array) -> Array:
        """−log(b − a) from a to b."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.where((self.low <= value) & (value <= self.high), -torch.log(self.high - self.low), -torch.inf)


class Weibull(density.WeibullEnds, native.Weibull):
    """Pyro's, also at 0."""

    xp: ClassVar[Namespace] = xp
    mends = native.Weibull
    support = constraints.nonnegative


class Kumaraswamy(density.KumaraswamyEnds, native.Kumaraswamy):
    """Pyro's, also at 0 and 1."""

    xp: ClassVar[Namespace] = xp
    mends = native.Kumaraswamy


class OrderedLogistic(density.OrderedLogits, native.OrderedLogistic):
    """Pyro's, also far from the cut points."""

    xp: ClassVar[Namespace] = xp
    mends = native.OrderedLogistic


class RowMultinomial(native.TorchDistribution):
    """Counts with a total for each row, which Pyro's Multinomial does not accept.

    Args:
        total_count: n, [*batch], whole numbers.
        probs: p, [*batch, D]; or `logits`.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}

    def __init__(
        self,
        total_count: Array,
        probs: Array | None = None,
        logits: Array | None = None,
        validate_args: bool | None = None,
    ):
        categorical = torch.distributions.Categorical(probs=probs, logits=logits)
        shape = torch.broadcast_shapes(total_count.shape, categorical.batch_shape)
        self.total_count, self._categorical = total_count.expand(shape), categorical.expand(shape)
        super().__init__(shape, categorical.param_shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)  # type: ignore[untyped-decorator]  # torch's own
    def support(self) -> Constraint:
        return constraints.multinomial(self.total_count)

    @property
    def probs(self) -> Array:
        return self._categorical.probs

    @property
    def mean(self) -> Array:
        return self.probs * self.total_count.unsqueeze(-1)

    def expand(self, batch_shape: tuple[int, ...], _instance: RowMultinomial | None = None) -> RowMultinomial:
        logits = self._categorical.logits
        return RowMultinomial(self.total_count.expand(batch_shape), logits=logits, validate_args=self._validate_args)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Array:
        """One share after the other, each binomial among the counts that are left."""
        with torch.no_grad():
            probs = self.probs.expand(*sample_shape, *self.probs.shape)
            left = self.total_count.expand(probs.shape[:-1]).to(probs.dtype)
            rest, found = torch.ones_like(left), []
            for p in probs.unbind(-1)[:-1]:
                found.append(torch.binomial(left, (p / rest.clamp(min=torch.finfo(p.dtype).tiny)).clamp(0.0, 1.0)))
                left, rest = left - found[-1], rest - p
            return torch.stack([*found, left], -1)

    def log_prob(self, value: Array) -> Array:
        """log n! − Σ log x! + Σ x log p; −∞ if the counts do not add up to n."""
        if self._validate_args:
            self._validate_sample(value)
        x, logits = torch.broadcast_tensors(value, self._categorical.logits)
        form = torch.lgamma(x.sum(-1) + 1.0) - torch.lgamma(x + 1.0).sum(-1)
        form = form + torch.where(x == 0, 0.0, x * logits).sum(-1)
        return torch.where(x.sum(-1) == self.total_count, form, -torch.inf)


def multinomial(
    total_count: Array | int = 1,
    probs: Array | None = None,
    logits: Array | None = None,
    validate_args: bool | None = None,
) -> Dist:
    """Multinomial with one total, or with one for each row."""
    kind = RowMultinomial if isinstance(total_count, torch.Tensor) and total_count.ndim else native.Multinomial
    return kind(total_count, probs, logits, validate_args)


_MENDED: dict[type, type] = {m.mends: m for m in (Uniform, Weibull, Kumaraswamy, OrderedLogistic)}


def mended(d: Dist) -> Dist:
    """A distribution of the user's; Pyro's classes, also inside it, are replaced by those of this file."""
    return density.mend(d, _MENDED, Distribution)


DISTRIBUTIONS = ModuleType(native.__name__)  #: `pyro.distributions`, with the above; torch.compile sees into a module
vars(DISTRIBUTIONS).update({n: v for n, v in vars(native).items() if not n.startswith("__")})
vars(DISTRIBUTIONS).update({m.__name__: m for m in _MENDED.values()}, Multinomial=multinomial)
