"""All results of a diagnosis of one trained program on some data, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppdgm import markup
from ppdgm.diagnostics.annealing import Bracket
from ppdgm.diagnostics.calibration import Coverage
from ppdgm.diagnostics.codebook import CodeUse
from ppdgm.diagnostics.curve import BoundCurve
from ppdgm.diagnostics.found import Baseline as Baseline
from ppdgm.diagnostics.found import EstimateLike
from ppdgm.diagnostics.found import Gaps as Gaps
from ppdgm.diagnostics.found import Pictures as Pictures
from ppdgm.diagnostics.latents import LatentUse
from ppdgm.diagnostics.predictive import PredictiveCheck
from ppdgm.diagnostics.rank_tests import Uniformity
from ppdgm.diagnostics.surgery import Surgery
from ppdgm.diagnostics.verdict import Finding, verdict
from ppdgm.diagnostics.weights import WeightQuality
from ppdgm.errors import DataError

SIMULATED = ("calibration", "annealing")  # parts that use data drawn from the model


@dataclass(frozen=True)
class Diagnosis:
    """The result of `fit.diagnose`. Parts that are not available are None or empty, with the reason in `withheld`.

    Attributes:
        title: the program, its backend, and how far it was trained.
        size: N, the number of rows.
        log_likelihood: importance-sampled log p(x): .values, .mean, .standard_error, .monte_carlo_error, in nats.
        elbo: the ELBO at β = 1, in the same form.
        baseline: log p of independent columns, which a model with latents has to beat.
        curve: L_k over k.
        weights: k̂ and effective sample size of each row.
        use: the use of the latents: KL, active units, collapse.
        codes: for each latent that is a code of a codebook, how often each code is used.
        surgery: mutual information and marginal KL.
        calibration: tests of the ranks for each site, on data simulated from the model.
        coverage: the coverage of the guide's intervals for each site, on the same data.
        pit: these ranks as numbers in [0, 1], for each site, [N', D].
        checks: posterior predictive checks.
        prior_checks: prior predictive checks.
        gaps: inference, approximation and amortisation gap.
        bracket: annealed importance sampling from both sides, on simulated data.
        withheld: the parts that are not available, each with the reason.
        pictures: arrays for the report.
        history: the history of training, as `fit.history`.
        recipe: the recipe of the run, as TOML.
        versions: versions of the packages.
        seconds: how long each part took.
        units: units of the predictive checks, in words; "" if x has only one unit.
        columns: names of a table's columns, if they are known.
        sizes: for each part that did not use all rows, how many it used; these were chosen at random, or simulated.
    """

    title: str
    size: int
    log_likelihood: EstimateLike | None = None
    elbo: EstimateLike | None = None
    baseline: Baseline | None = None
    curve: BoundCurve | None = None
    weights: WeightQuality | None = None
    use: LatentUse | None = None
    codes: Mapping[str, CodeUse] = field(default_factory=dict)
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

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, the worst first. `report` writes the whole page."""
        marks = {"good": "✓", "warning": "!", "bad": "✗"}
        rows = [(marks[f.grade], f.about, f"{f.text} {f.advice}".rstrip()) for f in self.verdict]
        facts = {"N": f"{self.size:,}", "log p(x)": self.log_likelihood, "ELBO": self.elbo}
        why = [markup.details("not available", markup.facts(self.withheld))] if self.withheld else []
        return markup.box(self.title, markup.facts(facts), markup.rows_below(("", "about", "found"), rows), *why)

    @property
    def verdict(self) -> tuple[Finding, ...]:
        """The diagnosis in words: what is good, what is not, and what to try next; the worst first."""
        return verdict(self)

    def __str__(self) -> str:
        lines = [self.title, "", *(str(f) for f in self.verdict)]
        if self.taken:
            lines += ["", self.taken]
        if self.withheld:
            lines += ["", *(f"Not available, {name}: {why}" for name, why in self.withheld.items())]
        return "\n".join(lines)

    @property
    def taken(self) -> str:
        """A sentence on the parts that used only some of the rows; "" if there are none."""
        sizes = {n: v for n, v in self.sizes.items() if n in SIMULATED or v < self.size}
        told = [f"{n} {v:,} {'simulated ones' if n in SIMULATED else 'chosen at random'}" for n, v in sizes.items()]
        return f"Of {self.size:,} rows, some parts used fewer: {', '.join(told)}." if told else ""

    def table(self) -> dict[str, object]:
        """All numbers as plain values, for JSON."""
        from ppdgm.diagnostics.summary import summary_table

        return summary_table(self)

    def to_arviz(self) -> Any:
        """The ranks of simulation-based calibration for ArviZ's own rank and ECDF plots, as its group prior_sbc.

        With ArviZ 1.x `plot_ecdf_pit(found.to_arviz(), group="prior_sbc")`; with 0.23 `plot_ecdf(found.pit["z"][:, 0],
        cdf=lambda p: p, pit=True, confidence_bands=True)` and `plot_rank(found.pit["z"].T)`.

        Raises:
            DataError: calibration was not part of the diagnosis, or is not available.
        """
        from ppdgm.diagnostics.inference_data import to_arviz

        if not self.pit:
            why = self.withheld.get("calibration", "it was not asked for. Use diagnose(…, parts='calibration').")
            raise DataError(f"There are no ranks: {why}")
        return to_arviz({"prior_sbc": self.pit})

    def report(self, path: str | Path, pictures: bool = False) -> Path:
        """Write one HTML file that needs no other files; with `pictures`, also its figures as PNGs next to it.

        Args:
            path: the path of the file; it ends in .html.
            pictures: whether to write the figures as PNGs too.
        """
        from ppdgm.diagnostics.page import write

        return write(self, path, pictures)
