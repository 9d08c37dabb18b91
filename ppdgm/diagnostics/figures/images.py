"""Figures of images: samples, reconstructions, traversals, interpolations, the worst rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.diagnostics.figures import columns
from ppdgm.diagnostics.figures.canvas import MUTED, SMALL, WIDTH, Drawing, blank, short
from ppdgm.plots import Figure, grid, is_image

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found, Pictures

_PIXELS = 300_000  # of a grid of images: with large images it shows fewer of them, so that the page stays small


def samples(found: Found) -> Drawing | None:
    """Samples of the model."""
    x = found.pictures.samples
    if x is None or not len(x):
        return None
    if not is_image(x.shape[1:]):
        return columns.samples(found)
    x, (height, width) = _some(x), x.shape[-2:]
    across = int(np.clip(np.round(np.sqrt(len(x) * height / width)), 1, len(x)))
    return Drawing(
        "samples",
        "Samples",
        "Means of p(x|z) for z drawn from the prior. They should look like the data, and vary as much.",
        _board(_shade(found.pictures, x), across),
    )


def reconstructions(found: Found) -> Drawing | None:
    """Images of the data and, below each, its reconstruction."""
    data, again = found.pictures.data, found.pictures.reconstructions
    if data is None or again is None or not len(data) or data.shape[1:] != again.shape[1:]:
        return None
    if not is_image(data.shape[1:]):
        return columns.reconstructions(found)
    across = min(8, len(data))
    n = min(len(_some(data)) // 2, 4 * across, len(data)) // across * across or across
    both = np.stack([data[:n].reshape(-1, across, *data.shape[1:]), again[:n].reshape(-1, across, *again.shape[1:])], 1)
    figure = _board(
        _shade(found.pictures, both.reshape(-1, *data.shape[1:])), across, ["data", "model"] * len(both), apart=2
    )
    caption = (
        "Held-out data, and below them the mean of p(x|z) at each code. What is missing in this mean is not in "
        "the code."
    )
    return Drawing("reconstructions", "Data and reconstructions", caption, figure)


def traversals(found: Found) -> Drawing | None:
    """Decoded along single dimensions, the most informative first."""
    x, steps = found.pictures.traversals, found.pictures.steps
    if x is None or not len(x) or steps is None:
        return None
    if not is_image(x.shape[2:]):
        return columns.traversals(found)
    rows = ["\n".join(short(part) for part in name.rstrip(")").rsplit(" (", 1)) for name in found.pictures.traversed]
    ticks = [(f"{s:+.3g}".replace("-", "−") if s else "0") if i % 2 == 0 else "" for i, s in enumerate(steps)]
    below = "standard deviations of the prior"
    figure = _board(_shade(found.pictures, x.reshape(-1, *x.shape[2:])), x.shape[1], rows, ticks, below)
    caption = (
        "Each row of images changes only one dimension of one code, so it shows what this dimension means. The "
        "dimensions with the largest KL come first. If a row does not change, the model does not use this dimension."
    )
    return Drawing("traversals", "Latent traversals", caption, figure)


def interpolations(found: Found) -> Drawing | None:
    """Decoded between the codes of two rows."""
    x = found.pictures.interpolations
    if x is None or not len(x) or not is_image(x.shape[2:]):
        return None
    figure = _board(_shade(found.pictures, x.reshape(-1, *x.shape[2:])), x.shape[1], bottom=[""] * x.shape[1])
    axes = figure.axes[0]
    axes.set_xticks(axes.get_xlim(), ["one image", "another"])
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    caption = (
        "Decoded points on straight lines between the codes of two images. In a good latent space the images change "
        "smoothly and remain plausible. Blurs and jumps show holes in the latent space."
    )
    return Drawing("interpolations", "Interpolations", caption, figure)


def worst(found: Found) -> Drawing | None:
    """The rows with the largest k̂ and, below each, its reconstruction."""
    pictures, weights = found.pictures, found.weights
    data, again = pictures.worst_data, pictures.worst_reconstructions
    which = cast(np.ndarray, pictures.worst)  # with the data
    if data is None or again is None or weights is None or data.shape != again.shape or not is_image(data.shape[1:]):
        return None
    order = [j for j, i in enumerate(which) if np.isfinite(weights.pareto_k[i])]
    if not order:
        return None
    across = min(6, len(order))
    order = order[: 2 * across] if len(order) >= 2 * across else order[:across]
    pairs = np.stack([data[order], again[order]]).reshape(2, -1, across, *data.shape[1:]).swapaxes(0, 1)
    shown = _shade(found.pictures, pairs.reshape(-1, *data.shape[1:]))
    figure = _board(shown, across, ["data", "model"] * len(pairs), apart=2, gap=0.36, last=True)
    axes = figure.axes[0]
    rows, columns = np.divmod(np.arange(len(order)), across)
    for j, x, y in zip(
        order, axes.get_xlim()[1] * (columns + 0.5) / across, axes.get_yticks()[1::2][rows], strict=True
    ):
        place = (x, y + 0.5 * data.shape[-2] + 1)
        axes.annotate(
            f"{which[j]}: {weights.pareto_k[which[j]]:.2f}", place, ha="center", va="top", fontsize=SMALL, color=MUTED
        )
    caption = (
        "The rows with the highest k̂: data, and below them their reconstructions, with the row's number and k̂. In "
        "these rows the guide's draws miss the posterior. They are often rare, unusual or mislabelled."
    )
    return Drawing("worst-data", "Data where the guide fits worst", caption, figure)


def _some(x: np.ndarray) -> np.ndarray:
    return x[: max(8, min(64, _PIXELS // int(np.prod(x.shape[-2:]))))]


def _shade(pictures: Pictures, x: np.ndarray) -> np.ndarray:
    """Values as shades from 0 to 1: unchanged if the data are in [0, 1], otherwise between the data's extremes."""
    like = pictures.samples if pictures.data is None else pictures.data
    values = x if like is None else like
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low < 0 or high > 1:
        x = (x - low) / max(high - low, 1e-12)
    return np.clip(np.nan_to_num(x), 0, 1)


def _board(
    x: np.ndarray,
    across: int,
    left: Sequence[str] = (),
    bottom: Sequence[str] = (),
    below: str = "",
    apart: int = 0,
    gap: float = 0.25,
    last: bool = False,
) -> Figure:
    """Images in rows, with words next to the rows and below the columns.

    Args:
        x: images.
        across: the number of images in a row.
        left, bottom: words at each row and column.
        below: label of the columns.
        apart: the number of rows that stay together.
        gap: the gap after these, in heights of a row.
        last: whether there is a gap after the last ones too.
    """
    pixels, middles = _stacked(x, across, apart, gap, last)
    height, width = pixels.shape[:2]
    room = 0.8 if any("\n" in text for text in left) else 0.5 if left else 0.0
    inner = min((WIDTH - room - 0.1) / width, 6.0 / height)
    figure = blank(inner * height + 0.1 + 0.2 * bool(bottom) + 0.22 * bool(below))
    axes = figure.subplots()
    axes.imshow(pixels)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED)
    axes.set_yticks(middles if left else [], left or [])
    axes.set_xticks((np.arange(across) + 0.5) * width / across - 0.5 if bottom else [], bottom or [])
    axes.set_xlabel(below)
    return figure


def _stacked(x: np.ndarray, across: int, apart: int, gap: float, last: bool) -> tuple[np.ndarray, np.ndarray]:
    """All images as one, [·, ·, 4], with transparent gaps, and the position of the middle of each row."""
    rows, tall = -(-len(x) // across), x.shape[-2] + 1
    shades, there = grid(x, across)[:, :-1], grid(np.ones((len(x), *x.shape[-2:])), across)[:, :-1]
    colours = shades if shades.ndim == 3 else np.repeat(1 - shades[..., None], 3, axis=2)  # grey: ink on paper
    pixels = np.concatenate([colours, there[..., None]], axis=2)
    middles = np.arange(rows) * tall + tall / 2 - 1
    if not apart:
        return pixels[:-1], middles
    space = max(1, round(gap * tall))
    after = np.repeat(np.arange(apart, rows + last, apart) * tall, space)
    return np.insert(pixels, after, 0.0, axis=0), middles + np.arange(rows) // apart * space
