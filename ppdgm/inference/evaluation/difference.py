"""The difference of two estimates of the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppdgm import markup
from ppdgm.diagnostics.plus_minus import plus_minus


@dataclass(frozen=True)
class Difference:
    """a − b of two estimates, row by row, in nats: what is common to both leaves no noise in it.

    Attributes:
        values: the difference for each row, [N].
        errors: its Monte Carlo standard error, [N], for estimates with independent draws; NaN for one particle.
        monte_carlo_error: that of the mean.
        bias, other_bias: those of a and of b, known for log-likelihoods; they are 0 or below.
    """

    values: np.ndarray
    errors: np.ndarray
    monte_carlo_error: float
    bias: float = 0.0
    other_bias: float = 0.0

    @property
    def mean(self) -> float:
        """Mean over rows."""
        with np.errstate(invalid="ignore"):
            return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over rows: how it would vary with other data."""
        with np.errstate(invalid="ignore"):
            n = len(self.values)
            return float(self.values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")

    def __repr__(self) -> str:
        return f"Difference({self})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        noise = None if np.isnan(self.monte_carlo_error) else f"{self.monte_carlo_error:.4g}"
        facts = {
            "a − b": f"{plus_minus(self.mean, self.standard_error, 3, signed=True)} nats",
            "rows, N": f"{len(self.values):,}, paired",
            "Monte Carlo error": noise,
            "bias of a": f"{self.bias:.4g}" if self.bias else None,
            "bias of b": f"{self.other_bias:.4g}" if self.other_bias else None,
        }
        return markup.box("Difference, mean ± standard error over rows", markup.facts(facts))

    def __str__(self) -> str:
        n = len(self.values)
        if odd := int((~np.isfinite(self.values)).sum()):
            return f"{self.mean} nats, because {odd} of N = {n} rows have no finite value"
        noise = "unknown" if np.isnan(self.monte_carlo_error) else f"{self.monte_carlo_error:.4f}"
        told = [f"N = {n}, paired", "exact" if self.monte_carlo_error == 0 else f"Monte Carlo error {noise}"]
        told += [
            f"{name} is too low by {-bias:.4f} or more"
            for name, bias in (("a", self.bias), ("b", self.other_bias))
            if -bias > self.monte_carlo_error
        ]
        return f"{plus_minus(self.mean, self.standard_error, 3, signed=True)} nats ({', '.join(told)})"
