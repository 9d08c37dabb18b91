"""Supports of Pyro's distributions."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import ClassVar

import array_api_compat.torch as xp
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch.distributions import constraints

from ppdgm.language.native import Constraint
from ppdgm.language.supports import Supports
from ppdgm.language.vocabulary import Array, Dist, Namespace


class TorchSupports(Supports):
    """Supports of torch's and Pyro's distributions."""

    xp: ClassVar[Namespace] = xp
    array: ClassVar[type] = torch.Tensor
    constraint: ClassVar[type] = constraints.Constraint
    independent: ClassVar[type] = torch.distributions.Independent
    expanded: ClassVar[type] = ExpandedDistribution
    masked: ClassVar[type] = dist.MaskedDistribution
    bounds: ClassVar[tuple[type, ...]] = tuple(
        type(c)
        for c in (
            constraints.boolean, constraints.greater_than(0), constraints.greater_than_eq(0), constraints.less_than(0),
            constraints.interval(0, 1), constraints.half_open_interval(0, 1), constraints.integer_interval(0, 1),
            constraints.nonnegative_integer,
        )
    )  # fmt: skip
    # A user's distribution may have no support: the libraries' sign, and Python's.
    unknown: ClassVar[tuple[type[Exception], ...]] = (NotImplementedError, AttributeError)

    def check(self, support: Constraint, value: Array) -> Array:
        return support.check(torch.as_tensor(value))

    def of_each(self, support: Constraint) -> Constraint:
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        return support

    def truth(self, mask: Array | bool, like: Array) -> Array:
        return torch.as_tensor(mask, device=like.device)

    def is_field(self, value: Array, x: Array) -> bool:
        """Also in another shape."""
        alike = value.ndim > 0 and value.dtype == x.dtype and value.numel() == x.numel() and len(value) == len(x)
        return alike and value.data_ptr() == x.data_ptr() and value.is_contiguous() and x.is_contiguous()


SUPPORTS = TorchSupports()
confine = SUPPORTS.confine


def observe(d: Dist, value: Array, log_prob: Callable[[Dist, Array], Array]) -> Array:
    """log p of data: −∞ outside a support that has parameters. Outside any other, a row was refused before."""
    value = _filled(d, value)
    found = log_prob(_unchecked(d) if d._validate_args else d, value)
    there = SUPPORTS.inside(d, value, _between)
    return found if there is None else torch.where(there, found, -torch.inf)


def _filled(d: Dist, value: Array) -> Array:
    """Data in which masked values are some point of the support: the gradient of 0 · log p(NaN) would be NaN."""
    if isinstance(d, dist.MaskedDistribution) and isinstance(d._mask, torch.Tensor):
        return _filled(d.base_dist, filled(d, value, d._mask))
    return _filled(d.base_dist, value) if isinstance(d, torch.distributions.Independent) else value


def filled(d: Dist, value: Array, mask: Array) -> Array:
    """Data in which values are some point of the support where the mask [*batch] is False."""
    return torch.where(mask.reshape(*mask.shape, *(1,) * len(d.event_shape)), value, _point_of(d, value))


def _point_of(d: Dist, value: Array) -> Array:
    """A point of a distribution's support, of the shape of an event."""
    zeros = lambda shape: torch.zeros(shape, dtype=value.dtype, device=value.device)
    try:
        support = d.support
        if not support.is_discrete:
            to = torch.distributions.transform_to(support)
            return to(zeros(to.inverse_shape(d.event_shape)))
    except SUPPORTS.unknown:
        return zeros(d.event_shape)
    if support is constraints.one_hot:
        return torch.eye(d.event_shape[-1], dtype=value.dtype, device=value.device)[0]
    return zeros(d.event_shape) + getattr(SUPPORTS.of_each(support), "lower_bound", 0)


def _between(d: Dist, value: Array) -> Array | None:
    """Whether a value is within bounds that are parameters, if log_prob gives numbers beyond them; None for others.

    Written out here, because torch.compile can't look into constraints.
    """
    if isinstance(d, dist.Binomial | dist.BetaBinomial):
        return (value >= 0) & (value <= d.total_count)
    if isinstance(d, dist.DirichletMultinomial):
        return (value >= 0).all(-1) & (value.sum(-1) == d.total_count)
    if isinstance(d, dist.GeneralizedPareto):
        return (value >= d.loc) & (d.concentration * (value - d.loc) / d.scale > -1)
    if isinstance(d, dist.AffineBeta):
        return (value >= d.low) & (value <= d.high)
    return value >= d.scale if isinstance(d, dist.Pareto) else None


def _unchecked(d: Dist) -> Dist:
    """The same distribution, but it accepts any value."""
    other = copy(d)
    other.__dict__ |= {n: _unchecked(v) for n, v in vars(d).items() if isinstance(v, torch.distributions.Distribution)}
    other._validate_args = False
    return other
