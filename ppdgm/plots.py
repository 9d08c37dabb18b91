"""Pictures of images: samples, and data beside their reconstructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ppdgm.errors import DataError


def picture(path: str | Path, samples: np.ndarray, data: np.ndarray, reconstructions: np.ndarray) -> Path:
    """Write a PNG: drawn samples on the left; data and, under each, its reconstruction on the right.

    Args:
        path: of the PNG.
        samples: [n, H, W] or [n, C, H, W], values in [0, 1]; up to 64 are shown.
        data, reconstructions: likewise; up to 32 pairs are shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(grid(samples[:64], 8), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    left.set_title("Samples: p(x|z) at its mean, z drawn from the prior", fontsize=9)
    n = min(32, len(data)) // 8 * 8 or len(data)
    pairs = np.concatenate([np.stack([data[i : i + 8], reconstructions[i : i + 8]]) for i in range(0, n, 8)])
    right.imshow(grid(pairs.reshape(-1, *data.shape[1:]), 8), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    right.set_title("Odd rows: held-out data. Even rows: their reconstructions", fontsize=9)
    for axes in (left, right):
        axes.axis("off")
    FigureCanvasAgg(figure).print_png(str(path))
    return Path(path)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [n, H, W] or [n, C, H, W] side by side, as one image with thin gaps."""
    if images.ndim == 4:
        images = images[:, 0] if images.shape[1] == 1 else images.mean(1)
    if images.ndim != 3:
        raise DataError(f"Got arrays of shape {images.shape}, expected images [n, H, W] or [n, C, H, W].")
    n, h, w = images.shape
    rows = -(-n // columns)
    tiles = np.zeros((rows * columns, h + 1, w + 1), np.float32)
    tiles[:n, :h, :w] = images
    tiles = tiles.reshape(rows, columns, h + 1, w + 1).transpose(0, 2, 1, 3)
    return tiles.reshape(rows * (h + 1), columns * (w + 1))
