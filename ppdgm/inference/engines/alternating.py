"""The shared part of engines that maximise one objective with guide and model in turns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ppdgm.inference.engines.engine import Composite
from ppdgm.inference.engines.importance import Weighted
from ppdgm.inference.engines.svi import SVI
from ppdgm.specs.schedules import Schedule


class Alternating(Composite):
    """One engine's objective, maximised by phases that move different parameters."""

    engine: SVI | Weighted = SVI()

    @property
    def particles(self) -> int:
        return self.engine.particles

    @property
    def wants_kl(self) -> bool:
        return self.engine.wants_kl

    def schedules(self) -> dict[str, Schedule]:
        return self.engine.schedules()

    def own(self, width: int, scored: Iterable[str]) -> dict[str, np.ndarray]:
        return self.engine.own(width, scored)

    def labels(self, own: Iterable[str]) -> dict[str, str]:
        return self.engine.labels(own)
