"""Data that are missing: which rows of an observed site have a term; and distributions under a mask."""

from __future__ import annotations

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.language.native import Array, Dist, Namespace


def masked(name: str, dist: Dist, obs: Array | None, mask: Array, xp: Namespace) -> Dist:
    """The distribution with log p = 0 for the rows that have no data.

    Args:
        name: of the site.
        dist: its distribution.
        obs: its data.
        mask: [B] or [K, B], True or 1 for rows that have data, False or 0 for others.
        xp: array-API namespace.

    Raises:
        ProgramError: the site is latent, or the mask is not one of rows.
    """
    if obs is None:
        raise ProgramError(
            f"Site {name!r}: mask= is for data that are missing, but the site has no obs=. A latent is drawn for each "
            "row; mask the sites that depend on it."
        )
    shape = tuple(getattr(mask, "shape", ()))
    if not 1 <= len(shape) <= 2:
        raise ProgramError(
            f"Site {name!r}: got a mask of shape {shape}, expected [B] or [K, B], one boolean for each row. For single "
            "numbers of a row, mask the distribution: P.dist.Normal(…).mask(m).to_event(1)."
        )
    return dist.mask(mask if xp.isdtype(mask.dtype, "bool") else mask != 0)  # fields of booleans come as numbers


def wide(obs: Array, dist: Dist, xp: Namespace) -> Array:
    """Data in the batch shape of their distribution, whose support may have its own; unchanged if they do not fit.

    NumPyro's masked distributions need it: they put a point of the support in the place of missing data.
    """
    event = tuple(dist.event_shape)
    try:
        lead = np.broadcast_shapes(tuple(obs.shape)[: obs.ndim - len(event)], tuple(dist.batch_shape))
        np.broadcast_shapes(tuple(obs.shape), (*lead, *event))
    except ValueError:
        return obs  # which is reported
    return xp.broadcast_to(obs, (*lead, *event))


def has_mask(dist: Dist) -> bool:
    """Whether a distribution is one under a mask, or one of such."""
    while type(dist).__name__ in ("Independent", "ExpandedDistribution"):
        dist = dist.base_dist
    return type(dist).__name__ == "MaskedDistribution"
