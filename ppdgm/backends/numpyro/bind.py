"""A program as plain NumPyro model and guide callables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpyro

from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.errors import ProgramError
from ppdgm.language.vocabulary import Array
from ppdgm.nets import check_libraries


class Handlers:
    """Statements as NumPyro's primitives."""

    def __init__(self, size: int | None, data_size: int | None):
        self.size, self.data_size = size, data_size

    def plate(self, name: str, data: Array) -> AbstractContextManager[Any]:
        size = self.size if data is None else data.shape[0]
        if size is None:
            raise ProgramError(
                f"Plate {name!r} has no data, so its size is not known. Give the size: program.bind(…, size=B)."
            )
        if self.data_size is None:
            return numpyro.plate(name, size, dim=-1)
        return _Both(numpyro.plate(name, size, dim=-1), numpyro.handlers.scale(scale=self.data_size / size))

    def sample(self, name: str, dist: Any, obs: Array | None, infer: Mapping[str, Any] | None) -> Array:
        return numpyro.sample(name, dist, obs=obs, infer=dict(infer or {}))

    def penalty(self, name: str, value: Array) -> None:
        """Not part of the joint density, which is all that Pyro's and NumPyro's tools need."""

    def param(self, name: str, value: Array) -> Array:
        return numpyro.param(name, value)

    def deterministic(self, name: str, value: Array) -> Array:
        return numpyro.deterministic(name, value)


class _Both:
    """Two context managers as one."""

    def __init__(self, outer: Any, inner: Any):
        self.outer, self.inner = outer, inner

    def __enter__(self) -> None:
        self.outer.__enter__()
        self.inner.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self.inner.__exit__(*exception)
        self.outer.__exit__(*exception)


def bind(
    program: Any, params: Mapping[str, np.ndarray], size: int | None = None, data_size: int | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(model, guide) as functions of the data, with a `numpyro.param` site for each parameter."""
    declared = program.declarations()
    check_libraries(declared, "numpyro")

    def plain(statements: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Array = None, **data: Array) -> Any:
            P = JaxVocabulary(Handlers(size, data_size), params, declared)
            return statements(P, x, **data)

        run.__name__ = run.__qualname__ = statements.__name__
        return run

    return plain(program.model), plain(program.guide)
