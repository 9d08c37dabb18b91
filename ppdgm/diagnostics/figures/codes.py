"""The figure of the codes: the guide's means in two dimensions, by label if there are labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.diagnostics.arrays import some_rows
from ppdgm.diagnostics.figures.canvas import BLUE, INK, PAPER, SMALL, Drawing, cut, edges, panels, short

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found
    from ppdgm.plots import Axes

MOST_POINTS, CLASSES, MOST_SITES = 5000, 20, 4


def codes(found: Found) -> Drawing | None:
    """Means of the guide in two dimensions, by label if there are labels."""
    labels = found.pictures.labels
    sites = {n: v for n, v in found.pictures.codes.items() if v.ndim == 2 and v.shape[1] and len(v) > 1}
    if not sites:
        return None
    names = list(sites)[:MOST_SITES]
    figure, every = panels(len(names), 2, 2.4, 0.1)
    if len(names) == 1:
        figure.set_size_inches(figure.get_figwidth(), 2.9 if sites[names[0]].shape[1] == 1 else 4.0)
    shown = some_rows(len(sites[names[0]]), MOST_POINTS)
    labels = None if labels is None else labels[shown]
    named = None if labels is None else _classes(labels)
    for axes, name in zip(every, names, strict=True):
        _one_site(axes, sites[name][shown], labels, named, "" if len(names) > 1 else " of variance")
        if len(names) > 1:
            axes.set_title(short(name))
    wide = any(sites[n].shape[1] > 2 for n in names)
    what = (
        "The guide's means, one point for each row"
        + (", on their first two principal components" if wide else "")
        + ". "
    )
    if labels is None:
        what += "Clusters are groups of similar rows. A standard normal prior gives a round cloud."
    else:
        what += "Colours are labels. The model sees them only if they are among its fields." if named is None else (
            "Boxes and colours are labels. If the groups are separate, the code shows the label."
        )  # fmt: skip
    if len(shown) < len(sites[names[0]]):
        what += f" {len(shown):,} of {len(sites[names[0]]):,} rows are shown, chosen at random."
    what += cut(len(names), len(sites), "sites")
    return Drawing("codes", "Codes of the data", what, figure)


def _one_site(
    axes: Axes, x: np.ndarray, labels: np.ndarray | None, named: tuple[np.ndarray, np.ndarray] | None, of: str
) -> None:
    axes.grid(False)
    x = np.where(np.isfinite(x), x, 0.0)
    colours = _colours(labels, named, len(x))
    if x.shape[1] == 1:
        _along_a_line(axes, x[:, 0], named)
        return
    if x.shape[1] == 2:
        plane, told = x, ["dimension 0", "dimension 1"]
    else:
        plane, shares = principal(x)
        told = [f"component {i + 1} ({share:.0%}{of})" for i, share in enumerate(shares)]
    axes.scatter(*plane.T, s=9, alpha=0.75, linewidth=0, rasterized=True, **colours)
    axes.set_xlabel(told[0])
    axes.set_ylabel(told[1])
    groups = _groups(named)
    middles = [np.median(plane[members], axis=0) for _, members in groups]
    for i, ((name, _), place) in enumerate(zip(groups, _spread(axes, middles, groups), strict=True)):
        box = {"boxstyle": "round,pad=0.2", "facecolor": PAPER, "edgecolor": _palette(i), "linewidth": 1.2}
        axes.text(*place, name, ha="center", va="center", fontsize=SMALL, fontweight="bold", color=INK, bbox=box)


def _spread(axes: Axes, middles: list[np.ndarray], groups: list[tuple[str, np.ndarray]]) -> list[np.ndarray]:
    """Places for words near the middles, within the panel; words don't cover each other if there is room."""
    low, high = (np.array(ends) for ends in zip(axes.get_xlim(), axes.get_ylim(), strict=True))
    size = high - low
    letter = (0.03, 0.065) if len(axes.figure.axes) == 1 else (0.07, 0.13)  # in shares of a panel
    boxes = [size * [letter[0] * (1 + len(name)), letter[1]] for name, _ in groups]
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 25), np.linspace(0, 1, 25)), -1).reshape(-1, 2)
    places = [m.copy() for m in middles]
    done: list[int] = []
    for i in sorted(range(len(groups)), key=lambda i: -middles[i][1]):
        room = size - boxes[i]
        start = np.clip(middles[i], low + boxes[i] / 2, high - boxes[i] / 2)
        tried = np.concatenate([start[None], low + boxes[i] / 2 + grid * room])
        order = np.argsort((((tried - start) / size) ** 2).sum(1), kind="stable")
        covered = np.zeros(len(tried), bool)
        for j in done:
            covered |= (abs(tried - places[j]) < (boxes[i] + boxes[j]) / 2).all(1)
        places[i] = next((tried[k] for k in order if not covered[k]), start)
        done.append(i)
    return places


def _along_a_line(axes: Axes, x: np.ndarray, named: tuple[np.ndarray, np.ndarray] | None) -> None:
    bins, groups = edges(x), _groups(named)
    if not groups:
        axes.hist(x, bins, color=BLUE, alpha=0.7)
    else:
        parts, colours = [x[m] for _, m in groups], [_palette(i) for i in range(len(groups))]
        axes.hist(parts, bins, stacked=True, color=colours, label=[n for n, _ in groups])
        axes.legend(ncols=2)
    axes.set_xlabel("code")
    axes.set_ylabel("data")


def principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, 2] on the first two principal components, and their shares of the variance."""
    centred = x - x.mean(0)
    if x.shape[1] > 500:  # an SVD of thousands of dimensions takes minutes
        values, vectors = np.linalg.eigh(centred.T @ centred)
        values, vectors = values[::-1], vectors[:, ::-1]
    else:
        _, singular, across = np.linalg.svd(centred, full_matrices=False)
        values, vectors = singular**2, across.T
    total = float(values.sum())
    plane = np.zeros((len(x), 2))
    found = centred @ vectors[:, :2]
    plane[:, : found.shape[1]] = found
    return plane, np.resize(values[:2] / total, 2) if total > 0 else np.zeros(2)


def _classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Names of the classes and the class of each row, if there are few classes."""
    names, which = np.unique(labels, return_inverse=True)
    return (names, which) if len(names) <= CLASSES else None


def _groups(named: tuple[np.ndarray, np.ndarray] | None) -> list[tuple[str, np.ndarray]]:
    if named is None:
        return []
    return [(f"{n:g}" if isinstance(n, np.number) else short(str(n)), named[1] == i) for i, n in enumerate(named[0])]


def _colours(labels: np.ndarray | None, named: tuple[np.ndarray, np.ndarray] | None, size: int) -> dict[str, Any]:
    if labels is None or (np.asarray(labels).dtype.kind not in "fbiu" and named is None):
        return {"color": BLUE}
    if named is None:
        return {"c": np.asarray(labels[:size], float), "cmap": "viridis"}
    return {"c": np.array([_palette(i) for i in named[1]])}


def _palette(i: int) -> tuple[float, float, float, float]:
    import matplotlib

    return matplotlib.colormaps["tab20"]((2 * i) % 20 + (i >= 10))
