"""Bits per dimension, for densities of whole numbers."""

from __future__ import annotations

from math import log


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """−nats / (D ln 2): how many bits a code of the model needs for each number. Theis et al. 2016, arXiv:1511.01844.

    Args:
        nats: log P(x) of a row of D whole numbers, or a bound on it; arrays too.
        dimensions: D.
    """
    return -nats / (dimensions * log(2))
