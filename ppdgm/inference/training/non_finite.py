"""A step that is not finite, described by site, quantity and rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppdgm.language.trainer import Symptoms
from ppdgm.language.vocabulary import Array, Trace

ADVICE = (
    "Try a smaller learning_rate, clip_norm=…, or a larger min_scale, and check that these data are possible "
    "under the model."
)


FAR, LAST = 100.0, 100  # allowed fall in first ELBOs (at least 1 nat); last steps that are averaged


def diverged(history: Mapping[str, np.ndarray], one: bool = True) -> str:
    """The message on a run whose ELBO ended far below where it began; "" for other runs.

    Args:
        history: of the run. If it has no ELBO, the objective counts.
        one: whether all steps climb one objective: those of players may fall.
    """
    name = "elbo" if "elbo" in history else "objective" if one else ""
    climbed = np.asarray(history.get(name, ()), np.float64)
    climbed = climbed[np.isfinite(climbed)]
    if len(climbed) < 2:
        return ""
    first, last = float(climbed[0]), float(climbed[-min(LAST, len(climbed) // 2) :].mean())
    if last >= first - FAR * max(1.0, abs(first)):
        return ""
    what, unit = ("ELBO", " nats per row") if name == "elbo" else ("objective", "")
    return f"Training diverged: the {what} was {first:.4g}{unit} at the start, and {last:.4g} at the end."


def describe_non_finite(step: int, found: Symptoms, rows: np.ndarray) -> str:
    """One line: the first quantity of the step that is not finite, where, and for which rows.

    Args:
        step: its number.
        found: its quantities.
        rows: the numbers of the rows, [B].
    """
    return f"Step {step} was skipped: {_cause(found, rows)}."


def _cause(found: Symptoms, rows: np.ndarray) -> str:
    terms, gradients = found.terms, found.gradients
    shared = terms.shared if terms else {}
    for what, site, value in _quantities(terms) if terms else []:
        if site in shared or value.ndim < 2:
            if (bad := ~np.isfinite(value)).any():
                return f"{what} of site {site!r} is {value[bad].flat[0]}"
        elif where := _where(value, 1, rows):
            return f"{what} of site {site!r} is {where}"
    for role, value in found.returned.items():
        of_rows = value.ndim in (1, 2) and value.shape[-1] == len(rows)
        if of_rows and value.dtype.kind == "f" and (where := _where(value, value.ndim - 1, rows)):
            return f"what {role!r} returned is {where}"
    for name, value in gradients.items():
        if not np.isfinite(value).all():
            return f"the gradient of {name!r} is {value[~np.isfinite(value)].flat[0]}, although all terms are finite"
    for name, value in found.updates.items():
        if not np.isfinite(value).all():
            bad = value[~np.isfinite(value)].flat[0]
            return f"the update of the state {name!r} is {bad}, although all terms and gradients are finite"
    largest = max(gradients, key=lambda n: np.abs(gradients[n]).max(initial=0.0), default="")
    if largest and (size := float(np.abs(gradients[largest]).max())) > 1e15:
        return f"the gradient of {largest!r} is as large as {size:.1e}, which overflows in the optimiser"
    return (
        "the objective or its gradient is not finite, but a repetition outside the compiled step was finite, so "
        "the cause is not known"
    )


def _where(value: np.ndarray, axis: int, rows: np.ndarray) -> str:
    """The first number that is not finite, and its rows, along an axis; "" if all are finite."""
    bad = np.moveaxis(~np.isfinite(value), axis, 0)
    found = bad.reshape(len(bad), -1).any(1)
    if not found.any():
        return ""
    data = sorted({int(i) for i in rows[found]})
    shown = f"{data[:8]}"[:-1] + (", …]" if len(data) > 8 else "]")
    number = value[np.moveaxis(bad, 0, axis)].flat[0]
    return f"{number} in rows {shown} ({len(data)} of the {len(rows)} in the minibatch)"


def _quantities(terms: Trace) -> list[tuple[str, str, np.ndarray]]:
    """Values before the densities that depend on them, the guide before the model.

    Values of enumerated sites, and values that depend on them, have more axes. They cover all possible values, so they
    are not a cause.
    """
    lead = next((t.shape for t in {**terms.log_q, **terms.log_p}.values()), None)
    drawn = {n: v for n, v in terms.values.items() if n in terms.shared or (n in terms.log_q and v.shape[:2] == lead)}
    order: list[tuple[str, Mapping[str, Array]]] = [
        ("the value", drawn),
        ("log q", terms.log_q),
        ("log p", terms.log_p),
        ("the KL", terms.kl),
        ("log p − log q", terms.shared),
        ("the penalty", terms.penalties or {}),
    ]
    return [(what, site, np.asarray(value)) for what, sites in order for site, value in sites.items()]
