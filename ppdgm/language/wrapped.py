"""Distributions that are wrapped in others."""

from __future__ import annotations

from ppdgm.language.native import Dist


def inner(dist: Dist) -> Dist:
    """The distribution inside those that plates, masks and events put around it."""
    while type(dist).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution", "Steps"):
        dist = dist.base_dist
    return dist
