"""First values of a program's parameters and states: drawn by NumPy, the same on every backend."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

import numpy as np

from ppdgm.errors import PpdgmError, ProgramError, out_of_memory
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Declarations, ParamSpec

STATE = "state"  #: the label of states, which no phase of an engine moves


def first_value(name: str, spec: ParamSpec, seed: int, data: Mapping[str, np.ndarray] | None, dtype: str) -> np.ndarray:
    """The first value of a parameter, from its own stream of random numbers.

    Raises:
        ProgramError: its init fails, or gives another shape, or a state that is not finite.
    """
    rng = np.random.default_rng([seed, crc32(name.encode())])
    try:
        value = np.asarray(spec.init(rng, spec.shape, data), dtype=dtype)
    except PpdgmError:
        raise
    except Exception as error:
        failed = ProgramError(f"Parameter {name!r}: init(rng, shape, data) failed: {error}.")
        raise out_of_memory(error) or failed from error
    if value.shape != spec.shape:
        raise ProgramError(f"Parameter {name!r}: init gave shape {value.shape}, expected {spec.shape}.")
    if spec.label == STATE and not np.isfinite(value).all():
        raise ProgramError(
            f"State {name!r}: init gave {value[~np.isfinite(value)].flat[0]}, expected finite numbers: a step that "
            "leaves other numbers is skipped."
        )
    return value


def settled(
    declared: Declarations, values: dict[str, np.ndarray], data: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """First values, with those that settlers set."""
    found = {n: np.asarray(v, np.float64) for n, v in values.items()}
    for settler in declared.settlers:
        settler(NumpyVocabulary.over(found, declared), data)
    return {n: found[n].astype(v.dtype) for n, v in values.items()}
