"""ELBO surgery: which part of the KL is information about the data, and which part is a mismatch of the prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import Measured, check_share, float64, same_shape, standard_error
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Surgery:
    """The parts of a mean ELBO, in nats per row: reconstruction − mutual information − marginal KL.

    Attributes:
        elbo: E[log p(x|z)] − KL.
        reconstruction: E[log p(x|z)].
        kl: E KL(q(z|x) ‖ p(z)), the sum of the next two.
        mutual_information: of the index of a row and its code, E[log q(z|x) − log q(z)].
        marginal_kl: KL(q(z) ‖ p(z)), which a better prior can remove.
        most: log N; the mutual information of N rows is never above it.
        saturation: the share of `most` from which on mutual information counts as saturated.
    """

    elbo: Measured
    reconstruction: Measured
    kl: Measured
    mutual_information: Measured
    marginal_kl: Measured
    most: float
    saturation: float

    @property
    def saturated(self) -> bool:
        """Whether mutual information is near log N. Then nearly every code identifies its row, and N is too small to
        show how much more information there is; the marginal KL is too large by the same amount.
        """
        return self.mutual_information.value >= self.saturation * self.most

    def __str__(self) -> str:
        names = ("elbo", "reconstruction", "kl", "mutual_information", "marginal_kl")
        lines = [f"{n.replace('_', ' ')}: {getattr(self, n)} nats" for n in names]
        lines.append(f"log N: {self.most:.3f} nats")
        if self.saturated:
            lines.append(
                "The mutual information is saturated: it is close to log N, the largest value that N rows can show. "
                "Use more data to separate information from mismatch."
            )
        return "\n".join(lines)


def elbo_surgery(
    reconstruction: ArrayLike, own: ArrayLike, aggregated: ArrayLike, prior: ArrayLike, saturation: float = 0.95
) -> Surgery:
    """ELBO = E[log p(x|z)] − I(n; z) − KL(q(z) ‖ p(z)), with q(z) = 1/N Σ_n q(z|x_n), z ~ q(z|x_n).

    Hoffman & Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence lower bound". The N rows
    are taken as all data. With S > 1 draws the Monte Carlo error is that of the draws, √(Σ_n s_n² / S) / N, with s_n²
    the variance over the draws of row n. With a single draw s_n² is not known; the error is then sd / √N over data,
    which is larger.

    Args:
        reconstruction: log p(x_n|z_sn), [S, N], nats.
        own: log q(z_sn|x_n), [S, N].
        aggregated: log q(z_sn), [S, N], from `log_aggregated` with the same N rows.
        prior: log p(z_sn), [S, N].
        saturation: the share of log N from which on mutual information counts as saturated.

    Raises:
        DataError: the arrays are not numbers [S, N] of one shape, or log q(z) can't be a mean of N densities.
    """
    given = {"reconstruction": reconstruction, "own": own, "aggregated": aggregated, "prior": prior}
    terms = {name: float64(name, value, "S N") for name, value in given.items()}
    same_shape(**terms)
    check_share("saturation", saturation, "a share of log N")
    most = float(np.log(terms["own"].shape[1]))
    information = terms["own"] - terms["aggregated"]
    _check_mean(information, most)
    kl = terms["own"] - terms["prior"]
    return Surgery(
        elbo=_measure(terms["reconstruction"] - kl),
        reconstruction=_measure(terms["reconstruction"]),
        kl=_measure(kl),
        mutual_information=_measure(information),
        marginal_kl=_measure(terms["aggregated"] - terms["prior"]),
        most=most,
        saturation=saturation,
    )


def _measure(terms: np.ndarray) -> Measured:
    draws, size = terms.shape
    if draws == 1:
        return Measured(float(terms.mean()), standard_error(terms[0]))
    return Measured(float(terms.mean()), float(np.sqrt((terms.var(0, ddof=1) / draws).sum()) / size))


def _check_mean(information: np.ndarray, most: float) -> None:
    """q(z) contains q(z|x_n)/N, so log q(z|x_n) − log q(z) is never above log N, except for rounding."""
    over = information - most
    if over.max() > 0.05 * (1.0 + most):  # more than float32's rounding, and less than with other data
        s, n = (int(i) for i in np.unravel_index(int(over.argmax()), over.shape))
        raise DataError(
            f"aggregated: at draw {s} of row {n}, own − aggregated is {information[s, n]:.3f} nats, above log N = "
            f"{most:.3f}. Expected log q(z) = log 1/N Σ_n q(z|x_n) of the same N rows: use log_aggregated(draws, "
            "loc, scale), and give both the same draws."
        )
