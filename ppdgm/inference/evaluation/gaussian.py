"""Normal distributions of each row's latents, as vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

LOG_2_PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class RowGaussians:
    """N(m, LLᵀ) for each of B rows.

    Attributes:
        mean: m, [B, D].
        root: L, lower triangular, [B, D, D]; or its diagonal, [B, D].
    """

    mean: np.ndarray
    root: np.ndarray

    @property
    def diagonal(self) -> np.ndarray:
        """The diagonal of L, [B, D]."""
        return self.root if self.root.ndim == 2 else np.diagonal(self.root, axis1=1, axis2=2)

    @property
    def log_det(self) -> np.ndarray:
        """log |L|, [B]."""
        found: np.ndarray = np.log(self.diagonal).sum(1)
        return found

    def at(self, noise: np.ndarray) -> np.ndarray:
        """m + L ε, [S, B, D]."""
        if self.root.ndim == 2:
            return self.mean + self.root * noise
        found: np.ndarray = self.mean + np.einsum("bij,sbj->sbi", self.root, noise)
        return found

    def pulled(self, slope: np.ndarray) -> np.ndarray:
        """Lᵀ ∇: if ∇ is the slope by z, this is the slope by ε, [S, B, D]."""
        return self.root * slope if self.root.ndim == 2 else np.einsum("bji,sbj->sbi", self.root, slope)

    def noise(self, z: np.ndarray) -> np.ndarray:
        """ε = L⁻¹ (z − m), [S, B, D]."""
        return self._solved(z - self.mean, "N")

    def log_density(self, noise: np.ndarray) -> np.ndarray:
        """log N(m + L ε; m, LLᵀ), [S, B]."""
        found: np.ndarray = -0.5 * (noise**2).sum(2) - 0.5 * noise.shape[2] * LOG_2_PI - self.log_det
        return found

    def falling(self, noise: np.ndarray) -> np.ndarray:
        """−∇ log N(z) = L⁻ᵀ ε at z = m + L ε, [S, B, D]."""
        return self._solved(noise, "T")

    def _solved(self, right: np.ndarray, trans: str) -> np.ndarray:
        if self.root.ndim == 2:
            return right / self.root
        each = [
            solve_triangular(root, right[:, n].T, trans=trans, lower=True, check_finite=False).T
            for n, root in enumerate(self.root)
        ]
        return np.stack(each, axis=1)
