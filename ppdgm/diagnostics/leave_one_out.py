"""Leave-one-out cross-validation, from a guide of latents that all rows share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import Measured, as_array, checked, float64, log_sum_exp, over_data, rounding
from ppdgm.diagnostics.psis import check_draws, fit_tail
from ppdgm.errors import DataError, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Loo:
    """Expected log predictive density of each row, given all others, in nats.

    Attributes:
        values: log p(x_n | x_−n), [N].
        p_loo_values: log p(x_n | x) minus this value, [N]; the sum is an effective number of parameters.
        pareto_k: k̂ of the weights of each row, [N]; if it is above 0.7, the value of the row is not reliable.
        guide_k: k̂ of the guide's own weights p(z, x) / q(z), with no row left out.
        elpd: Σ_n values, with its Monte Carlo error over draws.
    """

    values: np.ndarray
    p_loo_values: np.ndarray
    pareto_k: np.ndarray
    guide_k: float
    elpd: Measured

    @property
    def standard_error(self) -> float:
        """Standard error of elpd over data: √(N Var(values))."""
        return float(np.sqrt(len(self.values) * self.values.var(ddof=1))) if len(self.values) > 1 else float("nan")

    @property
    def p_loo(self) -> float:
        """The effective number of parameters."""
        return float(self.p_loo_values.sum())

    def worst(self, n: int = 10) -> np.ndarray:
        """Indices of the n rows with the largest k̂, the worst first.

        Raises:
            PpdgmError: n is not a positive whole number.
        """
        require("n", n, int, 1, "a positive whole number of rows")
        return np.argsort(-np.nan_to_num(self.pareto_k, nan=0.7), kind="stable")[:n]

    def __str__(self) -> str:
        bad = int((self.pareto_k > 0.7).sum())
        told = f"k̂ is above 0.7 for {bad} of {len(self.values)} rows" + (
            f", the worst is row {int(self.worst(1)[0])}." if bad else "."
        )
        if self.guide_k > 0.7:
            told += f" The guide itself is too far from the posterior (k̂ = {self.guide_k:.2f}): refine it first."
        return (
            f"elpd {self.elpd.value:.3f} ± {self.standard_error:.3f} nats (Monte Carlo error {self.elpd.error:.3f}), "
            f"p_loo {self.p_loo:.2f}; {told}"
        )


def loo(log_likelihood: ArrayLike, log_p: ArrayLike, log_q: ArrayLike) -> Loo:
    """log p(x_n | x_−n) = log Σ_s w_sn p(x_n|z_s) / Σ_s w_sn, w_sn ∝ p(z_s, x) / (q(z_s) p(x_n|z_s)), smoothed.

    Use it for latents z that all rows share, with S draws from q(z): Magnusson et al. 2019, arXiv:1904.10679; Vehtari
    et al. 2017, arXiv:1507.04544. It is not for models in which each row has its own latent: without x_n, that latent
    has its prior again, so that no weights of posterior draws are right. The Monte Carlo error is from the jackknife
    over draws, because all rows share them.

    Args:
        log_likelihood: log p(x_n|z_s), [S, N], nats.
        log_p: log p(z_s, x) = log p(z_s) + Σ_n log p(x_n|z_s), up to a constant, [S].
        log_q: log q(z_s), up to a constant, [S].

    Raises:
        DataError: the arrays are not numbers of these shapes, there are fewer than 30 draws, or log_p or log_q has a
            value for each row.
    """
    seen = checked("log_likelihood", log_likelihood, "S N")
    for name, value in (("log_p", log_p), ("log_q", log_q)):
        shape = as_array(name, value).shape
        if len(shape) == 2:
            raise DataError(
                f"{name}: got shape {shape}, a density per row; expected [S], for latents that all rows share. If "
                "each row has its own latent and a row is left out, the posterior of its latent is the prior, and "
                "weights of posterior draws can't show that. Use log_likelihood() of held-out data."
            )
        if len(shape) == 1 and shape != (len(seen),):
            raise DataError(f"{name}: got {shape[0]} draws, expected S = {len(seen)}, the same as log_likelihood.")
    correction = float64("log_p", log_p, "S") - float64("log_q", log_q, "S")
    check_draws("log_likelihood", len(seen), "S")
    correction -= correction.max()
    full, guide_k = fit_tail(correction[None], rounding(correction[:, None]))
    values, p_loo, k = np.empty((3, seen.shape[1]))
    without = np.zeros(len(seen))  # elpd without each draw, minus elpd
    for where, block in over_data(seen):
        log_w = np.ascontiguousarray((correction[:, None] - block).T)
        smoothed, k[where] = fit_tail(log_w, rounding(log_w.T))
        smoothed = smoothed.T
        values[where] = log_sum_exp(smoothed + block)
        p_loo[where] = log_sum_exp(full.T + block) - values[where]
        without += (_less(smoothed + block - values[where]) - _less(smoothed)).sum(1)
    error = np.sqrt((1.0 - 1.0 / len(seen)) * ((without - without.mean()) ** 2).sum())
    return Loo(values, p_loo, k, float(guide_k[0]), Measured(float(values.sum()), float(error)))


def _less(log_shares: np.ndarray) -> np.ndarray:
    """log(1 − share), with shares kept below 1."""
    return np.log1p(-np.minimum(np.exp(log_shares), 1.0 - np.finfo(np.float64).eps))
