"""A user's own torch, Equinox or Flax NNX module as a net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import field_validator, model_validator

from ppdgm.errors import SpecError, UnsupportedByBackend
from ppdgm.language.native import Module
from ppdgm.language.vocabulary import Array, Declarations, Init, Vocabulary
from ppdgm.nets.base import Net, Shapes
from ppdgm.registry import backend
from ppdgm.specs import adopt

Library = Literal["torch", "equinox", "nnx"]
_LIBRARIES: dict[str, Library] = {"torch.nn.modules": "torch", "equinox": "equinox", "flax.nnx": "nnx"}
_BACKENDS = {"torch": "pyro", "equinox": "numpyro", "nnx": "numpyro"}


class ForeignNet(Net):
    """A module of another library, used as a net. With it, the program runs on one backend only.

    Its parameters become parameters of the program, under the module's own dotted names. torch modules get
    [..., *inputs]; Equinox modules, written for one row, are mapped over the leading dimensions; NNX modules get
    [..., *inputs].

    Args:
        module: the module, with the first values of its parameters.
        library: "torch", "equinox" or "nnx".
    """

    module: Module
    library: Library

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, fields: object) -> object:
        return fields  # here the module stays a module; in other specs it becomes a ForeignNet

    @field_validator("module")
    @classmethod
    def _is_module(cls, module: Module) -> Module:
        if isinstance(module, str):
            raise ValueError(
                "the module itself, which can't be saved as text: pass the program, load(…, program=program)"
            )
        return module

    def params(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        values = backend(_BACKENDS[self.library]).module_params(self.module)
        return {n: (tuple(v.shape), _given(v)) for n, v in values.items()}

    def states(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
        values = backend(_BACKENDS[self.library]).module_states(self.module)
        return {n: (tuple(v.shape), _given(v)) for n, v in values.items()}

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        out = P.foreign(self.module, x, len(inputs))
        if tuple(out.shape[len(out.shape) - len(outputs) :]) != outputs:
            raise SpecError(
                f"{type(self.module).__name__}: got an output of shape {tuple(out.shape)}, expected [..., "
                f"{', '.join(map(str, outputs))}] for inputs [..., {', '.join(map(str, inputs))}]."
            )
        return out

    def to_dict(self) -> dict[str, object]:
        """A description as text. It can't be read back: pass the program itself when you load the run."""
        return {"kind": "ForeignNet", "module": type(self.module).__qualname__, "library": self.library}


def check_libraries(declared: Declarations, backend: str) -> None:
    """Refuse modules that only run on another backend.

    Raises:
        UnsupportedByBackend: there is one; the message names the net, its library and its backend.
    """
    for name, use in declared.nets.items():
        if isinstance(use.spec, ForeignNet) and (needed := _BACKENDS[use.spec.library]) != backend:
            raise UnsupportedByBackend(
                f"Net {name!r} is {type(use.spec.module).__name__}, a module of {use.spec.library}, which runs on the "
                f"{needed} backend, not on {backend}. Choose backend={needed!r}, or a net of ppdgm, such as MLP()."
            )


def _given(value: np.ndarray) -> Init:
    def init(
        rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        return value

    return init


def _wrap(value: object) -> ForeignNet | None:
    for cls in type(value).__mro__:
        for prefix, library in _LIBRARIES.items():
            if cls.__module__.startswith(prefix) and cls.__name__ == "Module":
                return ForeignNet(module=value, library=library)
    return None


adopt(_wrap)
