"""Figures of the guide: k̂, calibration, coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.diagnostics.figures.canvas import (
    BLUE,
    GREY,
    INK,
    MUTED,
    ORANGE,
    RED,
    RULE,
    SMALL,
    Drawing,
    blank,
    cut,
    key,
    outer_labels,
    panels,
    plain_logarithm,
    short,
)

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found
    from ppdgm.diagnostics.rank_tests import Uniformity
    from ppdgm.diagnostics.weights import WeightQuality
    from ppdgm.plots import Axes

MOST_SITES, NAMED = 6, 3


def pareto(found: Found) -> Drawing | None:
    """k̂ of each row against its effective sample size."""
    w = found.weights
    if w is None:
        return None
    there = np.isfinite(w.pareto_k) & (w.effective_sample_size > 0)
    if not there.any():
        return None
    k, size = w.pareto_k[there], w.effective_sample_size[there]
    figure = blank(3.5)
    axes = figure.subplots()
    axes.scatter(size, k, s=10, color=np.where(k > 0.7, RED, BLUE), alpha=0.7, linewidth=0, rasterized=True)
    axes.set_xscale("log")
    low = float(size.min())
    plain_logarithm(axes.xaxis, min(low, w.k / 10), w.k)
    axes.set_xlim(0.85 * min(low, w.k / 10), 1.15 * w.k)
    top, bottom = max(1.0, float(k.max()) + 0.1), min(0.0, float(k.min()) - 0.05)
    axes.set_ylim(bottom, top)
    for level in (0.5, 0.7):
        axes.axhline(level, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        side = "bottom" if level > 0.6 else "top"
        axes.text(1.01, level, level, transform=axes.get_yaxis_transform(), va=side, fontsize=SMALL, color=MUTED)
    _name_worst(axes, w)
    axes.set_xlabel(f"effective sample size of {w.k:,} draws (log scale)")
    axes.set_ylabel("Pareto k̂")
    hidden = int((~there).sum())
    caption = (
        "Each point is one row. If k̂ is below 0.5, the guide's draws represent the posterior well. If it is above "
        "0.7 (red), they do not, and log p(x) is estimated too low. Worst rows: "
        f"{', '.join(str(i) for i in w.worst(5))}."
    )
    if hidden:
        caption += f" {hidden:,} rows are not shown: their weights are equal, or have no tail to which k̂ can be fitted."
    return Drawing("pareto-k", "Pareto k̂ of each row", caption, figure)


def _name_worst(axes: Axes, w: WeightQuality) -> None:
    """Label the rows with the largest k̂ by number. Of two labels close together, one is put lower to avoid overlap."""
    before: list[tuple[float, float]] = []
    line = 0.055 * np.ptp(axes.get_ylim())
    wide = 0.3 * np.ptp(np.log10(axes.get_xlim()))
    for i in w.worst(NAMED):
        if not np.isfinite(w.pareto_k[i]):
            continue
        x, y = float(w.effective_sample_size[i]), float(w.pareto_k[i])
        near = [b for a, b in before if abs(np.log10(a / x)) < wide and abs(b - y) < line]
        at = (x, min([y, *(b - line for b in near)]))
        before.append(at)
        left = np.log10(x / axes.get_xlim()[0]) > 2.2 * wide
        place: dict[str, Any] = {"xytext": (-6 if left else 6, 0), "ha": "right" if left else "left", "va": "center"}
        axes.annotate(f"row {i}", at, textcoords="offset points", fontsize=SMALL, color=INK, **place)


def _simulated(found: Found) -> str:
    return f"{found.sizes['calibration']:,} rows" if "calibration" in found.sizes else "data"


def calibration(found: Found) -> Drawing | None:
    """The ECDF of the ranks minus the uniform one, with its band."""
    if not found.calibration:
        return None
    names = list(found.calibration)[:MOST_SITES]
    figure, every = panels(len(names), 1 if len(names) <= 3 else 2, 1.8, sharex=True)
    for axes, name in zip(every, names, strict=True):
        _differences(axes, found.calibration[name])
        u, most = found.calibration[name], 14 if len(names) <= 3 else 10
        axes.set_title(f"{short(name, most)}: {len(u.failing)} of {len(u.p)} fail", fontsize=SMALL)
    outer_labels(figure, "rank of the truth among the guide's draws, from 0 to 1", "ECDF − uniform")
    level = next(iter(found.calibration.values())).level
    caption = (
        f"On {_simulated(found)} simulated from the model. If the guide is calibrated, all lines stay in the band "
        f"with probability {1 - level:.0%}. Red dimensions fail this test, or the test of counts in bins. A line "
        "that rises above 0 and then falls below it shows a guide that is too narrow; the opposite order shows a "
        "guide that is too wide. A line on only one side of 0 shows a shifted guide."
    ) + cut(len(names), len(found.calibration), "sites")
    return Drawing("calibration", "Calibration", caption, figure)


def _differences(axes: Axes, u: Uniformity) -> None:
    x = np.concatenate([[0.0], u.points, [1.0]])
    pad = lambda values: np.concatenate([[0.0], values, [0.0]])
    axes.fill_between(x, pad(u.lower - u.points), pad(u.upper - u.points), color=RULE, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.7)
    failing = list(u.failing)
    for d in range(u.ecdf.shape[1]):
        if d not in failing:
            axes.plot(x, pad(u.ecdf[:, d] - u.points), color=BLUE, linewidth=0.8, alpha=0.6)
    for d in failing:
        axes.plot(x, pad(u.ecdf[:, d] - u.points), color=RED, linewidth=1.5)
    axes.set_xlim(0, 1)


def coverage(found: Found) -> Drawing | None:
    """How often central intervals contain the truth, minus how often they should."""
    if not found.coverage:
        return None
    names = list(found.coverage)[:MOST_SITES]
    figure = blank(3.0)
    axes = figure.subplots()
    axes.axhline(0, color=INK, linewidth=0.8)
    levels = found.coverage[names[0]].levels
    marks = ("o", "D", "s", "^", "v", "P")
    for j, name in enumerate(names):
        c = found.coverage[name]
        colour = BLUE if j % 2 == 0 else ORANGE
        at = np.arange(len(c.levels)) + 0.16 * (j - (len(names) - 1) / 2)
        each = 100 * (c.shares - c.levels[:, None])
        axes.plot(at, each, "_", color=GREY, markersize=7, alpha=0.7)
        error = np.nan_to_num(200 * c.overall_errors)
        axes.errorbar(at, 100 * (c.overall - c.levels), error, fmt=marks[j], color=colour, markersize=5, capsize=3,
                      label=short(name, 14 if len(names) <= 3 else 10))  # fmt: skip
    axes.set_xticks(np.arange(len(levels)), [f"{level:.0%}" for level in levels])
    axes.set_xlabel("nominal level of the interval")
    axes.set_ylabel("coverage − level, points")
    if len(names) > 1:
        key(figure, axes, loc="outside upper left")
    caption = (
        "On data simulated from the model: how often the guide's central intervals contain the true value. Below 0 "
        "the intervals are too narrow, above 0 too wide. Bars are two standard errors of the mean over dimensions; "
        "dashes are single dimensions."
    ) + cut(len(names), len(found.coverage), "sites")
    return Drawing("coverage", "Coverage of intervals", caption, figure)
