"""The nets that compute a flow's numbers: declared so that the flow starts near the identity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ppdgm.language import Array, Init, Vocabulary
from ppdgm.nets import MADE, MLP
from ppdgm.nets.base import unflatten
from ppdgm.nets.made import perceptron
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


def conditioned(P: Vocabulary, name: str, x: Array, context: Array | None) -> Array:
    """The declared net of x [..., D] beside a context [..., C] or None, which is not expanded to the particles of x."""
    use = P.declared.nets[P.prefix + name]
    net: Any = use.spec  # made in `build`: torch.compile can't trace the making of a spec
    if isinstance(net, MADE):
        return net.conditioned(P.scope(name), x, context, use.outputs)
    return unflatten(P, perceptron(P.scope(name), net, x, context), use.outputs)


def _small(first: Init) -> Init:
    def init(rng: np.random.Generator, shape: tuple[int, ...], data: Any = None) -> np.ndarray:
        return SMALL * first(rng, shape, data)

    return init
