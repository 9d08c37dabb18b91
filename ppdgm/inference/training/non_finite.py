"""A step that is not finite, described by site, quantity and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppdgm.language.vocabulary import Trace

ADVICE = (
    "Try a smaller learning_rate, clip_norm=…, or a larger min_scale, and check that these data are possible "
    "under the model."
)


FAR, LAST = 100.0, 100  # allowed fall in first ELBOs (at least 1 nat); last steps that are averaged


def diverged(history: Mapping[str, np.ndarray]) -> str:
    """The message on a run whose bound ended far below where it began; "" for other runs."""
    elbo = np.asarray(history.get("elbo", ()), np.float64)
    elbo = elbo[np.isfinite(elbo)]
    if len(elbo) < 2:
        return ""
    first, last = float(elbo[0]), float(elbo[-min(LAST, len(elbo) // 2) :].mean())
    if last >= first - FAR * max(1.0, abs(first)):
        return ""
    return f"Training diverged: the ELBO was {first:.4g} nats per row at the start, and {last:.4g} at the end."


def describe_non_finite(
    step: int, terms: Trace, gradients: Mapping[str, np.ndarray], rows: np.ndarray, updates: Mapping[str, np.ndarray]
) -> str:
    """One line: the first quantity of the step that is not finite, where, and for which rows.

    Args:
        step: its number.
        terms: of guide and model, [K, B].
        gradients: by parameter.
        rows: the numbers of the rows, [B].
        updates: new values of states.
    """
    return f"Step {step} was skipped: {_cause(terms, gradients, rows, updates)}."


def _cause(
    terms: Trace, gradients: Mapping[str, np.ndarray], rows: np.ndarray, updates: Mapping[str, np.ndarray]
) -> str:
    for what, site, value in _quantities(terms):
        bad = ~np.isfinite(value)
        if site in terms.shared or value.ndim < 2:
            if bad.any():
                return f"{what} of site {site!r} is {value[bad].flat[0]}"
            continue
        found = bad.any(axis=tuple(i for i in range(bad.ndim) if i != 1))
        if found.any():
            data = sorted({int(i) for i in rows[found]})
            shown = f"{data[:8]}"[:-1] + (", …]" if len(data) > 8 else "]")
            number = value[:, found][bad[:, found]].flat[0]
            return (
                f"{what} of site {site!r} is {number} in rows {shown} ({len(data)} of the {len(rows)} in the minibatch)"
            )
    for name, value in gradients.items():
        if not np.isfinite(value).all():
            return f"the gradient of {name!r} is {value[~np.isfinite(value)].flat[0]}, although all terms are finite"
    for name, value in updates.items():
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


def _quantities(terms: Trace) -> list[tuple[str, str, np.ndarray]]:
    """Values before the densities that depend on them, the guide before the model.

    Values of enumerated sites, and values that depend on them, have more axes. They cover all possible values, so they
    are not a cause.
    """
    lead = next((t.shape for t in {**terms.log_q, **terms.log_p}.values()), None)
    drawn = {n: v for n, v in terms.values.items() if n in terms.shared or (n in terms.log_q and v.shape[:2] == lead)}
    order: list[tuple[str, Mapping[str, Any]]] = [
        ("the value", drawn),
        ("log q", terms.log_q),
        ("log p", terms.log_p),
        ("the KL", terms.kl),
        ("log p − log q", terms.shared),
        ("the penalty", terms.penalties or {}),
    ]
    return [(what, site, np.asarray(value)) for what, sites in order for site, value in sites.items()]
