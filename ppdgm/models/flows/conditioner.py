"""The nets that compute a flow's numbers: declared so that the flow starts near the identity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ppdgm.language import Init
from ppdgm.nets import MADE, MLP
from ppdgm.program import Context

SMALL = 0.01  #: first values of the last layer, against a net's usual ones


def declare_conditioner(
    context: Context, name: str, net: MLP | MADE, inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    """Declare a net whose outputs start near 0."""
    context.net(name, net, inputs, outputs)
    last = f"{context.prefix}{name}.layers.{len(net.hidden)}.weight"
    spec = context.declared.params[last]
    context.declared.params[last] = replace(spec, init=_small(spec.init))


def _small(first: Init) -> Init:
    def init(rng: np.random.Generator, shape: tuple[int, ...], data: Any = None) -> np.ndarray:
        return SMALL * first(rng, shape, data)

    return init
