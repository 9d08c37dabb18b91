"""torch's generators used outside sample sites: `F.dropout` left on, `torch.randn_like` in a model."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch

from ppdgm.language.vocabulary import Array

REMEDY = (
    "The program uses P.random, or draws from torch's, NumPy's or Python's generator. Evaluation switches off "
    "torch.nn.Dropout and F.dropout(x, p, training=self.training), but F.dropout(x, p) is always on."
)


def get_rng(device: torch.device) -> tuple[Array, Array | None]:
    """The state of the generators: the host's, and that of a GPU."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_rng(device: torch.device, state: tuple[Array, Array | None]) -> None:
    """Go back to a state of the generators."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


class GeneratorWatch:
    """Whether random numbers are drawn between sites.

    Args:
        device: the device whose generator is watched, besides those of the host.
    """

    def __init__(self, device: torch.device):
        self.device, self.used = device, False
        self._last = self._states()

    def site(self) -> None:
        """A site begins, or the reading ends."""
        self.used = self.used or self._states() != self._last

    def drawn(self) -> None:
        """A site has its value."""
        self._last = self._states()

    def _states(self) -> tuple[object, ...]:
        _, words, *places = np.random.get_state()  # noqa: NPY002  # for the user's calls of the old NumPy generator
        own = torch.cuda.get_rng_state(self.device).numpy().tobytes() if self.device.type == "cuda" else b""
        return torch.get_rng_state().numpy().tobytes(), own, np.asarray(words).tobytes(), places, random.getstate()


def differ(one: Mapping[str, Array], other: Mapping[str, Array], tolerance: float = 1e-4) -> bool:
    """Whether two runs at the same latents gave different numbers."""
    return any(not _same(one[n], other[n], tolerance) for n in one)


def _same(a: Array, b: Array, tolerance: float) -> bool:
    return bool(torch.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True).all())
