"""Whether rows look as if they were scaled already: then they must not be scaled again in silence."""

from __future__ import annotations

from typing import Any

import numpy as np

SOME = 1000  # rows that are looked at


def looks_prepared(transform: Any, rows: np.ndarray) -> str:
    """What speaks for rows being on the scale that a transform leads to, or nothing.

    Args:
        transform: of a run.
        rows: [n, *event_shape], said to be in the user's own units.
    """
    x = np.asarray(rows[:SOME], np.float64)
    x = x[np.isfinite(x.reshape(len(x), -1)).all(1)]
    if not x.size:
        return ""
    if transform.kind == "standardise":
        return _standardised(transform, x)
    if transform.kind == "levels":
        return _levels(transform, x)
    if transform.kind != "unit" or transform.divisor < 4 or not x.any() or x.min() < 0 or x.max() > 1:
        return ""
    if transform.whole and (x != np.rint(x)).any():
        return f"they are fractions in [0, 1], where the run's were whole numbers up to {transform.divisor:g}"
    nearer = transform.level and x.mean() > transform.level / np.sqrt(transform.divisor)
    near = transform.level and nearer and x.mean() < transform.level * np.sqrt(transform.divisor)
    return f"they are in [0, 1], where the run's went up to {transform.divisor:g}" if near else ""


def _levels(transform: Any, x: np.ndarray) -> str:
    if transform.divisor < 1 and x.max() > 1:
        return "they go beyond 1, where the run's were in [0, 1]"
    fractions = transform.divisor == 1 and (x != np.rint(x)).any()
    return "they are no whole numbers, as the run's were" if fractions else ""


def _standardised(transform: Any, x: np.ndarray) -> str:
    """In the scaled range, far outside the own one, and a normal of the first is 100 times as likely for each row."""
    if x.shape[1:] != transform.mean.shape:
        return ""
    z = (x - transform.mean) / transform.scale
    evidence = 0.5 * (z**2 - x**2).reshape(len(x), -1).sum(1) + np.log(transform.scale).sum()
    if (x**2).mean() < 4 and (z**2).mean() > 4 and np.median(evidence) > np.log(100):
        far = np.sqrt((z**2).mean())
        return f"they are {far:.1f} standard deviations from the run's mean, and near 0, as standardised rows are"
    return ""
