"""Several fits on the same rows: a table of likelihoods, their paired differences, and the settings that differ."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm import markup
from ppdgm.diagnostics.plus_minus import plus_minus
from ppdgm.errors import DataError, PackageMissing, PpdgmError, SpecError, require, shown
from ppdgm.inference.evaluation.difference import Difference
from ppdgm.inference.evaluation.estimates import Estimate
from ppdgm.inference.evaluation.result import Fit

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data
    from ppdgm.specs import Table

ELBO_PARTICLES = 10  # its mean over the data needs few
HEAD = ("run", "log p(x)", "to the best", "ELBO")


@dataclass(frozen=True)
class Comparison:
    """Fits on the same rows, the best first.

    Attributes:
        log_likelihood, elbo: by name, in nats per row.
        differences: log p(x) minus that of the first, paired over rows, by name.
        settings: those that differ, by name of the setting, then of the fit; None where a recipe has no such setting.
        given: the fields that a model conditions on, by name: its number is log p(x | these).
    """

    log_likelihood: dict[str, Estimate]
    elbo: dict[str, Estimate]
    differences: dict[str, Difference]
    settings: dict[str, dict[str, object]]
    given: dict[str, tuple[str, ...]]

    @property
    def best(self) -> str:
        """The name of the fit with the largest mean log p(x)."""
        return next(iter(self.log_likelihood))

    def rows(self) -> list[tuple[str, ...]]:
        """The table, as text: name, log p(x), difference to the best, ELBO."""
        of = lambda e: plus_minus(e.mean, e.standard_error, 2)
        return [
            (
                name,
                of(found),
                "" if name == self.best else plus_minus(d.mean, d.standard_error, 2, signed=True),
                of(self.elbo[name]),
            )
            for name, found in self.log_likelihood.items()
            for d in [self.differences[name]]
        ]

    @property
    def notes(self) -> list[str]:
        """What the numbers don't show: fits that know more of a row than others, and estimates that are too low."""
        told = [] if len(set(self.given.values())) == 1 else [(n, of) for n, of in self.given.items() if of]
        low = {n: -e.bias for n, e in self.log_likelihood.items() if -e.bias > max(e.monte_carlo_error, 0.005)}
        return [f"{name}: log p(x | {', '.join(of)})" for name, of in told] + [
            f"{name}: log p(x) is too low by {off:.2f} or more; give a larger k" for name, off in low.items()
        ]

    def table(self) -> list[dict[str, object]]:
        """The table as numbers, one dict for each fit: name, rank, log_p, se, difference, its error, elbo, noise,
        and the fields that are given.
        """
        return [
            {
                "name": name,
                "rank": rank,
                "log_p": found.mean,
                "se": found.standard_error,
                "bias": found.bias,
                "difference": self.differences[name].mean,
                "difference_se": self.differences[name].standard_error,
                "monte_carlo_error": self.differences[name].monte_carlo_error,
                "elbo": self.elbo[name].mean,
                "given": list(self.given[name]),
            }
            for rank, (name, found) in enumerate(self.log_likelihood.items())
        ]

    def frame(self, arviz: bool = False) -> Any:
        """The table as a DataFrame of pandas, a row for each fit, in the order of their ranks.

        There are no weights of a model average: none are computed.

        Args:
            arviz: names, signs and sums as `az.compare` has them: rank, elpd and its se (sums over rows), elpd_diff (of
                the best minus this one, so not negative) and its dse, scale. Its elpd is from leave-one-out; this one
                is log p(x) of the rows that were given, so give rows that were not trained on.

        Raises:
            PackageMissing: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise PackageMissing("frame() needs pandas, which is not installed: pip install pandas") from None
        found = pandas.DataFrame(self.table()).set_index("name")
        if not arviz:
            return found
        n = len(next(iter(self.log_likelihood.values())).values)
        sums = {"elpd": found.log_p * n, "elpd_diff": -found.difference * n + 0.0, "se": found.se * n}
        sums |= {"dse": found.difference_se * n}
        return pandas.DataFrame({"rank": found["rank"], **sums}).assign(scale="log")

    def _repr_html_(self) -> str:
        """For notebooks."""
        n = len(next(iter(self.log_likelihood.values())).values)
        names = list(self.log_likelihood)
        settings = [(s, *(shown(values[n]) for n in names)) for s, values in self.settings.items()]
        others = [markup.details("settings that differ", markup.rows_below(("", *names), settings))]
        title = f"{len(self.elbo)} fits on {n:,} rows, in nats per row"
        return markup.box(title, markup.rows_below(HEAD, self.rows()), *(others if settings else []))

    def __str__(self) -> str:
        lines = [HEAD, *self.rows()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        told = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        told += self.notes
        for name, values in self.settings.items():
            told.append(f"{name}: " + ", ".join(f"{shown(v)} ({fit})" for fit, v in values.items()))
        return "\n".join(told)

    def __repr__(self) -> str:
        return f"Comparison of {len(self.elbo)} fits\n{self}"


def compare(
    fits: Mapping[str, Fit], data: Data, k: int = 1000, seed: int = 0, memory: int | str = "auto"
) -> Comparison:
    """Judge several fits on the same rows, the best first: log p(x) by importance sampling, and its paired differences.

    The standard error of a difference is that over rows; it is far below the errors of the two means, because rows that
    are hard for one program are hard for the other.

    Args:
        fits: by name, at least two.
        data: the rows, as for `Fit.log_likelihood`; each fit prepares them as it does its own.
        k: particles per row; ELBOs have 10 at most.
        seed: of the draws.
        memory: limit on a chunk's intermediate results.

    Raises:
        DataError: the densities can't be compared: the runs' data are scaled in different ways, or a program's density
            is one of x and of labels.
        SpecError: fewer than two fits.
    """
    require("k", k, int, 1, "a whole number of particles, at least 1")
    if not isinstance(fits, Mapping) or len(fits) < 2 or not all(isinstance(f, Fit) for f in fits.values()):
        raise SpecError(f"fits: got {shown(fits)}, expected two fits or more by name, such as {{'vae': fit, …}}.")
    return compared({name: (fit, data) for name, fit in fits.items()}, k, seed, memory)


def compared(fits: Mapping[str, tuple[Fit, Data]], k: int, seed: int = 0, memory: int | str = "auto") -> Comparison:
    """The same of fits with their own rows, which must be the same rows."""
    likelihood, elbo = {}, {}
    for name, (fit, rows) in fits.items():
        elbo[name] = fit.elbo(rows, k=min(k, ELBO_PARTICLES), seed=seed, memory=memory)
        likelihood[name] = fit.log_likelihood(rows, k=k, seed=seed, memory=memory)
    given = {n: _given(*of) for n, of in fits.items()}
    ranked = sorted(likelihood, key=lambda n: -np.nan_to_num(likelihood[n].mean, nan=-np.inf))
    try:
        differences = {n: likelihood[n] - likelihood[ranked[0]] for n in ranked}
    except DataError as error:
        raise DataError(f"compare: {error}") from None
    recipes = {name: _settings(fit) for name, (fit, _) in fits.items()}
    every = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    differ = {key: {n: r.get(key) for n, r in recipes.items()} for key in every}
    differ = {key: v for key, v in differ.items() if len({str(x) for x in v.values()}) > 1}
    by_rank = lambda of: {n: of[n] for n in ranked}
    return Comparison(by_rank(likelihood), by_rank(elbo), differences, differ, by_rank(given))


def _given(fit: Fit, rows: Data) -> tuple[str, ...]:
    """The fields that the model conditions on."""
    return fit.conditions(rows) if isinstance(rows, Mapping) and len(rows) > 1 else ()


def _settings(fit: Fit) -> dict[str, object]:
    """A recipe's settings, by dotted name; none if it can't be written as text."""
    try:
        return _flat(fit.recipe.table())
    except PpdgmError:
        return {}


def _flat(table: Table, before: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        inner = _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
        found |= inner
    return found
