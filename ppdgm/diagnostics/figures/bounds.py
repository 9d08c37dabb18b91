"""Figures of bounds: over particles, over training, their parts, and their gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.diagnostics.figures.canvas import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    SMALL,
    Drawing,
    blank,
    finite,
    panels,
    plain_logarithm,
)

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found
    from ppdgm.plots import Axes

_WINDOWS = 150  # points of a training curve


def curve(found: Found) -> Drawing | None:
    """L_k over k."""
    if found.curve is None:
        return None
    k, mean, error = found.curve.k, found.curve.mean, found.curve.monte_carlo_error
    there = np.isfinite(mean)
    if not there.any():
        return None
    k, mean, error = k[there], mean[there], np.nan_to_num(error[there], posinf=0.0)
    figure = blank(2.9)
    axes = figure.subplots()
    axes.errorbar(k, mean, 2 * error, color=BLUE, marker="o", markersize=3.5, capsize=2, elinewidth=1)
    axes.set_xscale("log")
    plain_logarithm(axes.xaxis, k[0], max(k[-1], 10))
    axes.set_xlim(k[0] * 0.8, max(k[-1], 2) * 1.25)
    low, high = float((mean - 2 * error).min()), float((mean + 2 * error).max())
    room = max(high - low, 0.02)
    axes.set_ylim(low - 0.2 * room, high + 0.2 * room)
    words: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL, "color": INK}
    if len(k) > 1:
        axes.annotate(_signed(mean[0], room), (k[0], mean[0] - 2 * error[0]), (2, -12), **words)
    axes.annotate(_signed(mean[-1], room), (k[-1], mean[-1] + 2 * error[-1]), (4, 6), ha="right", **words)
    axes.set_xlabel("particles k (log scale)")
    axes.set_ylabel("nats per row")
    caption = (
        "L_k is the ELBO at k = 1, and rises towards log p(x) as k grows. If the curve still rises at the right, log "
        "p(x) is higher than shown. Bars are two Monte Carlo errors. With other data the whole curve would move "
        f"(standard error {found.curve.standard_error[-1]:.2f} nats)."
    )
    return Drawing("bounds", "Bound over particles", caption, figure)


def surgery(found: Found) -> Drawing | None:
    """The two parts of the KL in one bar, and the most information that N rows can show."""
    if found.surgery is None:
        return None
    s = found.surgery
    information, marginal = max(0.0, s.mutual_information.value), max(0.0, s.marginal_kl.value)
    figure = blank(1.45)
    axes = figure.subplots()
    axes.barh([0], [information], 0.6, color=BLUE, label="mutual information")
    axes.barh([0], [marginal], 0.6, left=[information], color=ORANGE, label="marginal KL")
    axes.axvline(s.most, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0, label=f"log N = {s.most:.2f}")
    for left, wide in ((0.0, information), (information, marginal)):
        if wide > 0.1 * max(information + marginal, s.most):
            axes.text(left + wide / 2, 0, f"{wide:.2f}", ha="center", va="center", color=PAPER, fontweight="bold")
    axes.set_ylim(-0.45, 0.45)
    axes.set_xlim(0, 1.08 * max(information + marginal, s.most))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(False)
    axes.set_xlabel("nats per row")
    figure.legend(loc="outside upper left", ncols=3, columnspacing=1.2, handlelength=1.4)
    caption = (
        "The two parts of the KL. Mutual information is what the latents show about the data, at most log N. The "
        "marginal KL is the distance between prior and aggregated posterior; a better prior would remove it."
    )
    return Drawing("surgery", "ELBO surgery", caption, figure)


def gaps(found: Found) -> Drawing | None:
    """For each row, how far the guide and the best Gaussian are below log p(x)."""
    if found.gaps is None or not len(found.gaps.index):
        return None
    g = found.gaps
    whole, best = g.log_likelihood - g.guide, g.log_likelihood - g.refitted
    there = np.isfinite(whole) & np.isfinite(best)
    order = np.argsort(whole[there], kind="stable")
    whole, best, at = whole[there][order], best[there][order], np.arange(int(there.sum()))
    if not len(at):
        return None
    figure = blank(2.9)
    axes = figure.subplots()
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.vlines(at, whole, best, color=ORANGE, linewidth=1, alpha=0.6)
    axes.plot(at, whole, "o", color=ORANGE, markersize=4, label="the encoder's posterior")
    axes.plot(at, best, "D", color=BLUE, markersize=3.5, label=f"its best Gaussian ({g.family})")
    axes.set_xticks([])
    axes.set_xlabel(f"{len(at)} of {found.size:,} rows, sorted by gap")
    axes.set_ylabel("nats below log p(x)")
    figure.legend(loc="outside upper left", ncols=2)
    caption = (
        "From 0 to the diamond is the approximation gap, which a richer family would remove. From the diamond to the "
        "circle is the amortisation gap, which a better encoder would remove."
    )
    return Drawing("gaps", "Inference gap, row by row", caption, figure)


def history(found: Found) -> Drawing | None:
    """The ELBO and the KL over training."""
    names = [n for n in ("elbo", "kl") if len(finite(found.history.get(n, ())))]
    if not names and len(finite(found.history.get("objective", ()))):
        names = ["objective"]
    if not names:
        return None
    figure, every = panels(len(names), 1, 1.7, sharex=True)
    windows = [_trace(axes, name, found.history) for name, axes in zip(names, every, strict=True)]
    every[-1].set_xlabel("step")
    caption = f"Each point is the mean of {windows[0]:,} steps. " if windows[0] > 1 else ""
    if "elbo" in names:
        caption += (
            "If a curve still rises, train for more steps. If the validation ELBO falls while the training ELBO rises, "
        )
        caption += "the model is overfitting. "
    if "kl" in names:
        caption += "A KL near 0 means that the latents are not used."
    return Drawing("history", "ELBO and KL over training", caption.strip(), figure)


def _trace(axes: Axes, name: str, history: Mapping[str, np.ndarray]) -> int:
    """Draw one metric, and return how many steps each point stands for."""
    values = np.asarray(history[name], dtype=np.float64)
    window = max(1, -(-len(values) // _WINDOWS))
    padded = np.full(-(-len(values) // window) * window, np.nan)
    padded[: len(values)] = np.where(np.isfinite(values), values, np.nan)
    parts = padded.reshape(-1, window)
    there = np.isfinite(parts).any(1)
    at = (np.arange(len(parts)) * window + np.minimum(window, len(values)) / 2 + 0.5)[there]
    mean = np.nanmean(parts[there], axis=1)
    axes.plot(at, mean, color=BLUE, label="training", marker="." if len(at) < 30 else None)
    shown = [mean[len(mean) // 20 :]]
    if len(finite(history.get(f"validation_{name}", ()))):
        held = np.asarray(history[f"validation_{name}"], dtype=np.float64)
        marks: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(held) <= 40 else {}
        axes.plot(history["validation_step"], held, color=ORANGE, label="validation", **marks)
        axes.legend(loc="lower right")
        shown.append(finite(held[len(held) // 20 :]))
    seen = np.concatenate(shown)
    if len(seen) > 5 and np.ptp(mean) > 3 * np.ptp(seen) > 0:  # the first steps would make the rest look flat
        axes.set_ylim(seen.min() - 0.1 * np.ptp(seen), seen.max() + 0.1 * np.ptp(seen))
    axes.set_title({"elbo": "ELBO", "kl": "KL"}.get(name, name))
    axes.set_ylabel("nats per row" if name != "objective" else "objective")
    return window


def _signed(value: float, room: float) -> str:
    return f"{value:.{2 if room > 0.1 else 3}f}".replace("-", "−")
