"""A diagnosis as plain values, for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ppdgm.diagnostics.annealing import Bracket
    from ppdgm.diagnostics.found import EstimateLike, Found, Gaps
    from ppdgm.diagnostics.latents import LatentUse
    from ppdgm.diagnostics.rank_tests import Uniformity
    from ppdgm.diagnostics.surgery import Surgery

_BY_DATUM = ("values", "errors")


def summary_table(diagnosis: Found) -> dict[str, object]:
    """The numbers of a diagnosis as values for JSON; None means that a number is not finite or not available.

    Bounds over k are given as means over data. The history of training and the pictures are left out.

    Args:
        diagnosis: a `Diagnosis`.
    """
    d = diagnosis
    found: dict[str, object] = {
        "title": d.title,
        "size": d.size,
        "verdict": [_of(f, ("about", "grade", "text", "advice")) for f in d.verdict],
        "log_likelihood": _estimate(d.log_likelihood),
        "elbo": _estimate(d.elbo),
        "baseline": _of(d.baseline, ("index", "values")),
        "curve": _of(d.curve, ("k", "mean", "standard_error", "monte_carlo_error")),
        "weights": _of(d.weights, ("k", "threshold", "pareto_k", "effective_sample_size", "exact")),
        "use": _use(d.use),
        "surgery": _surgery(d.surgery),
        "calibration": {n: _uniformity(u) for n, u in d.calibration.items()},
        "coverage": {
            n: _of(c, ("levels", "shares", "standard_errors", "overall", "overall_errors"))
            for n, c in d.coverage.items()
        },
        "checks": [_of(c, ("name", "observed", "replicated", "p", "adjusted")) for c in d.checks],
        "prior_checks": [_of(c, ("name", "observed", "replicated", "p", "adjusted")) for c in d.prior_checks],
        "gaps": _gaps(d.gaps),
        "bracket": _bracket(d.bracket),
        "withheld": d.withheld,
        "recipe": d.recipe,
        "versions": d.versions,
        "seconds": d.seconds,
        "sizes": d.sizes,
    }
    plain: dict[str, object] = _plain(found)
    return plain


def _of(part: object, names: Iterable[str]) -> dict[str, object] | None:
    return None if part is None else {name: getattr(part, name) for name in names}


def _estimate(part: EstimateLike | None) -> dict[str, object] | None:
    return _of(
        part, ("mean", "standard_error", "monte_carlo_error", "bias", "k", "of", "bits_per_dimension", *_BY_DATUM)
    )


def _use(use: LatentUse | None) -> dict[str, object] | None:
    if use is None:
        return None
    names = ("name", "used", "collapsed", "variance", "kl", "site_kl")
    return {"nats": use.nats, "threshold": use.threshold, "sites": [_of(s, names) for s in use.sites]}


def _surgery(surgery: Surgery | None) -> dict[str, object] | None:
    if surgery is None:
        return None
    parts = ("elbo", "reconstruction", "kl", "mutual_information", "marginal_kl")
    measured = {name: _of(getattr(surgery, name), ("value", "error")) for name in parts}
    return {**measured, "most": surgery.most, "saturation": surgery.saturation, "saturated": surgery.saturated}


def _uniformity(u: Uniformity) -> dict[str, object] | None:
    names = ("calibrated", "failing", "level", "p", "adjusted", "chi2_p", "ecdf_p", "points", "ecdf", "lower", "upper")
    return _of(u, names)


def _gaps(gaps: Gaps | None) -> dict[str, object] | None:
    if gaps is None:
        return None
    measured = {n: _of(getattr(gaps, n), ("value", "error")) for n in ("inference", "approximation", "amortisation")}
    return {
        **measured,
        **(_of(gaps, ("family", "index", "log_likelihood", "errors", "known", "unknown", "guide", "refitted")) or {}),
    }


def _bracket(bracket: Bracket | None) -> dict[str, object] | None:
    names = ("mean", "standard_error", "monte_carlo_error", "gap", "crossed", "chains")
    return _of(bracket, (*names, "lower", "lower_errors", "upper", "upper_errors"))


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
