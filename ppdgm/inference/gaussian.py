"""Normal distributions of each datum's latents, as vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOG_2_PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class Gaussian:
    """N(m, LLᵀ) for each of B data.

    Attributes:
        mean: m, [B, D].
        root: L, lower triangular, [B, D, D].
    """

    mean: np.ndarray
    root: np.ndarray

    @property
    def log_det(self) -> np.ndarray:
        """log |L|, [B]."""
        found: np.ndarray = np.log(np.diagonal(self.root, axis1=1, axis2=2)).sum(1)
        return found

    def at(self, noise: np.ndarray) -> np.ndarray:
        """m + L ε, [S, B, D]."""
        found: np.ndarray = self.mean + np.einsum("bij,sbj->sbi", self.root, noise)
        return found

    def noise(self, z: np.ndarray) -> np.ndarray:
        """ε = L⁻¹ (z − m), [S, B, D]."""
        found: np.ndarray = np.linalg.solve(self.root, np.moveaxis(z - self.mean, 0, 2))
        return np.moveaxis(found, 2, 0)

    def log_density(self, noise: np.ndarray) -> np.ndarray:
        """log N(m + L ε; m, LLᵀ), [S, B]."""
        found: np.ndarray = -0.5 * (noise**2).sum(2) - 0.5 * noise.shape[2] * LOG_2_PI - self.log_det
        return found
