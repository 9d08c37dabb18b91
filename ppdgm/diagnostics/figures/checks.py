"""Figures of predictive checks: statistics of data drawn from the model, and those of the real data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.figures.canvas import BLUE, ORANGE, SMALL, Drawing, edges, finite, outer_labels, panels

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found
    from ppdgm.diagnostics.predictive import PredictiveCheck

MOST = 8


def posterior(found: Found) -> Drawing | None:
    """Posterior predictive checks."""
    caption = (
        f"New data sets, drawn from the posteriors of {_which(found)} (blue), and the data themselves (line). If the "
        "line is outside the blue and p is near 0, the model does not reproduce this statistic. ✗ marks statistics "
        "that fail at level 0.01, corrected for their number."
    )
    return _checks("posterior-predictive", "Posterior predictive checks", caption, found.checks, found.units)


def prior(found: Found) -> Drawing | None:
    """Prior predictive checks."""
    caption = (
        f"New data sets, drawn from the prior (blue), and {_which(found)} (line). If the line is outside the blue "
        "but the posterior's check is good, the prior does not fit the codes of the data."
    )
    return _checks("prior-predictive", "Prior predictive checks", caption, found.prior_checks, found.units)


def _which(found: Found) -> str:
    """The rows that were checked, in words."""
    size = found.sizes.get("predictive checks", found.size)
    return "these data" if size >= found.size else f"{size:,} of the {found.size:,} rows, chosen at random"


def _checks(name: str, title: str, caption: str, checks: Sequence[PredictiveCheck], units: str) -> Drawing | None:
    if not checks:
        return None
    figure, every = panels(min(len(checks), MOST), 2, 1.05)
    for axes, check in zip(every, checks, strict=False):
        drawn = finite(check.replicated)
        low, high = _range(np.append(drawn, check.observed))
        if len(drawn) and np.ptp(drawn) > 1e-9 * (high - low):
            axes.hist(drawn, edges(drawn, 15), color=BLUE, alpha=0.6)
        elif len(drawn):
            axes.bar(drawn[0], len(drawn), (high - low) / 12, color=BLUE, alpha=0.6)
        axes.axvline(check.observed, color=ORANGE, linewidth=2)
        mark = "✗ " if check.odd else ""
        axes.set_title(f"{mark}{check.name}, p = {check.p:.2g}", fontsize=SMALL)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        if len(np.unique(ends := np.append(drawn, check.observed))) <= 2:
            axes.set_xticks(np.unique(ends))
        else:
            axes.locator_params(axis="x", nbins=3)
        axes.set_xlim(low, high)
    outer_labels(figure, f"value of the statistic, {units}" if units else "value of the statistic")
    return Drawing(name, title, caption, figure)


def _range(values: np.ndarray) -> tuple[float, float]:
    """The range of the values, with a little space on both sides, even if all values are the same."""
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    room = 0.1 * (high - low) or 0.05 * max(abs(low), 1.0)
    return low - room, high + room
