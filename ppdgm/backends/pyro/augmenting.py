"""Rows changed by an augmentation, with torch."""

from __future__ import annotations

import numpy as np
import torch

from ppdgm.backends.pyro.runtime import seeded
from ppdgm.backends.pyro.vocabulary import TorchVocabulary
from ppdgm.language.augmenting import Augment, augmented
from ppdgm.language.vocabulary import Array


def change(augment: Augment, x: Array) -> Array:
    """x [B, *event], changed with noise of torch's generator."""
    return augmented(TorchVocabulary, augment, lambda _: None, x)


def augment_rows(augment: Augment, x: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same outside training."""
    with seeded(torch.device("cpu"), seed), torch.no_grad():
        found: np.ndarray = change(augment, torch.tensor(x)).numpy()
        return found
