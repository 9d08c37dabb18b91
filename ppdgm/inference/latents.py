"""Latents of several sites as one vector per particle and datum, [K, B, D], and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latents:
    """Names and shapes of the sites, in order."""

    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, sites: Mapping[str, np.ndarray]) -> Latents:
        """Those of arrays [K, B, *event]."""
        return cls({n: v.shape[2:] for n, v in sites.items()})

    @property
    def width(self) -> int:
        """D."""
        return sum(int(np.prod(s)) for s in self.shapes.values())

    def flat(self, sites: Mapping[str, np.ndarray]) -> np.ndarray:
        """[K, B, D] in float64."""
        parts = [np.reshape(sites[n], (*np.shape(sites[n])[:2], -1)) for n in self.shapes]
        return np.concatenate(parts, axis=2).astype(np.float64)

    def sites(self, flat: np.ndarray, dtype: np.dtype | str = "float32") -> dict[str, np.ndarray]:
        """Arrays [K, B, *event] by name."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + int(np.prod(shape))
            found[name] = flat[..., start:end].reshape(*flat.shape[:2], *shape).astype(dtype)
            start = end
        return found
