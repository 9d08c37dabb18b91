"""The spread of results over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppdgm.specs import Table

SEED = "training.seed"
_NUMBERS = ("validation", "elbo", "bits_per_dimension")


def spread_of(pages: Sequence[Table]) -> dict[str, dict[str, float]]:
    """The mean and the standard deviation over runs of the numbers that they all have."""
    found = {}
    for name in _NUMBERS:
        values = [page.get(name) for page in pages if not page.get("error")]
        numbers = [float(v) for v in values if isinstance(v, int | float)]
        if len(numbers) == len(values) > 1:
            found[name] = {"mean": statistics.fmean(numbers), "sd": statistics.stdev(numbers), "runs": len(numbers)}
    return found
