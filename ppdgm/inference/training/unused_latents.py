"""Whether a model is trained without using its latents: a KL that stays near 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppdgm.language.vocabulary import Trace

NATS = 0.1  # per row; below it latents carry almost no information
BLOCK, BLOCKS = 100, 3  # steps over which the mean KL is taken, and the number of low means in a row before a report


@dataclass
class Unused:
    """Counts the steps for which the KL has stayed near 0, in blocks; it uses values that training computes anyway.

    Attributes:
        blocks: such blocks in a row, so far.
        told: whether they were reported.
    """

    blocks: int = 0
    told: bool = False
    _sum: float = 0.0
    _count: int = 0

    @property
    def steps(self) -> int:
        """The number of steps for which the KL has stayed near 0, if there are enough of them; else 0."""
        return self.blocks * BLOCK if self.blocks >= BLOCKS else 0

    def see(self, kl: np.ndarray) -> None:
        """Add the KL of further steps, nats per row."""
        start = 0
        while start < len(kl):
            part = kl[start : start + BLOCK - self._count]
            self._sum += float(np.nansum(part))  # steps that were not finite are reported elsewhere
            self._count += len(part)
            start += len(part)
            if self._count == BLOCK:
                self.blocks = self.blocks + 1 if self._sum < NATS * BLOCK else 0
                self._sum, self._count = 0.0, 0

    def news(self, step: int) -> str | None:
        """The message at a step, once: that latents are not used, or are used again."""
        if bool(self.steps) == self.told:
            return None
        self.told = not self.told
        if not self.told:
            return f"the KL is above {NATS:g} nats again at step {step:,}: the latents are in use"
        return (
            f"The KL has stayed below {NATS:g} nats per row for {self.steps:,} steps, at step {step:,}: the model "
            "learns to ignore its latents. Stop training, and try a KL warm-up (beta=Linear(start=0, steps=…)), free "
            "bits (free_bits=0.1), LaggingInference(), a smaller β, or a weaker decoder."
        )


def has_latents(trace: Trace) -> bool:
    """Whether the KL is only of latents of each row, so that it shows whether they are used."""
    return bool(trace.log_q) and not trace.shared
