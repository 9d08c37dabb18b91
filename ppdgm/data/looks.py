"""Whether rows look already scaled: then they must not be scaled again without a warning."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ppdgm.errors import DataError

if TYPE_CHECKING:
    from ppdgm.language.native import Array

SOME, ENOUGH = 1000, 10  # rows that are looked at, and the least number for looking at their spread
FAR, NEAR = 9.0, 0.1  # mean square from which rows are not scaled ones; distance at which scales agree


class Scaling(Protocol):
    """A `Transform` whose `mean` and `scale` are arrays if its kind is "standardise"."""

    @property
    def kind(self) -> str: ...
    @property
    def divisor(self) -> float: ...
    @property
    def mean(self) -> Array: ...
    @property
    def scale(self) -> Array: ...
    @property
    def whole(self) -> bool: ...
    @property
    def level(self) -> float: ...
    @property
    def changes(self) -> bool: ...


def check_own(name: str, transform: Scaling, rows: np.ndarray, ways: str) -> None:
    """Rows without a mark count as the user's own units: refuse scaled rows, and warn if they may be either.

    Args:
        name: of the field.
        transform: of a run.
        rows: [n, *event_shape].
        ways: how the user can say which they are.

    Raises:
        DataError: they look already scaled.
    """
    if why := looks_prepared(transform, rows):
        raise DataError(
            f"Data {name!r}: got rows that look already scaled: {why}. Expected rows in the units of your own data. "
            f"Say which they are: {ways}."
        )
    if may_be_prepared(transform, rows):
        warnings.warn(
            f"Data {name!r}: got rows that may be already scaled or not. They are read in the units of your own data, "
            f"and scaled. Say which they are: {ways}.",
            stacklevel=2,
        )


def looks_prepared(transform: Scaling, rows: np.ndarray) -> str:
    """Why rows seem to be on the scale that a transform gives, or nothing.

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
        return f"they are fractions in [0, 1], but the run's were whole numbers up to {transform.divisor:g}"
    nearer = transform.level and x.mean() > transform.level / np.sqrt(transform.divisor)
    near = transform.level and nearer and x.mean() < transform.level * np.sqrt(transform.divisor)
    return f"they are in [0, 1], but the run's went up to {transform.divisor:g}" if near else ""


def may_be_prepared(transform: Scaling, rows: np.ndarray) -> bool:
    """Whether rows in the user's own units may also be scaled ones, and it would make a difference.

    Args:
        transform: of a run.
        rows: [n, *event_shape], which do not look already scaled.
    """
    x = np.asarray(rows[:SOME], np.float64)
    x = x[np.isfinite(x.reshape(len(x), -1)).all(1)]
    if not x.size:
        return False
    if transform.kind == "standardise":
        return x.shape[1:] == transform.mean.shape and _may_be_standardised(transform, x)
    if not transform.changes or x.min() < 0 or not x.any():
        return False
    if transform.kind == "levels":  # levels of numbers in [0, 1]
        return bool((x == np.rint(x)).all())
    return bool(x.max() <= 1 < transform.divisor)


def _may_be_standardised(transform: Scaling, x: np.ndarray) -> bool:
    """Near 0, moved when they are scaled, and without clearly the spread of the run's own rows."""
    z = ((x - transform.mean) / transform.scale).reshape(len(x), -1)
    x, mean, scale = x.reshape(len(x), -1), transform.mean.ravel(), transform.scale.ravel()
    if (x**2).mean() > FAR or ((z - x) ** 2).mean() < NEAR**2:
        return False
    moves = x.std(0) > 0
    if len(x) < ENOUGH or not moves.any():
        return True
    centre, spread, mean, scale = x.mean(0)[moves], x.std(0)[moves], mean[moves], scale[moves]
    away = lambda shift, ratio: np.median(abs(shift)) + np.median(abs(np.log(ratio)))
    return bool(2 * away((centre - mean) / scale, spread / scale) > away(centre, spread))


def _levels(transform: Scaling, x: np.ndarray) -> str:
    if transform.divisor < 1 and x.max() > 1:
        return "they go beyond 1, but the run's were in [0, 1]"
    fractions = transform.divisor == 1 and (x != np.rint(x)).any()
    return "they are not whole numbers, but the run's were" if fractions else ""


def _standardised(transform: Scaling, x: np.ndarray) -> str:
    """Likely on the scaled range and not on the own one: by each row, or by the means and spreads of several rows."""
    if x.shape[1:] != transform.mean.shape:
        return ""
    z = ((x - transform.mean) / transform.scale).reshape(len(x), -1)
    x, scale = x.reshape(len(x), -1), transform.scale.ravel()
    evidence = 0.5 * (z**2 - x**2).sum(1) + np.log(scale).sum()  # for two normals, for each row
    outside = np.quantile(abs(z), 0.75) > 2 or abs(z).max() > 20  # more than a few outliers
    if (x**2).mean() < 4 and (z**2).mean() > 4 and outside and np.median(evidence) > np.log(100):
        far = np.sqrt((z**2).mean())
        return f"they are {far:.3g} standard deviations from the run's mean, and near 0, like standardised rows"
    moves = (x.std(0) > 0) & (len(x) >= ENOUGH)
    if not moves.any():
        return ""
    spread, centre = x.std(0)[moves], x.mean(0)[moves]
    like_scaled = np.median(abs(np.log(spread))) < np.log(2) and np.median(abs(centre)) < 0.7
    if like_scaled and np.median(abs(np.log(spread / scale[moves]))) > np.log(2.5):
        return "their columns have mean 0 and variance 1, like standardised rows, and not the run's spread"
    return ""
