"""Whether data are in the supports of NumPyro's distributions, row by row; masked rows count as inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppdgm.backends.numpyro.density import Density
from ppdgm.language.reader import Observed, Seen
from ppdgm.language.vocabulary import Array

_BOUNDS = tuple(
    type(c)
    for c in (
        constraints.boolean, constraints.greater_than(0), constraints.greater_than_eq(0), constraints.less_than(0),
        constraints.less_than_eq(0), constraints.interval(0, 1), constraints.open_interval(0, 1),
        constraints.integer_interval(0, 1), constraints.integer_greater_than(0), constraints.nonnegative,
        constraints.softplus_positive,
    )
)  # fmt: skip


def describe(seen: Seen, batch: Mapping[str, Array]) -> Observed:
    """What is known about a site if NumPyro's checks are on; with validate_args=False, any data are allowed.

    Args:
        seen: the site.
        batch: contains the rows.
    """
    inner, masked = _inner(seen.dist), seen.mask is not None
    off = not inner._validate_args and not isinstance(inner, Density)
    support = None if off else support_of(inner)
    wrapped = seen.dist
    while wrapped is not inner:
        masked, wrapped = masked or isinstance(wrapped, dist.MaskedDistribution), wrapped.base_dist
    field = next((n for n, x in batch.items() if seen.value is x), None)
    bounds, shape = tuple(_arrays(support)), tuple(jnp.shape(seen.value)[1:])
    text = type(support).__name__.strip("_") if bounds else f"{support}"
    return Observed(seen.name, field, shape, support, bounds, f"{type(inner).__name__}, {text}", masked)


def within(support: Any, value: Array) -> Array:
    """Whether all numbers of each row are in a support, [N]."""
    return np.asarray(support(value)).reshape(len(value), -1).all(-1)


def rows_inside(seen: Seen) -> Array:
    """Whether each row is in the site's support, [B]."""
    found = inside(seen.dist, seen.value)
    return seen.rows(jnp.ones((1,), bool) if found is None else found)


def inside(d: Any, value: Array, bounds: bool = False) -> Array | None:
    """Whether a value is in the support, in the distribution's batch shape; None if that isn't known.

    With `bounds`, only for supports that bound each number separately: a sum of 1, for example, has rounding errors.
    """
    if isinstance(d, dist.ExpandedDistribution):
        return inside(d.base_dist, value, bounds)
    if isinstance(d, dist.MaskedDistribution):
        found = inside(d.base_dist, value, bounds)
        return None if found is None or d._mask is False else found | ~jnp.asarray(d._mask)
    if isinstance(d, dist.Independent):
        found = inside(d.base_dist, value, bounds)
        return found if found is None else jnp.all(found, axis=tuple(range(-d.reinterpreted_batch_ndims, 0)))
    support = support_of(d)
    if support is None or (bounds and not isinstance(_base(support), _BOUNDS)):
        return None
    return jnp.asarray(support(value))


def confine(d: Any, value: Array, log_prob: Array) -> Array:
    """log p of a latent at the guide's draw: −∞ outside bounds of its support, where formulas still give numbers."""
    there = inside(d, value, bounds=True)
    return log_prob if there is None else jnp.where(there, log_prob, -jnp.inf)


def observe(d: Any, value: Array, log_prob: Callable[[], Array]) -> Array:
    """log p of data: −∞ outside a support that has parameters. Outside any other, a row was refused before."""
    with warnings.catch_warnings() if d._validate_args else nullcontext():
        if d._validate_args:
            warnings.filterwarnings("ignore", "Out-of-support")
        found = log_prob()
    if next(_arrays(support_of(_inner(d))), None) is None:
        return found
    there = inside(d, value)
    return found if there is None else jnp.where(there, found, -jnp.inf)


def support_of(d: Any) -> Any:
    """A distribution's support, unless it is all real numbers, or not known."""
    try:
        support = d.support
    except (NotImplementedError, AttributeError, AssertionError):  # NumPyro's signs for: it is not known
        return None
    base = _base(support)
    unknown = base is None or type(base).__name__ in ("_Dependent", "dependent_property", "_Real")
    return None if unknown else support


def _base(support: Any) -> Any:
    """The support of each single number."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _inner(d: Any) -> Any:
    while isinstance(d, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        d = d.base_dist
    return d


def _arrays(part: Any) -> Iterator[Array]:
    if isinstance(part, jax.Array):
        yield part
    elif isinstance(part, constraints.Constraint):
        yield from (a for v in vars(part).values() for a in _arrays(v))
    elif isinstance(part, list | tuple):
        yield from (a for v in part for a in _arrays(v))
