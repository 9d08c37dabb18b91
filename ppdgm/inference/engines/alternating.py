"""The shared part of engines that maximise one objective with guide and model in turns."""

from __future__ import annotations

from dataclasses import replace

from ppdgm.inference.engines.engine import Composite, Engine, Phase
from ppdgm.inference.engines.importance import Weighted
from ppdgm.inference.engines.svi import SVI


class Alternating(Composite):
    """One engine's objective, maximised by phases that move different parameters."""

    engine: SVI | Weighted = SVI()


def for_label(engine: Engine, label: str) -> Phase:
    """The engine's one phase, which now moves only the parameters of this label."""
    (phase,) = engine.phases()
    return replace(phase, labels=(label,))
