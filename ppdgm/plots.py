"""Pictures of a run: samples, data beside their reconstructions, and the bound over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ppdgm.errors import DataError, shown

TABLE_COLUMNS, MOST_IMAGES, WINDOWS = 16, 400, 200  # columns of a table, images, and points of a curve that are drawn
Figure = Any  # of matplotlib, as the next ones
Axes = Any
Axis = Any
BLUE, ORANGE, GREY = "#2468a4", "#d2691e", "#8a8a8a"
_INK: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 1, "interpolation": "nearest"}


class Inverse(Protocol):
    """A map of raw numbers to x that can be undone."""

    @property
    def kind(self) -> str: ...
    def invert(self, x: np.ndarray) -> np.ndarray: ...


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be shown as images: [H, W], or [C, H, W] with one or three channels."""
    channels, sides = event_shape[:-2], event_shape[-2:]
    return len(sides) == 2 and channels in ((), (1,), (3,)) and min(sides) >= 5


def in_ink(x: np.ndarray, transform: Inverse | None) -> np.ndarray:
    """Images in [0, 1], as pictures need them; tables in the units of the data.

    Args:
        x: [n, *event_shape].
        transform: how the data were prepared, or None.
    """
    if transform is None or transform.kind not in ("levels", "standardise"):
        return x
    raw: np.ndarray = transform.invert(x)
    if getattr(transform, "channels", "first") == "last":
        raw = np.moveaxis(raw, -1, -3)
    if not is_image(raw.shape[1:]):
        return raw
    low, high = float(raw.min()), float(raw.max())
    return (raw - low) / max(high - low, 1e-12)


def picture(path: str | Path, samples: np.ndarray, data: np.ndarray, reconstructions: np.ndarray) -> Path:
    """Write a PNG: drawn samples on the left; data and, under each, its reconstruction on the right.

    Args:
        path: of the PNG.
        samples: [n, H, W] or [n, C, H, W], values in [0, 1]; up to 64 are shown.
        data, reconstructions: the same; up to 32 pairs are shown.
    """
    figure = _figure(9, 4.8)
    left, right = figure.subplots(1, 2)
    left.imshow(grid(samples[:64], 8), **_INK)
    left.set_title("Samples: p(x|z) at its mean, z drawn from the prior", fontsize=9)
    n = min(32, len(data)) // 8 * 8 or len(data)
    pairs = np.concatenate([np.stack([data[i : i + 8], reconstructions[i : i + 8]]) for i in range(0, n, 8)])
    right.imshow(grid(pairs.reshape(-1, *data.shape[1:]), 8), **_INK)
    right.set_title("Odd rows: held-out data. Even rows: their reconstructions", fontsize=9)
    for axes in (left, right):
        axes.axis("off")
    return _write(figure, path)


def samples_picture(
    path: str | Path,
    samples: np.ndarray,
    data: np.ndarray | None = None,
    title: str | None = None,
    names: Sequence[str] = (),
) -> Path:
    """Write a PNG of samples: images in a grid, or for other data a histogram of each column.

    Args:
        path: of the PNG.
        samples: [n, *event_shape]; values of images in [0, 1].
        data: [N, *event_shape], to compare histograms with.
        title: what the images are; "samples of the model" by default.
        names: of a table's columns, such as `fit.transform.columns`; their numbers by default.
    """
    _check_path(path)
    samples = _rows("samples", samples)
    if data is not None:
        data = _rows("data", data)
        if data.shape[1:] != samples.shape[1:]:
            raise DataError(f"data: got shape {data.shape[1:]}, expected {samples.shape[1:]}, the shape of samples.")
    if is_image(samples.shape[1:]):
        return _image_samples(path, samples[:MOST_IMAGES], title or _counted(len(samples)))
    return _table_samples(path, samples, data, names)


def history_picture(path: str | Path, history: Mapping[str, np.ndarray]) -> Path:
    """Write a PNG of a run over the steps: the ELBO above the KL, or other metrics; each with its validation.

    Args:
        path: of the PNG.
        history: arrays over steps, as in `fit.history`: "elbo" and "kl", or other metrics, and, if they are there,
            "validation_step", "validation_elbo" (or that of another metric) and "skipped_step".
    """
    _check_path(path)
    if not isinstance(history, Mapping) or not all(isinstance(n, str) for n in history):
        raise DataError(f"history: got {shown(history)}, expected arrays by name, such as fit.history.")
    history = {n: _rows(f"history {n!r}", v) for n, v in history.items() if len(v)}
    apart = ("step", "phase", "skipped_step", "objective")
    names: list[str] = (
        [n for n in ("elbo", "kl") if n in history]
        or [n for n in history if n not in apart and not n.startswith(("live_", "validation_"))]
        or ["objective"]
    )
    names = [n for n in names if n in history and len(history[n])][:2]
    if not names:
        raise DataError(f"history: got {', '.join(history) or 'nothing'}, expected metrics over steps.")
    figure = _figure(8, 1.2 + 2.6 * len(names))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    window = _window(len(history[names[0]]))
    mean = f"the mean of {window:,} steps; the band holds 80 % of them" if window > 1 else "one step"
    notes = [f"Each point is {mean}."]
    for name, axes in zip(names, panels, strict=True):
        notes += _curve(axes, name, history)
    panels[-1].set_xlabel("step")
    figure.supxlabel("\n".join(notes), fontsize=8, color="#444444", x=0.01, ha="left")
    return _write(figure, path)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [n, H, W] or [n, C, H, W] side by side, as one image with thin gaps; [·, ·, 3] for three channels."""
    if images.ndim == 4:
        images = images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images.mean(1)
    if images.ndim not in (3, 4):
        raise DataError(f"Got arrays of shape {images.shape}, expected images [n, H, W] or [n, C, H, W].")
    n, h, w, *colours = images.shape
    rows = -(-n // columns)
    tiles = np.full((rows * columns, h + 1, w + 1, *colours), float(bool(colours)), np.float32)  # gaps are white
    tiles[:n, :h, :w] = images
    tiles = tiles.reshape(rows, columns, h + 1, w + 1, *colours).swapaxes(1, 2)
    return tiles.reshape(rows * (h + 1), columns * (w + 1), *colours)


def _figure(width: float, height: float) -> Figure:
    from matplotlib import figure

    return figure.Figure(figsize=(width, height), layout="constrained", dpi=120)


def _write(figure: Figure, path: str | Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    try:
        FigureCanvasAgg(figure).print_png(str(path))
    except (OSError, ValueError) as error:  # no such folder, no room, not a valid name for a file
        raise DataError(f"path: {shown(str(path))} can't be written: {getattr(error, 'strerror', error)}.") from None
    return Path(path)


def _check_path(path: object) -> None:
    """Refuse something that is not a path, before anything is drawn."""
    if not isinstance(path, str | PathLike):
        raise DataError(f"path: got {shown(path)}, expected the path of a PNG.")


def _rows(name: str, value: object) -> np.ndarray:
    """Real numbers [n, …], at least one."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        raise DataError(f"{name}: got {shown(value)}, expected an array of numbers.") from None
    if array.dtype.kind not in "fbiu" or array.ndim == 0 or array.size == 0:
        raise DataError(f"{name}: got {array.dtype} of shape {array.shape}, expected numbers, at least one row.")
    return array


def _counted(n: int) -> str:
    of = "" if n <= MOST_IMAGES else f"{MOST_IMAGES} of "
    return f"{of}{n} sample{'s' * (n > 1)} of the model"


def _image_samples(path: str | Path, samples: np.ndarray, title: str) -> Path:
    n, (height, width) = len(samples), samples.shape[-2:]
    columns = min(n, max(1, int(np.ceil(np.sqrt(n * height / width)))))
    tiles = grid(np.clip(np.nan_to_num(samples), 0, 1), columns)[:-1, :-1]
    inches = min(7 / max(tiles.shape[:2]), 1.6 / height)  # of a pixel
    figure = _figure(max(inches * tiles.shape[1], 1.8) + 0.3, inches * tiles.shape[0] + 0.5)
    axes = figure.subplots()
    axes.imshow(tiles, **_INK)
    axes.axis("off")
    axes.set_title(title, fontsize=9)
    return _write(figure, path)


def column_name(names: Sequence[str], i: int, width: int) -> str:
    """The title of a column of a table: its name, written so that figures can show it, or else its number."""
    if len(names) != width:
        return f"column {i}"
    name = names[i] if len(names[i]) <= 24 else f"{names[i][:23]}…"
    return name.replace("$", r"\$")


def _table_samples(path: str | Path, samples: np.ndarray, data: np.ndarray | None, names: Sequence[str]) -> Path:
    drawn = samples.reshape(len(samples), -1)
    seen = None if data is None else np.asarray(data).reshape(len(data), -1)
    shown = min(drawn.shape[1], TABLE_COLUMNS)
    across = min(shown, 4)
    figure = _figure(2.2 * across + 0.8, 1.9 * -(-shown // across) + 0.9)
    panels = figure.subplots(-(-shown // across), across, squeeze=False).ravel()
    for i, axes in enumerate(panels):
        axes.set_visible(i < shown)
        if i < shown:
            _histograms(axes, drawn[:, i], None if seen is None else seen[:, i])
            axes.set_title(column_name(names, i, drawn.shape[1]), fontsize=8, loc="left")
    if seen is not None:
        panels[0].legend(fontsize=7, frameon=False)
    what = f"{len(drawn):,} samples of the model" + ("" if seen is None else f", and {len(seen):,} rows of data")
    more = f", columns 0 to {shown - 1} of {drawn.shape[1]}" if shown < drawn.shape[1] else ""
    figure.suptitle(what + more, fontsize=9)
    figure.supylabel("density", fontsize=8)
    return _write(figure, path)


def _histograms(axes: Axes, drawn: np.ndarray, seen: np.ndarray | None) -> None:
    finite = [v[np.isfinite(v)].astype(float) for v in (drawn, drawn if seen is None else seen)]
    both = np.concatenate(finite)
    if not len(both):
        return
    values = np.unique(both)
    few = len(values) <= 12 and np.array_equal(values, np.round(values)) and np.ptp(both) < 100
    if few:  # categories: one bar each
        edges = np.arange(both.min(), both.max() + 2) - 0.5
        axes.set_xticks(values)
    else:
        low, high = np.quantile(both, [0.001, 0.999])
        edges = np.linspace(low, high if high > low else low + 1, 31)
    kind: dict[str, Any] = {"rwidth": 0.8} if few else {"histtype": "stepfilled"}  # drawn faster than bars
    axes.hist(finite[0], edges, density=True, color=BLUE, alpha=0.5, label="samples", **kind)
    if seen is not None:
        axes.hist(finite[1], edges, density=True, histtype="step", color=ORANGE, linewidth=1.2, label="data")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _window(steps: int) -> int:
    return max(1, -(-steps // WINDOWS))


def _curve(axes: Axes, name: str, history: Mapping[str, np.ndarray]) -> list[str]:
    """Draw a metric, and return the remarks on it."""
    title = {
        "elbo": "ELBO: a lower bound on log p(x); higher is better",
        "kl": "KL(q(z|x) ‖ p(z)): the information on x in the latents; if it is near 0, they are not used",
    }.get(name, name)
    values = np.asarray(history[name], float)
    window = _window(len(values))
    padded = np.full(-(-len(values) // window) * window, np.nan)
    padded[: len(values)] = np.where(np.isfinite(values), values, np.nan)
    parts = padded.reshape(-1, window)
    parts = parts[np.isfinite(parts).any(1)]
    at = _ends(padded.reshape(-1, window), len(values), window)
    low, mean, high = np.nanquantile(parts, 0.1, 1), np.nanmean(parts, 1), np.nanquantile(parts, 0.9, 1)
    axes.fill_between(at, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(at, mean, color=BLUE, marker="." if len(at) < 30 else None, label="training")
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_ylabel("nats per row" if name in ("elbo", "kl") else name, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    notes, shown = [], [low[len(low) // 20 :], high[len(high) // 20 :]]
    if len(history.get(f"validation_{name}", ())):
        held = np.asarray(history[f"validation_{name}"], float)
        axes.plot(history["validation_step"], held, "o", color=ORANGE, markersize=3.5, label="validation")
        axes.legend(fontsize=8, frameon=False, loc="lower right")
        shown.append(held[np.isfinite(held)][len(held) // 20 :])
        if name == "elbo":
            notes.append("If validation is far below training, and falls, the model is overfitting.")
    for step in history.get("skipped_step", ()):
        axes.axvline(step + 1, color=GREY, linewidth=0.6, alpha=0.5)
    if len(history.get("skipped_step", ())) and name == "elbo":
        notes.append(
            f"Grey lines: {len(history['skipped_step'])} steps that were skipped, because they were not finite."
        )
    return notes + _limits(axes, name, np.concatenate(shown), mean)


def _ends(parts: np.ndarray, steps: int, window: int) -> np.ndarray:
    """The middle step of each window that has a finite value."""
    first = np.arange(len(parts)) * window
    middle = (first + 1 + np.minimum(first + window, steps)) / 2
    return middle[np.isfinite(parts).any(1)]


def _limits(axes: Axes, name: str, shown: np.ndarray, mean: np.ndarray) -> list[str]:
    """Leave out the first steps if they would make the rest look flat, and say so."""
    if not len(shown) or not len(mean):
        return []
    low, high = float(shown.min()), float(shown.max())
    if max(high, mean[0]) - min(low, mean[0]) < 3 * (high - low):
        return []
    room = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)
    if low - room <= mean[0] <= high + room:
        return []
    return [f"{name.upper()} starts outside the picture, at {mean[0]:.4g}.".replace("-", "−")]
