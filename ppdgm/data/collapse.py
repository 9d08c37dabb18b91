"""The collapse toy: Gaussian data that a latent can explain well, and the same data where a latent can't help."""

from __future__ import annotations

import numpy as np

WIDTH, ROWS, SPIKES = 10, {"train": 5000, "test": 1000}, 3


def covariance(kind: str) -> np.ndarray:
    """Σ [X, X] of "diagonal" or "full" data; both have the same variances.

    Full: three random directions with variances 9, 6 and 4, plus noise with a variance of ½ to 1½ for each dimension.
    """
    rng = np.random.default_rng(1911)
    directions = np.linalg.qr(rng.normal(size=(WIDTH, SPIKES)))[0]
    full: np.ndarray = (directions * [9.0, 6.0, 4.0]) @ directions.T + np.diag(rng.uniform(0.5, 1.5, WIDTH))
    return full if kind == "full" else np.diag(np.diag(full))


def draw_collapse(kind: str) -> dict[str, dict[str, np.ndarray]]:
    """x ~ N(0, Σ), by split, always the same."""
    rng, root = np.random.default_rng(2469), np.linalg.cholesky(covariance(kind))
    return {split: {"x": (rng.normal(size=(rows, WIDTH)) @ root.T).astype(np.float32)} for split, rows in ROWS.items()}
