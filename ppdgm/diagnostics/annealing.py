"""Two-sided bounds on log p(x) from the log-weights of annealed importance sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import checked, standard_error
from ppdgm.diagnostics.curve import log_mean_exp
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Bracket:
    """Stochastic bounds on log p(x) for each row, in nats.

    Attributes:
        lower: [N]; below log p(x) in expectation, and above it by b nats with probability at most e⁻ᵇ.
        lower_errors: its Monte Carlo errors, [N]; NaN for a single chain.
        upper: [N], in the same way from above; None without reverse chains.
        upper_errors: its Monte Carlo errors, [N]; too small if all chains of a row start at the same posterior draw.
        chains: C.
    """

    lower: np.ndarray
    lower_errors: np.ndarray
    upper: np.ndarray | None
    upper_errors: np.ndarray | None
    chains: int

    @property
    def mean(self) -> tuple[float, float]:
        """The means of the bounds over data; the upper one is infinite without reverse chains."""
        return float(self.lower.mean()), float("inf") if self.upper is None else float(self.upper.mean())

    @property
    def standard_error(self) -> tuple[float, float]:
        """Standard errors of the means, over data."""
        return standard_error(self.lower), float("nan") if self.upper is None else standard_error(self.upper)

    @property
    def monte_carlo_error(self) -> tuple[float, float]:
        """Monte Carlo errors of the means, over chains."""
        both = (self.lower_errors, self.upper_errors)
        low, high = (float("nan") if e is None else float(np.sqrt((e**2).sum()) / len(e)) for e in both)
        return low, high

    @property
    def gap(self) -> float:
        """Upper mean minus lower mean: in expectation, neither is further than this from log p(x)."""
        return self.mean[1] - self.mean[0]

    @property
    def crossed(self) -> bool:
        """Whether the lower mean is above the upper one by more than chance: then chains don't mix, or the reverse
        chains don't start at the posterior.
        """
        if self.upper is None:
            return False
        error = standard_error(self.upper - self.lower)
        slack = 10.0 if np.isnan(error) else 5.0 * error + min(1e-3 * (1.0 + abs(self.mean[0])), 0.1)
        return self.gap < -slack

    def __str__(self) -> str:
        (low, high), (error, above) = self.mean, self.standard_error
        if self.upper is None:
            return f"log p(x) ≥ {low:.3f} ± {error:.3f} nats (C = {self.chains})"
        if high < low and not self.crossed:
            both = f"{low:.3f} ± {error:.3f} from below, {high:.3f} ± {above:.3f} from above"
            return f"log p(x) = {both}: equal within their errors (N = {len(self.lower)}, C = {self.chains})"
        return (
            f"{low:.3f} ± {error:.3f} ≤ log p(x) ≤ {high:.3f} ± {above:.3f} nats (N = {len(self.lower)}, C = "
            f"{self.chains}, gap {self.gap:.3f})"
        )


def bracket(forward: ArrayLike, reverse: ArrayLike | None = None) -> Bracket:
    """log 1/C Σ_c e^{f_c} ≤ log p(x) ≤ −log 1/C Σ_c e^{r_c}, each in expectation.

    Forward chains go from the prior to the posterior. Reverse chains go from an exact posterior draw, which is known
    for simulated data, back to the prior. Wu et al. 2017, arXiv:1611.04273; Grosse et al. 2015, arXiv:1511.02543.

    Args:
        forward: log-weights f of the forward chains, with E[e^f] = p(x), [C, N], nats; −inf for a weight of 0.
        reverse: log-weights r of the reverse chains, with E[e^r] = 1/p(x), [C', N], nats: about as large as −f.

    Raises:
        DataError: the arrays are not numbers [C, N], or `reverse` has another number of rows.
    """
    ahead = checked("forward", forward, "C N", zero_weight=True)
    lower, lower_errors = log_mean_exp(ahead)
    if reverse is None:
        return Bracket(lower, lower_errors, None, None, len(ahead))
    back = checked("reverse", reverse, "C N", zero_weight=True)
    if back.shape[1] != ahead.shape[1]:
        raise DataError(f"reverse: got N = {back.shape[1]} rows, expected {ahead.shape[1]}, the same as forward.")
    upper, upper_errors = log_mean_exp(back)
    return Bracket(lower, lower_errors, -upper, upper_errors, len(ahead))
