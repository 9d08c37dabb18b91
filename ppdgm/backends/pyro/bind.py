"""A program as plain Pyro model and guide callables that leave the global parameter store as it is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.runtime import _PYRO_STACK, effectful

from ppdgm.backends.pyro.support import filled
from ppdgm.backends.pyro.vocabulary import TorchVocabulary
from ppdgm.language.handlers import StatementHandlers
from ppdgm.language.vocabulary import Array, Declarations, Dist, ProgramLike
from ppdgm.nets import check_libraries

if TYPE_CHECKING:
    from types import ModuleType


class Handlers(StatementHandlers):
    """Statements as Pyro's primitives."""

    library: ClassVar[ModuleType] = pyro
    effects: ClassVar[ModuleType] = pyro.poutine
    stack: ClassVar[Sequence[object]] = _PYRO_STACK
    arrays: ClassVar[tuple[type, ...]] = (torch.Tensor,)

    def subsampled(self, name: str, size: int, data_size: int) -> AbstractContextManager[object]:
        return pyro.plate(name, data_size, subsample=torch.arange(size), dim=-1)

    def param(self, name: str, value: Array) -> Array:
        """A message that carries its own value, so that it is not looked up in a store."""
        if not value.requires_grad:
            return value  # a buffer
        value.unconstrained = weakref.ref(value)  # the attribute that SVI reads on a param site
        read = effectful(type="param")(lambda *args, **kwargs: value)
        return read(name, constraint=dist.constraints.real, event_dim=None, name=name)

    def filled(self, dist: Dist, value: Array, mask: Array) -> Array:
        return filled(dist, value, mask)

    def noise(self) -> None:
        return None


class Parameters(torch.nn.Module):
    """Arrays under dotted names, as nested modules."""

    def __init__(self, values: Mapping[str, np.ndarray]):
        super().__init__()
        for name, value in values.items():
            *path, leaf = name.split(".")
            module: torch.nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]
            module.register_parameter(leaf, torch.nn.Parameter(torch.tensor(value)))


class BoundProgram(torch.nn.Module):
    """A model or a guide with `params`; call it with the data."""

    def __init__(
        self,
        statements: Callable[..., Array],
        params: Parameters,
        declared: Declarations,
        buffers: Mapping[str, Array],
        handlers: Handlers,
    ):
        super().__init__()
        self.params = params
        self.statements, self.declared, self.handlers, self.extra = statements, declared, handlers, buffers

    def forward(self, x: Array = None, **data: Array) -> Array:
        params = {**dict(self.params.named_parameters()), **self.extra}
        return self.statements(TorchVocabulary(self.handlers, params, self.declared), x, **data)


def bind(
    program: ProgramLike,
    params: Mapping[str, np.ndarray],
    size: int | None = None,
    data_size: int | None = None,
    hold_states: bool = False,
) -> tuple[BoundProgram, BoundProgram]:
    """(model, guide) as modules with the same parameters."""
    declared = program.declarations()
    check_libraries(declared, "pyro")
    moved = declared.params.keys() - declared.states
    trained = Parameters({n: v for n, v in params.items() if n in moved})
    buffers = {n: torch.tensor(v) for n, v in params.items() if n not in moved}
    handlers = Handlers(size, data_size, hold_states)
    return (
        BoundProgram(program.model, trained, declared, buffers, handlers),
        BoundProgram(program.guide, trained, declared, buffers, handlers),
    )
