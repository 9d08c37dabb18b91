"""Supports of NumPyro's distributions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppdgm.language.native import Constraint
from ppdgm.language.supports import Supports
from ppdgm.language.vocabulary import Array, Dist, Namespace


class JaxSupports(Supports):
    """Supports of NumPyro's distributions."""

    xp: ClassVar[Namespace] = jnp
    array: ClassVar[type] = jax.Array
    constraint: ClassVar[type] = constraints.Constraint
    independent: ClassVar[type] = dist.Independent
    expanded: ClassVar[type] = dist.ExpandedDistribution
    masked: ClassVar[type] = dist.MaskedDistribution
    bounds: ClassVar[tuple[type, ...]] = tuple(
        type(c)
        for c in (
            constraints.boolean, constraints.greater_than(0), constraints.greater_than_eq(0), constraints.less_than(0),
            constraints.less_than_eq(0), constraints.interval(0, 1), constraints.open_interval(0, 1),
            constraints.integer_interval(0, 1), constraints.integer_greater_than(0), constraints.nonnegative,
            constraints.softplus_positive,
        )
    )  # fmt: skip
    # A user's distribution may have no support: the libraries' sign, Python's, and NumPyro's assertion around such one.
    unknown: ClassVar[tuple[type[Exception], ...]] = (NotImplementedError, AttributeError, AssertionError)

    def check(self, support: Constraint, value: Array) -> Array:
        return jnp.asarray(support(value))

    def of_each(self, support: Constraint) -> Constraint:
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        return support

    def truth(self, mask: Array | bool, like: Array) -> Array:
        return jnp.asarray(mask)

    def is_field(self, value: Array, x: Array) -> bool:
        return value is x


SUPPORTS = JaxSupports()
confine = SUPPORTS.confine


def is_masked(d: Dist) -> bool:
    """Whether a distribution is masked, or its single numbers are."""
    while isinstance(d, dist.Independent):
        d = d.base_dist
    return isinstance(d, dist.MaskedDistribution)


def observe(d: Dist, value: Array, log_prob: Callable[[], Array]) -> Array:
    """log p of data: −∞ outside a support that has parameters. Outside any other, a row was refused before."""
    with warnings.catch_warnings() if d._validate_args else nullcontext():
        if d._validate_args:
            warnings.filterwarnings("ignore", "Out-of-support")
        found = log_prob()
    if next(SUPPORTS.arrays(SUPPORTS.of(SUPPORTS.inner(d))), None) is None:
        return found
    there = SUPPORTS.inside(d, value, SUPPORTS.in_support)
    return found if there is None else jnp.where(there, found, -jnp.inf)
