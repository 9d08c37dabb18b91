"""Diagnostics of a guide and a model. They need only arrays: log-weights, encodings, draws."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppdgm.diagnostics.aggregated import gaussian_kl, log_aggregated, log_aggregated_of
    from ppdgm.diagnostics.annealing import Bracket, bracket
    from ppdgm.diagnostics.arrays import Measured
    from ppdgm.diagnostics.calibration import Coverage, coverage, pit, ranks
    from ppdgm.diagnostics.chains import withheld
    from ppdgm.diagnostics.codebook import CodeUse, code_use
    from ppdgm.diagnostics.curve import BoundCurve, bound_curve, log_mean_exp, resample
    from ppdgm.diagnostics.inference_data import to_arviz
    from ppdgm.diagnostics.latents import ActiveUnits, LatentUse, SiteUse, active_units, latent_use
    from ppdgm.diagnostics.leave_one_out import Loo, loo
    from ppdgm.diagnostics.predictive import PredictiveCheck, predictive_check
    from ppdgm.diagnostics.rank_tests import Uniformity, uniformity
    from ppdgm.diagnostics.surgery import Surgery, elbo_surgery
    from ppdgm.diagnostics.weights import WeightQuality, effective_sample_size, pareto_k, weight_quality

_HOMES = {
    "ActiveUnits": "latents",
    "BoundCurve": "curve",
    "Bracket": "annealing",
    "CodeUse": "codebook",
    "Coverage": "calibration",
    "LatentUse": "latents",
    "Loo": "leave_one_out",
    "Measured": "arrays",
    "PredictiveCheck": "predictive",
    "SiteUse": "latents",
    "Surgery": "surgery",
    "Uniformity": "rank_tests",
    "WeightQuality": "weights",
    "active_units": "latents",
    "bound_curve": "curve",
    "code_use": "codebook",
    "bracket": "annealing",
    "coverage": "calibration",
    "effective_sample_size": "weights",
    "elbo_surgery": "surgery",
    "gaussian_kl": "aggregated",
    "latent_use": "latents",
    "log_aggregated": "aggregated",
    "log_aggregated_of": "aggregated",
    "log_mean_exp": "curve",
    "loo": "leave_one_out",
    "pareto_k": "weights",
    "pit": "calibration",
    "predictive_check": "predictive",
    "ranks": "calibration",
    "resample": "curve",
    "to_arviz": "inference_data",
    "uniformity": "rank_tests",
    "weight_quality": "weights",
    "withheld": "chains",
}

__all__ = [
    "ActiveUnits",
    "BoundCurve",
    "Bracket",
    "CodeUse",
    "Coverage",
    "LatentUse",
    "Loo",
    "Measured",
    "PredictiveCheck",
    "SiteUse",
    "Surgery",
    "Uniformity",
    "WeightQuality",
    "active_units",
    "bound_curve",
    "bracket",
    "code_use",
    "coverage",
    "effective_sample_size",
    "elbo_surgery",
    "gaussian_kl",
    "latent_use",
    "log_aggregated",
    "log_aggregated_of",
    "log_mean_exp",
    "loo",
    "pareto_k",
    "pit",
    "predictive_check",
    "ranks",
    "resample",
    "to_arviz",
    "uniformity",
    "weight_quality",
    "withheld",
]


def __getattr__(name: str) -> Any:
    """Public names, imported when first used, because ArviZ, xarray and SciPy take a while to import."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ppdgm.diagnostics' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ppdgm.diagnostics.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
