"""Figures of data that are not images, column by column: histograms, scatters, lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.diagnostics.figures.canvas import (
    BLUE,
    GREY,
    ORANGE,
    Drawing,
    edges,
    finite,
    key,
    outer_labels,
    panels,
    short,
)

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found

MOST = 9  # the most columns that are drawn, evenly spread over all columns
FEW = 6  # up to this number of columns, each has its own line


def samples(found: Found) -> Drawing | None:
    """Histograms of samples and data."""
    drawn, seen = _flat(found.pictures.samples), _flat(found.pictures.data)
    if drawn is None:
        return None
    chosen = _chosen(drawn.shape[1])
    figure, every = panels(len(chosen), 3)
    for axes, d in zip(every, chosen, strict=True):
        both = [finite(v[:, d]) for v in (drawn, seen) if v is not None]
        if not len(joint := np.concatenate(both)):
            continue
        bins = edges(joint, 20)
        axes.hist(both[0], bins, density=True, color=BLUE, alpha=0.55, label="samples")
        if len(both) > 1:
            axes.hist(both[1], bins, density=True, color=ORANGE, histtype="step", linewidth=1.4, label="data")
        axes.set_title(_name(found, d, drawn.shape[1]))
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=4)
    key(figure, every[0])
    caption = (
        f"{_which(len(chosen), drawn.shape[1])}: means of p(x|z) for z drawn from the prior, and data. Means do not "
        "contain the likelihood's noise, so they may be narrower than the data, but their centres should agree."
    )
    return Drawing("samples", "Samples", caption, figure)


def reconstructions(found: Found) -> Drawing | None:
    """Reconstructions against data."""
    data, again = _flat(found.pictures.data), _flat(found.pictures.reconstructions)
    if data is None or again is None:
        return None
    chosen = _chosen(data.shape[1])
    figure, every = panels(len(chosen), 3)
    for axes, d in zip(every, chosen, strict=True):
        axes.scatter(data[:, d], again[:, d], s=9, color=BLUE, alpha=0.5, linewidth=0, rasterized=True)
        both = finite(np.stack([data[:, d], again[:, d]]))
        if len(both) and np.ptp(both) > 0:
            axes.plot([both.min(), both.max()], [both.min(), both.max()], color=GREY, linewidth=0.8)
        axes.set_title(_name(found, d, data.shape[1]))
        axes.locator_params(nbins=4)
    outer_labels(figure, "datum", "mean of p(x|z)")
    caption = (
        f"{_which(len(chosen), data.shape[1])}: if points are near the line, the code contains this column; if the "
        "cloud is flat, it does not."
    )
    return Drawing("reconstructions", "Data and reconstructions", caption, figure)


def traversals(found: Found) -> Drawing | None:
    """Lines over the steps, or over the columns if there are many."""
    pictures = found.pictures
    along = cast(np.ndarray, pictures.traversals)  # `images.traversals` has looked at it
    x = along.reshape(*along.shape[:2], -1)[:6]
    figure, every = panels(len(x), 2, 2.3 if len(x) < 3 else 1.6)
    for axes, values, name in zip(every, x, pictures.traversed, strict=False):
        if x.shape[2] <= FEW:
            for d in range(x.shape[2]):
                axes.plot(pictures.steps, values[:, d], color=_line(d), label=_name(found, d, x.shape[2]))
        else:
            for i, line in enumerate(values):
                axes.plot(line, color=_step(i / max(1, len(values) - 1)), linewidth=1)
        axes.set_title(short(name, 26))
        axes.locator_params(nbins=5)
    many = x.shape[2] > FEW
    outer_labels(figure, "column" if many else "standard deviations of the prior", "mean of p(x|z)")
    if not many:
        key(figure, every[0], loc="outside upper center")
    lines = "one line for each step, from dark to light over the prior" if many else "one line for each column"
    caption = (
        f"Each panel changes only one dimension of one row's code; {lines}. The dimensions with the largest KL come "
        "first. A line that does not move does not depend on the dimension."
    )
    return Drawing("traversals", "Latent traversals", caption, figure)


def _name(found: Found, d: int, width: int) -> str:
    return short(found.columns[d], 26) if len(found.columns) == width else f"column {d}"


def _flat(x: np.ndarray | None) -> np.ndarray | None:
    return None if x is None or not np.size(x) else np.asarray(x, dtype=np.float64).reshape(len(x), -1)


def _chosen(width: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, width - 1, min(width, MOST))})


def _which(shown: int, width: int) -> str:
    return f"{shown} of {width} columns" if shown < width else f"{width} columns" if width > 1 else "The column"


def _line(i: int) -> tuple[float, float, float, float]:
    import matplotlib

    return matplotlib.colormaps["tab10"](i)


def _step(share: float) -> tuple[float, float, float, float]:
    import matplotlib

    return matplotlib.colormaps["viridis"](0.3 + 0.5 * share)
