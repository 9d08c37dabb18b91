"""Latents of several sites as one vector per particle and row, [K, B, D], and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ppdgm.models.relaxed import CERTAIN


@dataclass(frozen=True)
class Latents:
    """Names and shapes of the sites, in order."""

    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, sites: Mapping[str, np.ndarray]) -> Latents:
        """The names and shapes of arrays [K, B, *event]."""
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


def by_latent(means: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
    """Means of a site [N, *event] as [N, D]; probabilities [N, D, C] if its draws choose one of C classes.

    So a categorical latent counts as one dimension, and not as one per class. Logarithms of one-hot vectors become
    probabilities. Log-odds become the mean of ±1, which has a variance of 1 under an even prior.
    """
    if draws is not None and draws.ndim > 2 and len(levels := np.unique(draws)) == 2:
        low, high = levels
        if low == -CERTAIN:
            means = 2 * expit(means) - 1 if high == CERTAIN else np.exp(means)
        if draws.shape[-1] > 1 and low + high != 0 and ((draws == high).sum(-1) == 1).all():
            return means.reshape(len(means), -1, means.shape[-1])
    return means.reshape(len(means), -1)


def per_latent(kl: np.ndarray, codes: np.ndarray) -> np.ndarray | None:
    """The KL [N, D] of the latents of `by_latent`; [N] if only the whole site's is known; None if it is of others."""
    if kl.ndim == 1 or kl.shape[1] == 1:
        return kl.reshape(len(kl), *((1,) if codes.shape[1] == 1 else ()))
    return kl if kl.shape[1] == codes.shape[1] else None
