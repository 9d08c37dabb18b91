"""Prior and posterior predictive checks: do data drawn from the model look like the real data?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import checked
from ppdgm.errors import DataError, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

ALARM = 0.01  # rate at which a right model is called wrong

Statistic = Callable[[np.ndarray], float | np.ndarray]

STATISTICS: dict[str, Statistic] = {
    "mean": lambda x: np.mean(x, dtype=np.float64),
    "standard deviation": lambda x: np.std(x, dtype=np.float64),
    "minimum": np.min,
    "maximum": np.max,
    "share of zeros": lambda x: np.mean(x == 0),
}


@dataclass(frozen=True)
class PredictiveCheck:
    """One statistic, of the data and of data sets drawn from the model.

    Attributes:
        name: the name of the statistic.
        observed: its value for the data.
        replicated: its value for each drawn data set, [S].
        p: two-sided, 2 min(P(T ≥ t), P(T ≤ t)), at most 1. If it is near 0, the model hardly ever draws such data.
        adjusted: p for all statistics together: the probability that any of them is as far off.
    """

    name: str
    observed: float
    replicated: np.ndarray
    p: float
    adjusted: float

    @property
    def odd(self) -> bool:
        """Whether this check calls the model wrong: `adjusted` is at most 0.01."""
        return self.adjusted <= ALARM

    @property
    def enough(self) -> bool:
        """Whether there are enough data sets for that, 99 or more."""
        return 1 / (1 + len(self.replicated)) <= ALARM

    def __repr__(self) -> str:
        return f"PredictiveCheck({self})"

    def __str__(self) -> str:
        low, high = np.quantile(self.replicated, [0.05, 0.95])
        return f"{self.name}: {self.observed:.4g}, drawn {low:.4g} to {high:.4g} (90 %), p = {self.p:.2g}"


def predictive_check(
    observed: ArrayLike, replicated: ArrayLike | Iterable[ArrayLike], statistics: Mapping[str, Statistic] | None = None
) -> dict[str, PredictiveCheck]:
    """p = 2 min(P(T(x_rep) ≥ T(x)), P(T(x_rep) ≤ T(x))) for each statistic T, with x itself counted among S + 1.

    Gelman, Meng & Stern 1996. If x_rep is drawn from the posterior given x, it checks the fit, and is conservative; if
    x_rep is drawn from the prior and the model, it checks the data that the whole model draws. `adjusted` is for all
    statistics together: the share of the S + 1 data sets with any statistic as far from its median, in deviations to
    that side (Westfall & Young 1993). For a right model, x and x_rep are exchangeable. So at most 1 right model in 100
    has one or more odd checks, whatever the statistics are and however they depend on each other.

    Args:
        observed: the data, [N, …].
        replicated: data sets drawn from the model, [S, N, …], or an iterable of S data sets, which are not kept.
        statistics: functions of a data set [N, …] that return a number, by name. By default mean, standard deviation,
            minimum, maximum and share of zeros.

    Returns:
        a `PredictiveCheck` for each statistic, by name.

    Raises:
        DataError: a data set has another shape, or a statistic fails or returns no finite number; the message names it.
    """
    data = checked("observed", observed, "N …")
    chosen = STATISTICS if statistics is None else functions(statistics)
    there = {name: _apply(name, f, data) for name, f in chosen.items()}
    drawn: dict[str, list[float]] = {name: [] for name in chosen}
    for one in _data_sets(replicated, data.shape):
        for name, f in chosen.items():
            drawn[name].append(_apply(name, f, one))
    far = {name: _distances(np.array([there[name], *values])) for name, values in drawn.items()}
    farthest = np.max(list(far.values()), axis=0)
    adjusted = {name: float(np.mean(farthest >= distances[0])) for name, distances in far.items()}
    return {name: _check(name, there[name], np.array(values), adjusted[name]) for name, values in drawn.items()}


def _distances(values: np.ndarray) -> np.ndarray:
    """Distances from the median, divided by √2 times the root mean square, over all values, of those on that side."""
    away = values - np.median(values)
    scale = [np.sqrt(2 * np.mean(np.where(side, away, 0.0) ** 2)) for side in (away < 0, away > 0)]
    return np.abs(away) / np.maximum(np.where(away < 0, *scale), np.finfo(float).tiny)


def _check(name: str, observed: float, replicated: np.ndarray, adjusted: float) -> PredictiveCheck:
    above, below = (replicated >= observed).sum(), (replicated <= observed).sum()
    p = 2 * (1 + min(above, below)) / (1 + len(replicated))
    return PredictiveCheck(name, observed, replicated, float(min(1.0, p)), adjusted)


def _data_sets(replicated: object, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Each drawn data set, checked."""
    numbers = isinstance(replicated, np.ndarray) and not replicated.ndim
    if not isinstance(replicated, Iterable) or isinstance(replicated, str | Mapping) or numbers:
        raise DataError(f"replicated: got {shown(replicated)}, expected data sets [S, N, …], or an iterable of them.")
    number = 0
    for number, value in enumerate(replicated, 1):
        one = checked(f"replicated[{number - 1}]", value, "N …")
        if one.shape != shape:
            raise DataError(
                f"replicated[{number - 1}]: got shape {one.shape}, expected {shape}, the shape of observed."
            )
        yield one
    if number == 0:
        raise DataError("replicated: got no data sets, expected at least one, [S, N, …].")


def functions(statistics: object) -> dict[str, Statistic]:
    """Statistics by name.

    Raises:
        DataError: the argument is not a mapping, is empty, or a statistic can't be called.
    """
    if not isinstance(statistics, Mapping) or not statistics:
        raise DataError(f"statistics: got {shown(statistics)}, expected {{name: function of a data set}}.")
    for name, function in statistics.items():
        if not callable(function):
            raise DataError(f"statistics[{name!r}]: got {shown(function)}, expected a function of a data set [N, …].")
    return {str(name): function for name, function in statistics.items()}


def _apply(name: str, function: Statistic, data: np.ndarray) -> float:
    try:
        value = function(data)
    except Exception as error:  # from the user's function
        text = f"{type(error).__name__}: {error}"
        raise DataError(f"statistics[{name!r}]: raised {text}, on a data set of shape {data.shape}.") from error
    array = np.asarray(value) if not isinstance(value, str | bytes) else np.empty(0)
    if array.shape != () or array.dtype.kind not in "fbiu" or not np.isfinite(array):
        raise DataError(
            f"statistics[{name!r}]: got {shown(value)}, expected a finite number of a data set of shape {data.shape}."
        )
    return float(array)
