"""A program as plain NumPyro model and guide callables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.primitives import _PYRO_STACK

from ppdgm.backends.numpyro.support import is_masked
from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.errors import ProgramError, UnsupportedByBackend
from ppdgm.language.handlers import StatementHandlers
from ppdgm.language.masks import wide
from ppdgm.language.vocabulary import Array, Dist, ProgramLike
from ppdgm.nets import check_libraries

if TYPE_CHECKING:
    from types import ModuleType


class Handlers(StatementHandlers):
    """Statements as NumPyro's primitives."""

    library: ClassVar[ModuleType] = numpyro
    effects: ClassVar[ModuleType] = numpyro.handlers
    stack: ClassVar[Sequence[object]] = _PYRO_STACK
    arrays: ClassVar[tuple[type, ...]] = (jax.Array, np.ndarray)

    @contextmanager
    def subsampled(self, name: str, size: int, data_size: int) -> Iterator[None]:
        with numpyro.plate(name, size, dim=-1), numpyro.handlers.scale(scale=data_size / size):
            yield

    def sample(self, name: str, dist: Dist, obs: Array | None, infer: Mapping[str, object] | None) -> Array:
        enumerated = (infer or {}).get("enumerate") and any("funsor" in type(f).__module__ for f in _PYRO_STACK)
        if enumerated and obs is None and dist.event_dim:
            raise UnsupportedByBackend(
                f"Site {name!r}: NumPyro's enumeration gives class numbers, but the values of this site are vectors "
                "(one-hot). ppdgm sums over them itself, in fit and in elbo. For NumPyro's TraceEnum_ELBO, write a "
                "program with P.dist.Categorical."
            )
        obs = wide(obs, dist, jnp) if obs is not None and is_masked(dist) else obs
        return super().sample(name, dist, obs, infer)

    def param(self, name: str, value: Array) -> Array:
        return numpyro.param(name, value)

    def filled(self, dist: Dist, value: Array, mask: Array) -> Array:
        return value  # NumPyro's own masked distributions do this

    def noise(self) -> Array:
        if (key := numpyro.prng_key()) is None:
            raise ProgramError(
                "P.random: NumPyro has no key here. Run the model inside numpyro.handlers.seed(model, rng_seed=0)."
            )
        return key


def bind(
    program: ProgramLike,
    params: Mapping[str, np.ndarray],
    size: int | None = None,
    data_size: int | None = None,
    hold_states: bool = False,
) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """(model, guide) as functions of the data, with a `numpyro.param` site for each parameter."""
    declared = program.declarations()
    check_libraries(declared, "numpyro")

    values: dict[str, Array] = {n: jnp.asarray(v) if n in declared.states else v for n, v in params.items()}

    def plain(statements: Callable[..., Array]) -> Callable[..., Array]:
        def run(x: Array = None, **data: Array) -> Array:
            P = JaxVocabulary(Handlers(size, data_size, hold_states), values, declared)
            return statements(P, x, **data)

        run.__name__ = run.__qualname__ = statements.__name__
        return run

    return plain(program.model), plain(program.guide)
