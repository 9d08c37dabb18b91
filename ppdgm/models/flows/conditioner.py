"""The nets that compute the numbers of a flow. They start so that the flow is near the identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ppdgm.language.vocabulary import Array, Init, Vocabulary
from ppdgm.nets import MADE, MLP
from ppdgm.nets.base import unflatten
from ppdgm.nets.made import perceptron
from ppdgm.program import Context

SMALL = 0.01  #: factor on the usual first values of the last layer


def declare_conditioner(
    scope: Context, name: str, net: MLP | MADE, inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    """Declare a net whose outputs are near 0 at the start."""
    scope.net(name, net, inputs, outputs)
    last = f"{scope.prefix}{name}.layers.{len(net.hidden)}.weight"
    spec = scope.declared.params[last]
    scope.declared.params[last] = replace(spec, init=_small(spec.init))


def conditioned(P: Vocabulary, name: str, x: Array, context: Array | None) -> Array:
    """The declared net of x [..., D] and a context [..., C] or None, which is not expanded to the particles of x."""
    use = P.declared.nets[P.prefix + name]
    # An MLP or a MADE, made in `build`: torch.compile can trace neither how a spec is made nor, perhaps, `cast`.
    net: Any = use.spec
    if isinstance(net, MADE):
        return net.conditioned(P.scope(name), x, context, use.outputs)
    return unflatten(P, perceptron(P.scope(name), net, x, context), use.outputs)


def _small(first: Init) -> Init:
    def init(
        rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        return SMALL * first(rng, shape, data)

    return init
