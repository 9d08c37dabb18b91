"""Figures of the latents: prior and aggregated posterior, and the KL of each dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.diagnostics.arrays import some_rows
from ppdgm.diagnostics.figures.canvas import (
    BLUE,
    GREY,
    MUTED,
    ORANGE,
    PAPER,
    SMALL,
    Drawing,
    blank,
    cut,
    edges,
    finite,
    key,
    outer_labels,
    panels,
    short,
)

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found
    from ppdgm.diagnostics.latents import LatentUse, SiteUse
    from ppdgm.plots import Axes

MOST_POINTS, MOST_SITES, SHOWN = 5000, 6, 6


def aggregated(found: Found) -> Drawing | None:
    """Draws of the guide over all rows, and draws of the prior."""
    posterior, prior = found.pictures.aggregated, found.pictures.prior
    sites = {n: posterior[n].shape[1] for n in posterior if n in prior and prior[n].shape[1:] == posterior[n].shape[1:]}
    if not sum(sites.values()):
        return None
    if list(sites.values()) == [2]:
        (name,) = sites
        return _plane(name, posterior[name], prior[name])
    ranked = _ranked(found.use, sites)[:SHOWN]
    figure, every = panels(len(ranked), 2)
    for axes, (name, d) in zip(every, ranked, strict=True):
        drawn, seen = finite(prior[name][:, d]), finite(posterior[name][:, d])
        if len(drawn) and len(seen):
            bins = edges(np.concatenate([drawn, seen]))
            axes.hist(seen, bins, density=True, color=BLUE, alpha=0.55, label="aggregated posterior")
            axes.hist(drawn, bins, density=True, color=ORANGE, histtype="step", linewidth=1.4, label="prior")
        axes.set_title(f"{short(name)}[{d}]")
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=5)
    outer_labels(figure, y="density")
    key(figure, every[0])
    total = sum(sites.values())
    which = f"The {len(ranked)} most informative of {total} dimensions. " if total > len(ranked) else ""
    caption = (
        f"{which}If the two differ, the model draws codes that no row has, or does not draw codes that rows have. "
        "Then a richer prior helps."
    )
    return Drawing("prior", "Prior and aggregated posterior", caption, figure)


def _plane(name: str, posterior: np.ndarray, prior: np.ndarray) -> Drawing:
    figure = blank(3.9)
    axes = figure.subplots()
    for values, colour, alpha, label in (
        (prior, ORANGE, 0.35, "prior"),
        (posterior, BLUE, 0.8, "aggregated posterior"),
    ):
        part = values[some_rows(len(values), MOST_POINTS)]
        axes.scatter(*part.T, s=7, color=colour, alpha=alpha, linewidth=0, label=label, rasterized=True)
    axes.set_xlabel(f"{name}[0]")
    axes.set_ylabel(f"{name}[1]")
    axes.set_aspect("equal", "datalim")
    for handle in axes.get_figure().legend(loc="outside lower center", ncols=2, markerscale=2).legend_handles:
        handle.set(alpha=1, rasterized=False)
    caption = (
        "Each point is a draw. If there are regions with only one colour, the model draws codes that no row has, or "
        "does not draw codes that rows have. Then a richer prior helps."
    )
    return Drawing("prior", "Prior and aggregated posterior", caption, figure)


def divergence(found: Found) -> Drawing | None:
    """The KL of each dimension, sorted, for each site."""
    if found.use is None:
        return None
    told = [s for s in found.use.sites if s.kl is not None or s.variance is not None]
    if not (sites := told[:MOST_SITES]):
        return None
    figure, every = panels(len(sites), 1 if len(sites) <= 3 else 2, 1.7)
    for axes, site in zip(every, sites, strict=True):
        _bars(axes, site, found.use)
        if len(sites) > 1:
            axes.set_title(
                f"{short(site.name, 14 if len(sites) <= 3 else 10)}: {int(site.used.sum())} of {len(site.used)} used",
                fontsize=SMALL,
            )
    known = [s.kl is not None for s in sites]
    what = " or ".join(["mean KL"] * any(known) + ["variance of the guide's means"] * (not all(known)))
    level = found.use.nats if any(known) else found.use.threshold
    caption = (
        f"{what[0].upper()}{what[1:]} of each dimension, the most informative first. Dimensions with a ring carry no "
        f"information on the data: they are below the line, at {level:g}, or the same for all rows."
    ) + cut(len(sites), len(told), "sites")
    return Drawing("kl", "KL per dimension" if any(known) else "Use of each dimension", caption, figure)


def _bars(axes: Axes, site: SiteUse, use: LatentUse) -> None:
    values, order = site.kl if site.kl is not None else cast(np.ndarray, site.variance), site.by_kl  # it has one
    heights, used = np.nan_to_num(values[order], posinf=0.0), site.used[order]
    at = np.arange(len(order))
    axes.bar(at[used], heights[used], 0.8, color=BLUE)
    axes.bar(at[~used], heights[~used], 0.8, color=GREY)
    if not used.all():  # an empty line that isn't clipped would take space in the layout
        ring = {"markerfacecolor": PAPER, "markersize": 4.5, "clip_on": False, "zorder": 3}
        axes.plot(at[~used], heights[~used], "o", color=MUTED, **ring)
    level = use.nats if site.kl is not None else use.threshold
    axes.axhline(level, color=ORANGE, linewidth=0.8)
    half = max(len(order), 6) / 2 + 0.3
    axes.set_xlim((len(order) - 1) / 2 - half, (len(order) - 1) / 2 + half)
    if len(order) <= 24:
        step = 1 if len(order) <= 16 else 2
        axes.set_xticks(at[::step], [str(d) for d in order[::step]], fontsize=SMALL if len(order) <= 12 else 7.5)
        axes.set_xlabel("dimension")
    else:
        axes.set_xlabel("dimensions, by rank")
    axes.set_ylabel("variance" if site.kl is None else "nats")


def _ranked(use: LatentUse | None, sites: dict[str, int]) -> list[tuple[str, int]]:
    """Dimensions (site, d), the most informative first."""
    every = [(n, d) for n, width in sites.items() for d in range(width)]
    if use is None:
        return every
    worth: dict[tuple[str, int], float] = {}
    for site in use.sites:
        values = site.kl if site.kl is not None else site.variance
        if values is not None and (width := sites.get(site.name)):
            each = np.repeat(values, max(1, width // len(values)))  # a categorical latent has several numbers
            worth |= {(site.name, d): float(v) for d, v in enumerate(each)}
    return sorted(every, key=lambda pair: -np.nan_to_num(worth.get(pair, -1.0)))
