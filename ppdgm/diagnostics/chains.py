"""Diagnostics of Markov chains. They have no meaning for a guide's independent draws."""

from __future__ import annotations

from ppdgm.errors import DataError, nearest, shown

_INDEPENDENT = "draws of a guide are independent, so there are no chains that could fail to converge or mix"
WITHHELD = {
    "r_hat": f"R̂ compares chains, but {_INDEPENDENT}. Use Pareto k̂ (pareto_k) and calibration (uniformity).",
    "ess": (
        f"The effective sample size of chains corrects for autocorrelation, but {_INDEPENDENT}. Use that of "
        "importance weights: effective_sample_size(log_weights)."
    ),
    "mcse": f"ArviZ's Monte Carlo errors need chains, but {_INDEPENDENT}. With S draws the error is sd / √S.",
    "autocorr": f"There is no autocorrelation: {_INDEPENDENT}.",
    "trace": f"A trace plot shows chains, but {_INDEPENDENT}.",
    "rank": (
        f"Rank plots of draws compare chains, but {_INDEPENDENT}. For ranks of simulated true values, use "
        "ranks(draws, truth)."
    ),
    "bfmi": "Energy is a quantity of Hamiltonian Monte Carlo; a guide has no energy.",
    "divergences": "Divergences are failures of Hamiltonian Monte Carlo; a guide has no divergences.",
}
_ALSO = {
    "rhat": "r_hat",
    "ess_bulk": "ess",
    "ess_tail": "ess",
    "mcse_mean": "mcse",
    "mcse_sd": "mcse",
    "energy": "bfmi",
    "diverging": "divergences",
}


def withheld(name: str) -> str:
    """Why ppdgm doesn't report a diagnostic of Markov chains, and what to use instead.

    Args:
        name: its name in ArviZ, such as "r_hat" or "ess_bulk".

    Raises:
        DataError: the name isn't one of these diagnostics.
    """
    key = _ALSO.get(name, name) if isinstance(name, str) else ""
    if key not in WITHHELD:
        raise DataError(
            f"name: got {shown(name)}, expected the name of a diagnostic of chains. {nearest(str(name), WITHHELD)}"
        )
    return WITHHELD[key]
