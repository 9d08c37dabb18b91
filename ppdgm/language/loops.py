"""Loops that end when nothing changes any more."""

from __future__ import annotations

from typing import TypeVar

from ppdgm.language.native import Array, Namespace

Carry = TypeVar("Carry")  # of a loop: an array, or a tuple of arrays


def unchanged(before: Array, after: Array, xp: Namespace) -> Array:
    """Whether all numbers of an array, or of a tuple of arrays, are the same; NaN is the same as NaN."""
    if isinstance(before, tuple):
        return xp.all(xp.stack([unchanged(a, b, xp) for a, b in zip(before, after, strict=True)]))
    return xp.all((before == after) | ((before != before) & (after != after)))
