"""Whether data are in the supports of Pyro's distributions, row by row; masked rows count as inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch.distributions import constraints

from ppdgm.backends.pyro.density import Density
from ppdgm.language.reader import Observed, Seen
from ppdgm.language.vocabulary import Array

_BOUNDS = tuple(
    type(c)
    for c in (
        constraints.boolean, constraints.greater_than(0), constraints.greater_than_eq(0), constraints.less_than(0),
        constraints.interval(0, 1), constraints.half_open_interval(0, 1), constraints.integer_interval(0, 1),
        constraints.nonnegative_integer,
    )
)  # fmt: skip


def describe(seen: Seen, batch: Mapping[str, Array], checked: bool) -> Observed:
    """What is known about a site.

    Args:
        seen: the site.
        batch: contains the rows.
        checked: whether distributions check their values, unless the program turned this off: validate_args=False
            means that data outside the support are allowed, such as grey values of a Bernoulli.
    """
    inner, masked = _inner(seen.dist), seen.mask is not None
    off = checked and not inner._validate_args and not isinstance(inner, Density)
    support = None if off else support_of(inner)
    wrapped = seen.dist
    while wrapped is not inner:
        masked, wrapped = masked or isinstance(wrapped, dist.MaskedDistribution), wrapped.base_dist
    field = next((n for n, x in batch.items() if _same(seen.value, x)), None)
    bounds = tuple(_arrays(support))
    text = type(support).__name__.strip("_") if bounds else f"{support}"
    shape = tuple(seen.value.shape[1:])
    return Observed(seen.name, field, shape, support, bounds, f"{type(inner).__name__}, {text}", masked)


def within(support: Any, value: Array) -> Array:
    """Whether all numbers of each row are in a support, [N]."""
    return support.check(value).reshape(len(value), -1).all(-1)


def rows_inside(seen: Seen) -> Array:
    """Whether each row is in the site's support, [B]."""
    found = inside(seen.dist, seen.value, _in_support)
    if found is None:
        found = torch.ones((1,), dtype=torch.bool, device=seen.value.device)
    return seen.rows(found if seen.mask is None else found | ~torch.as_tensor(seen.mask, device=found.device))


def inside(d: Any, value: Array, ask: Callable[[Any, Array], Array | None]) -> Array | None:
    """The answer of `ask` for the inner distribution, in the batch shape of the whole; None if that isn't known."""
    if isinstance(d, ExpandedDistribution):
        return inside(d.base_dist, value, ask)
    if isinstance(d, dist.MaskedDistribution):
        found = inside(d.base_dist, value, ask)
        return None if found is None or d._mask is False else found | ~torch.as_tensor(d._mask, device=found.device)
    if isinstance(d, torch.distributions.Independent):
        found = inside(d.base_dist, value, ask)
        n = d.reinterpreted_batch_ndims
        return found.flatten(-n).all(-1) if found is not None and n else found
    return ask(d, value)


def observe(d: Any, value: Array, log_prob: Callable[[Any, Array], Array]) -> Array:
    """log p of data: −∞ outside a support that has parameters. Outside any other, a row was refused before."""
    found = log_prob(_unchecked(d) if d._validate_args else d, value)
    there = inside(d, value, _between)
    return found if there is None else torch.where(there, found, -torch.inf)


def confine(d: Any, value: Array, log_prob: Array) -> Array:
    """log p of a latent at the guide's draw: −∞ outside bounds of its support, where formulas still give numbers."""
    there = inside(d, value, _in_bounds)
    return log_prob if there is None else torch.where(there, log_prob, -torch.inf)


def _in_bounds(d: Any, value: Array) -> Array | None:
    """Whether numbers are within bounds, each separately: a sum of 1, for example, has rounding errors."""
    support = support_of(d)
    base = support
    while isinstance(base, constraints.independent):
        base = base.base_constraint
    return support.check(value) if isinstance(base, _BOUNDS) else None


def _between(d: Any, value: Array) -> Array | None:
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


def _in_support(d: Any, value: Array) -> Array | None:
    support = support_of(d)
    return None if support is None else support.check(value)


def _unchecked(d: Any) -> Any:
    """The same distribution, but it accepts any value."""
    other = copy(d)
    other.__dict__ |= {n: _unchecked(v) for n, v in vars(d).items() if isinstance(v, torch.distributions.Distribution)}
    other._validate_args = False
    return other


def support_of(d: Any) -> Any:
    """A distribution's support, unless it is all real numbers, or not known."""
    try:
        support = d.support
    except (NotImplementedError, AttributeError):  # torch's signs for: it is not known
        return None
    base = support
    while isinstance(base, constraints.independent):
        base = base.base_constraint
    unknown = base is None or constraints.is_dependent(base) or type(base) is type(constraints.real)
    return None if unknown else support


def _inner(d: Any) -> Any:
    while isinstance(d, torch.distributions.Independent | ExpandedDistribution | dist.MaskedDistribution):
        d = d.base_dist
    return d


def _arrays(part: Any) -> Iterator[Array]:
    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, constraints.Constraint):
        yield from (a for v in vars(part).values() for a in _arrays(v))
    elif isinstance(part, list | tuple):
        yield from (a for v in part for a in _arrays(v))


def _same(value: Array, x: Array) -> bool:
    """Whether a value is a field of the data, perhaps in another shape."""
    alike = value.ndim > 0 and value.dtype == x.dtype and value.numel() == x.numel() and len(value) == len(x)
    return alike and value.data_ptr() == x.data_ptr() and value.is_contiguous() and x.is_contiguous()
