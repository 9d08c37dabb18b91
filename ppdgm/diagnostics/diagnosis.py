"""All that was found out about one trained program on some data, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppdgm.diagnostics.annealing import Bracket
from ppdgm.diagnostics.arrays import Measured, standard_error
from ppdgm.diagnostics.calibration import Coverage
from ppdgm.diagnostics.curve import BoundCurve
from ppdgm.diagnostics.latents import LatentUse
from ppdgm.diagnostics.predictive import PredictiveCheck
from ppdgm.diagnostics.rank_tests import Uniformity
from ppdgm.diagnostics.surgery import Surgery
from ppdgm.diagnostics.verdict import Finding, verdict
from ppdgm.diagnostics.weights import WeightQuality
from ppdgm.errors import DataError

SIMULATED = ("calibration", "annealing")  # parts of data that the model draws


@dataclass(frozen=True)
class Gaps:
    """What the guide loses on some data, and why. Cremer et al. 2018, arXiv:1801.03558.

    Inference gap = approximation gap + amortisation gap: log p(x) − L[q] = (log p(x) − L[q*]) + (L[q*] − L[q]), where
    q* is the best of a family for each datum by itself.

    Attributes:
        index: of the data, [n].
        log_likelihood: log p(x), [n], nats.
        guide: L[q] of the encoder's posterior, [n].
        refitted: L[q*], [n].
        family: of q*, "diagonal" or "full" covariance.
        errors: Monte Carlo errors of log p(x), [n].
        known: whether log p(x) could be had, [n]: elsewhere no sampler covers the posterior, and it is a lower bound
            only. All data, by default.
    """

    index: np.ndarray
    log_likelihood: np.ndarray
    guide: np.ndarray
    refitted: np.ndarray
    family: str
    errors: np.ndarray | None = None
    known: np.ndarray | None = None

    @property
    def unknown(self) -> int:
        """Of how many data log p(x) is a lower bound only, so that inference and approximation gap are too."""
        return 0 if self.known is None else int((~self.known).sum())

    @property
    def inference(self) -> Measured:
        """Mean of log p(x) − L[q]."""
        return _mean(self.log_likelihood - self.guide)

    @property
    def approximation(self) -> Measured:
        """Mean of log p(x) − L[q*]: what no encoder of this family can take away."""
        return _mean(self.log_likelihood - self.refitted)

    @property
    def amortisation(self) -> Measured:
        """Mean of L[q*] − L[q]: what a better encoder would take away. Negative where the guide's family is richer."""
        return _mean(self.refitted - self.guide)

    def __str__(self) -> str:
        about = f"{len(self.index)} data, {self.family} covariance"
        if self.unknown:
            about += f"; of {self.unknown} of them log p(x) is a lower bound only, and the first two gaps are larger"
        return (
            f"inference gap {self.inference} nats = approximation gap {self.approximation} + amortisation gap "
            f"{self.amortisation} ({about})"
        )


@dataclass(frozen=True)
class Baseline:
    """What a model without latents gets: independent columns of the same likelihood, each datum by those of the others.

    Attributes:
        index: of the data, [n].
        values: log p of each under the columns, [n], nats.
    """

    index: np.ndarray
    values: np.ndarray

    def gain(self, log_likelihood: np.ndarray) -> Measured:
        """Mean of log p(x) of all data, [N], above the columns, with its standard error over data."""
        return _mean(log_likelihood[self.index] - self.values)


@dataclass(frozen=True)
class Pictures:
    """Arrays that a report draws; what can't be had is None.

    Attributes:
        samples: means of the likelihood at draws of the prior, [n, *event_shape].
        shown: indices of some data, chosen at random, [n]; traversals start from the first of them, and
            interpolations go between the first and the second, the third and the fourth, ….
        data: these, [n, *event_shape].
        reconstructions: of these.
        worst: indices of the data with the largest k̂, the worst first.
        worst_data, worst_reconstructions: these, [len(worst), *event_shape].
        traversals: decoded along the most informative dimensions, [D', steps, *event_shape].
        traversed: what these are, such as "z[3]", with their KL.
        steps: values that are traversed, in standard deviations of the prior.
        interpolations: decoded between the codes of pairs of data, [pairs, steps, *event_shape].
        codes: means of the guide for each site, flat, [N, D].
        labels: of the data, [N].
        aggregated: draws of the guide, one a datum, for each site, flat, [N, D].
        prior: draws of the prior for each site, flat, [n, D].
    """

    samples: np.ndarray | None = None
    shown: np.ndarray | None = None
    data: np.ndarray | None = None
    reconstructions: np.ndarray | None = None
    worst: np.ndarray | None = None
    worst_data: np.ndarray | None = None
    worst_reconstructions: np.ndarray | None = None
    traversals: np.ndarray | None = None
    traversed: tuple[str, ...] = ()
    steps: np.ndarray | None = None
    interpolations: np.ndarray | None = None
    codes: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: np.ndarray | None = None
    aggregated: Mapping[str, np.ndarray] = field(default_factory=dict)
    prior: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """What `fit.diagnose` found. What could not be had is None or empty, with its reason in `withheld`.

    Attributes:
        title: the program, its backend, and how far it was trained.
        size: N, data.
        log_likelihood: importance-sampled log p(x): .values, .mean, .standard_error, .monte_carlo_error, in nats.
        elbo: likewise, at β = 1.
        baseline: log p of independent columns, which a model with latents has to beat.
        curve: L_k over k.
        weights: k̂ and effective sample size, datum by datum.
        use: of the latents: KL, active units, collapse.
        surgery: mutual information and marginal KL.
        calibration: tests of the ranks for each site, of data simulated from the model.
        coverage: of the guide's intervals for each site, likewise.
        pit: these ranks as numbers in [0, 1], for each site, [N', D].
        checks: posterior predictive.
        prior_checks: prior predictive.
        gaps: inference, approximation and amortisation gap.
        bracket: annealed importance sampling from both sides, on simulated data.
        withheld: what could not be had, and why.
        pictures: for the report.
        history: of training, as `fit.history`.
        recipe: the run's, as TOML.
        versions: of the packages.
        seconds: what each part took.
        units: of the predictive checks, in words; "" where x has one unit only.
        columns: names of a table's columns, where they are known.
        sizes: how many data were taken where not all were, by what for: chosen at random, or simulated.
    """

    title: str
    size: int
    log_likelihood: Any = None
    elbo: Any = None
    baseline: Baseline | None = None
    curve: BoundCurve | None = None
    weights: WeightQuality | None = None
    use: LatentUse | None = None
    surgery: Surgery | None = None
    calibration: Mapping[str, Uniformity] = field(default_factory=dict)
    coverage: Mapping[str, Coverage] = field(default_factory=dict)
    pit: Mapping[str, np.ndarray] = field(default_factory=dict)
    checks: tuple[PredictiveCheck, ...] = ()
    prior_checks: tuple[PredictiveCheck, ...] = ()
    gaps: Gaps | None = None
    bracket: Bracket | None = None
    withheld: Mapping[str, str] = field(default_factory=dict)
    pictures: Pictures = Pictures()
    history: Mapping[str, np.ndarray] = field(default_factory=dict)
    recipe: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    units: str = ""
    columns: tuple[str, ...] = ()

    def __repr__(self) -> str:
        grades = [f.grade for f in self.verdict]
        counts = ", ".join(f"{grades.count(g)} {g}" for g in ("bad", "warning", "good"))
        return f"Diagnosis({self.title}; N = {self.size}; {counts})"

    @property
    def verdict(self) -> tuple[Finding, ...]:
        """In words: what is well, what is not, and what to try next; the worst first."""
        return verdict(self)

    def __str__(self) -> str:
        lines = [self.title, "", *(str(f) for f in self.verdict)]
        if self.taken:
            lines += ["", self.taken]
        if self.withheld:
            lines += ["", *(f"Not told, {name}: {why}" for name, why in self.withheld.items())]
        return "\n".join(lines)

    @property
    def taken(self) -> str:
        """Which parts took some data only, in a sentence; "" where none did."""
        sizes = {n: v for n, v in self.sizes.items() if n in SIMULATED or v < self.size}
        told = [f"{n} {v:,} {'simulated ones' if n in SIMULATED else 'chosen at random'}" for n, v in sizes.items()]
        return f"Of {self.size:,} data: {', '.join(told)}." if told else ""

    def table(self) -> dict[str, Any]:
        """All numbers as plain values, for JSON."""
        from ppdgm.diagnostics.summary import table

        return table(self)

    def to_arviz(self) -> Any:
        """The ranks of simulation-based calibration for ArviZ's own rank and ECDF plots, as its group prior_sbc.

        With ArviZ 1.x `plot_ecdf_pit(found.to_arviz(), group="prior_sbc")`; with 0.23 `plot_ecdf(found.pit["z"][:, 0],
        cdf=lambda p: p, pit=True, confidence_bands=True)` and `plot_rank(found.pit["z"].T)`.

        Raises:
            DataError: calibration was no part of the diagnosis, or withheld.
        """
        from ppdgm.diagnostics.inference_data import to_arviz

        if not self.pit:
            why = self.withheld.get("calibration", "it was not asked for: diagnose(…, parts='calibration').")
            raise DataError(f"There are no ranks: {why}")
        return to_arviz({"prior_sbc": self.pit})

    def report(self, path: str | Path, pictures: bool = False) -> Path:
        """Write one HTML file that needs nothing else; with `pictures`, its figures as PNGs beside it.

        Args:
            path: of the file, which ends in .html.
            pictures: whether to write the figures too.
        """
        from ppdgm.diagnostics.page import write

        return write(self, path, pictures)


def _mean(values: np.ndarray) -> Measured:
    return Measured(float(values.mean()), standard_error(values))
