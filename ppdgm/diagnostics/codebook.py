"""Which codes of a codebook are used, and how evenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppdgm.diagnostics.arrays import as_array
from ppdgm.errors import DataError, require


@dataclass(frozen=True)
class CodeUse:
    """How often each code is used.

    Attributes:
        counts: uses of each code, [K].
    """

    counts: np.ndarray

    @property
    def used(self) -> int:
        """The number of codes that are used at all."""
        return int((self.counts > 0).sum())

    @property
    def entropy(self) -> float:
        """H = −Σ_k p_k log p_k of the shares p, in nats: at most log K."""
        p = self.counts[self.counts > 0] / self.counts.sum()
        return float(-(p * np.log(p)).sum())

    @property
    def perplexity(self) -> float:
        """exp H: of K codes that are used equally, K."""
        return float(np.exp(self.entropy))

    def __str__(self) -> str:
        return f"{self.used} of {len(self.counts)} codes are used, with a perplexity of {self.perplexity:.1f}"


def code_use(codes: np.ndarray, size: int) -> CodeUse:
    """The use of the codes of a codebook.

    Args:
        codes: whole numbers below K, of any shape.
        size: K.

    Raises:
        DataError: there are no codes, or a number is none of a code.
    """
    require("size", size, int, 1, "a whole number of codes")
    flat = as_array("codes", codes).ravel()
    if not flat.size or flat.dtype.kind not in "iu" or flat.min() < 0 or flat.max() >= size:
        raise DataError(f"codes: expected whole numbers from 0 to {size - 1}, at least one.")
    return CodeUse(np.bincount(flat.astype(np.int64), minlength=size))
