"""What programs declare before any data are seen: parameters, nets, shapes, states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from ppdgm.language.native import Array
from ppdgm.specs.schedules import Schedule

Init = Callable[[np.random.Generator, tuple[int, ...], Mapping[str, np.ndarray] | None], np.ndarray]
Settler = Callable[[Any, Mapping[str, np.ndarray]], None]  # of P over NumPy and the data


@dataclass(frozen=True)
class ParamSpec:
    """A parameter's shape, its initial values `init(rng, shape, data)`, and the label that engines' phases name."""

    shape: tuple[int, ...]
    init: Init
    label: str


class NetLike(Protocol):
    """What the vocabulary P needs from a net: one application, over P."""

    def apply(self, P: Any, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array: ...


class NetUse(NamedTuple):
    """A net with its event shapes: from `inputs` to `outputs`."""

    spec: NetLike
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass
class Declarations:
    """Everything that a program declares before any data is seen, by dotted name."""

    params: dict[str, ParamSpec] = field(default_factory=dict)
    nets: dict[str, NetUse] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)  # parameters that a schedule sets, not an optimiser
    states: set[str] = field(default_factory=set)  # parameters that only P.update moves
    settlers: list[Settler] = field(default_factory=list)  # what sets first values that depend on the data
