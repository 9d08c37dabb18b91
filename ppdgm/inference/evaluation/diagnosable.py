"""What a trained program can be asked: a diagnosis, draws of its posterior, an export to ArviZ."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.data import Transform, own_units
from ppdgm.data.frames import Frame
from ppdgm.diagnostics import Loo, predictive_check
from ppdgm.diagnostics.arrays import as_array
from ppdgm.diagnostics.diagnosis import Diagnosis
from ppdgm.diagnostics.predictive import Statistic, functions
from ppdgm.errors import DataError, PpdgmError, one_of, require
from ppdgm.inference.engines.criteria import Criterion
from ppdgm.inference.evaluation.diagnose import Depth, Diagnosing, check_parts
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.inference.evaluation.export import export, leave_one_out
from ppdgm.inference.evaluation.filling import Filling, fill
from ppdgm.inference.evaluation.framed import framed
from ppdgm.inference.evaluation.normaliser import Normaliser, normaliser_of, reverse_of
from ppdgm.inference.evaluation.posterior import HOW, How, PosteriorDraws, draw_posterior
from ppdgm.inference.evaluation.row_scores import scores_of_rows
from ppdgm.inference.evaluation.watched import watched
from ppdgm.inference.evaluation.whole_set import LogEvidence, log_evidence
from ppdgm.inference.inputs.no_data import rows_for
from ppdgm.inference.runs.folder import versions
from ppdgm.language.vocabulary import Array

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings, Data, Outward
    from ppdgm.inference.engines.engine import Engine
    from ppdgm.inference.evaluation.estimates import Estimate
    from ppdgm.inference.runs.recipe import Recipe
    from ppdgm.program import AnyProgram

Sites = np.ndarray | dict[str, np.ndarray]


class Diagnosable(ABC):
    """The part of `Fit` that judges a posterior."""

    program: AnyProgram
    params: dict[str, np.ndarray]
    backend: str
    history: dict[str, np.ndarray]
    codings: Codings
    engine: Engine | None

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The recipe that repeats the run; `Fit` has it."""

    @property
    @abstractmethod
    def transform(self) -> Transform | None:
        """How raw numbers became x, if that is known; `Fit` has it."""

    @property
    @abstractmethod
    def _columns(self) -> tuple[str, ...]:
        """The names of the numbers of x, if they are known; `Fit` has them."""

    @property
    @abstractmethod
    def _row_names(self) -> str:
        """The column of a table that names the rows, if the run knows one; `Fit` has it."""

    @abstractmethod
    def _evaluator(self, data: Data, seed: int = 0, memory: int | str = "auto", model: bool = True) -> Evaluator:
        """The program at data, checked and on the device; `Fit` implements it."""

    @abstractmethod
    def _named(self, evaluator: Evaluator, found: Estimate) -> Estimate:
        """The estimate, with a note on which x it is of; `Fit` implements it."""

    @abstractmethod
    def _outward(self, data: Data, evaluator: Evaluator) -> Outward:
        """A function that converts observed sites to the units of the data; `Fit` implements it."""

    def impute(
        self,
        data: Data,
        missing: Array | Frame | None = None,
        seed: int = 0,
        *,
        mean: bool = False,
        draws: int | None = None,
        interval: float | None = None,
        k: int | None = None,
    ) -> Any:
        """x with its missing entries filled in, given all others of their row, [N, *event_shape], in the data's units.

        By default each is drawn: a row is one draw from p(x_missing | x_observed), not the best guess. A table's rows
        (pandas, polars) come back as a table with its index, with names of classes and dates.

        With the likelihood `Table` it is self-normalised importance sampling with K draws of the guide. Mattei &
        Frellsen 2019, arXiv:1812.02633. With an `AutoregressiveModel`, the known numbers come first in the ordering,
        and the missing ones after them, so a draw is exactly from the conditional distribution of that ordering: the
        program needs a net of many orders, `OrderAgnosticMADE`; with a fixed order, only what comes last in it can be
        missing. Each pattern of missing numbers takes a call of its own.

        Args:
            data: rows, as for `elbo`. What x has at missing numbers is ignored: NaN, or anything in the support.
            missing: booleans, [*event_shape] for all rows or [N, *event_shape], or a table, whose columns are found by
                name; by default, the entries that are NaN (in a table also None, NA and NaT).
            seed: of the draws.
            mean: the mean in place of a draw: the best guess of a number; the most probable class.
            draws: S, for S completed data sets: an array [S, N, *event_shape], or a list of tables.
            interval: a probability, for two results, the ends of central intervals; classes have none, and are missing.
            k: K, by default 1000; for an AutoregressiveModel, the draws that `mean` and `interval` are made of, by
                default 100.

        Raises:
            ProgramError: the program can't fill in what is missing.
            DataError: these numbers can't be drawn given the others; or nothing is missing.
        """
        if sum((mean, draws is not None, interval is not None)) > 1:
            raise DataError("impute: got two of mean=, draws= and interval=, expected one. Call it twice.")
        require("mean", mean, bool, None, "True or False")
        for name, value in (("draws", draws), ("k", k)):
            if value is not None:
                require(name, value, int, 1, "a whole number, at least 1")
        if interval is not None and not 0 < interval < 1:
            raise DataError(f"interval: got {interval!r}, expected a probability between 0 and 1, such as 0.9.")
        found = fill(self, data, missing, seed, Filling(mean, draws, interval, k))
        return found[0] if len(found) == 1 and draws is None else _stacked(found) if draws else tuple(found)

    def scores(self, data: Data, k: int = 1000, seed: int = 0, memory: int | str = "auto") -> Sites | Frame:
        """The code and the scores of each row, as columns [N] by name; of a table (pandas, polars), as a table.

        Means of the latents, such as "z[0]"; "log_p", which is log p(x) in nats by importance sampling, with its Monte
        Carlo "log_p_error"; "rank", where 1 is the least probable row; and "reconstruction_error", the mean squared
        difference of x and `reconstruct(x)`, as the program sees them (standardised, for example). There is none if no
        site is known to draw x, if that site is under a mask, or if x is a `Table`, whose columns have different units.
        If labels fix a latent, log_p is that of x and label.

        Args:
            data: rows, as for `elbo`.
            k: particles of log p(x), per row.
            seed: of the draws.
            memory: limit on a chunk's intermediate results.
        """
        require("k", k, int, 1, "a whole number of particles, at least 1")
        return framed(data, scores_of_rows(self._evaluator(data, seed, memory), k), index=self._row_names)

    def diagnose(
        self,
        data: Data,
        *,
        parts: str | Iterable[str] | None = None,
        labels: Array | None = None,
        statistics: Mapping[str, Statistic] | None = None,
        seed: int = 0,
        memory: int | str = "auto",
        progress: bool = False,
        **depth: Any,
    ) -> Diagnosis:
        """What works, what does not, and what to try next: likelihood, latents, surgery, calibration, gaps.

        Args:
            data: held-out data; array [N, *event_shape], or named arrays.
            parts: which parts, of "likelihood", "latents", "surgery", "calibration", "predictive", "gaps", "annealing"
                and "pictures"; all by default. Parts that are not available for the program are in `.withheld`, with
                the reason.
            labels: of the data, [N], for pictures.
            statistics: for predictive checks: functions of a data set [N, *event_shape], by name. They see x in the
                units of `data`.
            seed: of all draws.
            memory: limit on a chunk's intermediate results: bytes, "512 MiB" or "auto".
            progress: show which part is running.
            depth: how much work: k=1000 draws of the guide per row for log p(x), k̂ and bounds; draws=1 for surgery;
                simulated=500 rows with ranks=99 draws each for calibration; replicated=200 data sets of
                replicated_size=500 for predictive checks, which warn of 1 right model in 100 at most; few=32 rows
                that are refitted, with refit_steps=400 and family="diagonal" or "full", and annealed, with chains=10,
                temperatures=200 and num_leapfrog=10; nats=0.01 and active=0.01: a dimension below them carries nothing.

        Returns:
            Numbers, `.verdict` in words, `.table()` for JSON, `.report("report.html")`.

        Raises:
            PpdgmError: unknown parts or settings, or data that do not fit the program.
        """
        chosen, how = check_parts(parts), Depth(**depth)
        require("progress", progress, bool, None, "True or False")
        evaluator = self._evaluator(data, seed, memory)
        if labels is None and isinstance(data, Mapping) and "label" in data:
            labels = data["label"]
        own = None if labels is None else as_array("labels", labels)
        if own is not None and own.shape != (evaluator.size,):
            raise DataError(f"labels: got shape {own.shape}, expected ({evaluator.size},), one for each row.")
        units = self._units_of(data, evaluator, statistics is not None)
        if statistics is not None:  # an error in a statistic is raised before the work begins
            fields = evaluator.feed.fields
            name = next((n for n in sorted(evaluator.drawn_as, key=lambda n: n != "x")), next(iter(fields)))
            statistics = {n: self._of_units(f, name, data, evaluator) for n, f in functions(statistics).items()}
            first = np.asarray(fields[name][:8])
            predictive_check(first, [first], statistics)
        told = (lambda name: print(f"diagnosing: {name}", file=sys.stderr)) if progress else (lambda name: None)
        made = Diagnosing(evaluator, how, own, statistics, told).run(
            chosen, title=repr(self)[4:-1], history=self.history, recipe=self._recipe_text(), versions=versions(),
            units=units, columns=self.codings["x"].columns if "x" in self.codings else (),
        )  # fmt: skip
        named = lambda found: found and self._named(evaluator, found)
        return replace(made, elbo=named(made.elbo), log_likelihood=named(made.log_likelihood))

    def posterior(
        self,
        data: Data,
        draws: int = 100,
        how: How = "importance",
        *,
        k: int = 1000,
        warmup: int = 500,
        chains: int = 4,
        seed: int = 0,
        memory: int | str = "auto",
    ) -> Sites:
        """Draws of the posterior of each row's latents, [S, N, *latent]; by name, if there are several sites.

        Args:
            data: array [N, *event_shape], or named arrays.
            draws: S, per row. With "mcmc" it is the number of draws of each chain, and S = chains · draws.
            how: "guide": its draws as they are; "importance": K of them, resampled by their weights, q_IW of Cremer et
                al. 2017, arXiv:1704.02916; "mcmc": chains of NumPyro's or Pyro's own NUTS that begin at the guide's
                draws, for a few rows (seconds each).
            k: K.
            warmup, chains: for "mcmc".
            seed: of the draws.
            memory: limit on a chunk's intermediate results.
        """
        return single(self._posterior(self._evaluator(data, seed, memory), draws, how, k, warmup, chains).latents)

    def to_arviz(
        self,
        data: Data,
        draws: int = 100,
        how: How = "guide",
        *,
        predictive: int = 20,
        prior: int = 500,
        k: int = 1000,
        warmup: int = 500,
        chains: int = 4,
        coords: Mapping[str, Array] | None = None,
        seed: int = 0,
        memory: int | str = "auto",
    ) -> Any:
        """For ArviZ, `InferenceData` with 0.23, `xarray.DataTree` with 1.x: posterior, predictions, densities, data.

        Data and predictions are in the units of `data`; densities are of the units that the program was trained in.
        Groups: posterior, sample_stats (lp = log p(x, z), log_p_x = log p(x|z), and log_weight for the guide's draws),
        posterior_predictive, prior, prior_predictive, observed_data, and constant_data: fields that the model does not
        draw, such as the label of a ConditionalVAE, or observes under a mask. Axes: chain, draw, datum, and each site's
        own. A latent that all rows share has no datum axis. Then there is one log_weight for the whole set, and no
        prior is drawn. If all latents are shared, log p(x|z) is in the group log_likelihood, under the name of what is
        observed ("joint" for several). If each row has its own latents, this group is left out, because `az.loo` would
        read log p(x|z) as a leave-one-out density. Attributes of the groups say why others are left out.

        Args:
            data, draws, how, k, warmup, chains, seed, memory: as for `posterior`.
            predictive: draws of the data, [predictive, N, *event_shape]; 0 for none.
            prior: draws of the prior, and of data from it; 0 for none.
            coords: labels of axes, such as {"datum": names}.
        """
        for name, value in (("predictive", predictive), ("prior", prior)):
            require(name, value, int, 0, "a whole number of draws, at least 0")
        evaluator = self._evaluator(data, seed, memory)
        if isinstance(coords, Mapping) and "datum" in coords:
            names = as_array("coords['datum']", coords["datum"])
            if names.ndim == 1 and len(names) != evaluator.size:
                raise DataError(
                    f"coords['datum']: got {len(names)} labels, expected {evaluator.size}, one for each row."
                )
        found = self._posterior(evaluator, draws, how, k, warmup, chains)
        return export(evaluator, found, predictive, prior, coords, self.backend, self._outward(data, evaluator))

    def log_evidence(self, data: Data, k: int = 1000, seed: int = 0) -> LogEvidence:
        """A lower bound on log p(X) of all rows together, for latents that all rows share: no row has its own bound.

        There is one log-weight for the whole set: log 1/K Σ_k p(X, θ_k, Z_k) / q(θ_k, Z_k), with an error, and k̂,
        which shows whether K draws are enough. With more rows the posterior is narrower, and the guide has to be
        better.

        Raises:
            ProgramError: no latent is shared: use log_likelihood, row by row.
        """
        require("k", k, int, 30, "a whole number of particles, at least 30: k̂ is fitted to the largest fifth of them")
        return log_evidence(self._evaluator(data, seed, "auto"), k)

    def normaliser(
        self, draws: int = 10_000, given: Mapping[str, Array] | None = None, seed: int = 0, memory: int | str = "auto"
    ) -> Normaliser:
        """log Z of the target that `ReverseKL` fitted the program to, by importance sampling; with k̂ and the KL.

        Args:
            draws: K, of the program.
            given: the fields of the program's condition, if it has one: one value of each, such as {"label": 7}.
            seed: of the draws.
            memory: limit on a chunk's intermediate results.

        Raises:
            ProgramError: the program was not fitted to a target.
        """
        require(
            "draws", draws, int, 30, "a whole number of draws, at least 30: k̂ is fitted to the largest fifth of them"
        )
        engine = reverse_of(self.engine)
        fields = {n: np.repeat(np.asarray(v)[None], draws, axis=0) for n, v in (given or {}).items()}
        evaluator = self._evaluator(rows_for(self.program, engine, fields, draws), seed, memory, model=False)
        return normaliser_of(watched(evaluator, Criterion("log_weight", engine.log_weights)))

    def loo(self, data: Data, draws: int = 1000, seed: int = 0) -> Loo:
        """Leave-one-out predictive density, for latents that all rows share: PSIS with an approximate posterior.

        Magnusson et al. 2019, arXiv:1904.10679. Refused if each row has its own latent: then it is ill-posed.
        """
        require("draws", draws, int, 30, "a whole number of draws, at least 30")
        return leave_one_out(self._evaluator(data, seed, "auto"), draws)

    def _posterior(
        self, evaluator: Evaluator, draws: int, how: How, k: int, warmup: int, chains: int
    ) -> PosteriorDraws:
        one_of("how", how, HOW)
        for name, value in (("draws", draws), ("k", k), ("warmup", warmup), ("chains", chains)):
            require(name, value, int, 1, "a whole number, at least 1")
        return draw_posterior(evaluator, draws, how, k, warmup, chains)

    def _units_of(self, data: Data, evaluator: Evaluator, own_statistics: bool) -> str:
        """Units of predictive checks: the data's units if statistics are the user's own, else the program's."""
        transform = self.codings.get("x")
        words = transform.in_words() if isinstance(transform, Transform) else ""
        if words and not evaluator.may_draw("x"):
            return ""
        if words and own_statistics and own_units(self.codings, data) == "own":
            return "in your own units"
        return f"of {words}" if words else ""

    def _of_units(self, statistic: Statistic, name: str, data: Data, evaluator: Evaluator) -> Statistic:
        """A statistic that sees the field that is checked, x, in the units of the data."""
        outward = self._outward(data, evaluator)
        return (lambda x: statistic(np.asarray(outward({name: x})[name]))) if callable(statistic) else statistic

    def _recipe_text(self) -> str:
        """The recipe as TOML; "" if the run can't be written as text."""
        try:
            return self.recipe.to_toml()
        except PpdgmError:
            return ""


def _stacked(found: list[Any]) -> Any:
    """Arrays as one; tables as a list."""
    return np.stack(found) if isinstance(found[0], np.ndarray) else found


def single(sites: dict[str, np.ndarray]) -> Sites:
    """The array itself if there is one site, arrays by name if there are several."""
    return next(iter(sites.values())) if len(sites) == 1 else dict(sorted(sites.items()))  # as JAX sorts them
