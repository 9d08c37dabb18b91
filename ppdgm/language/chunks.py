"""Particles in chunks: a trace of K particles is read a few at a time, and each chunk again for its gradient.

Only terms and draws of all particles are kept, so that memory does not grow with the nets' layers times K.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from ppdgm.errors import TrainingError
from ppdgm.language.questions import Given
from ppdgm.language.vocabulary import Array, Noise, Trace

Read = Callable[[Mapping[str, Array], Noise, int, Given], Trace]  #: (params, noise, number of particles, given)
At = tuple[int, str]  #: the place of an array in a trace: its part and its name
PENALTIES = 5  #: their part
REMEDY = "Leave particle_chunk out, and give a smaller batch_size, or accumulate"


def sizes(k: int, chunk: int) -> list[int]:
    """The number of particles of each chunk; the last may be smaller."""
    full, rest = divmod(k, chunk)
    return [chunk] * full + [rest] * bool(rest)


def as_arrays(trace: Trace, n: int) -> tuple[dict[At, Array], frozenset[At]]:
    """The arrays of a trace of n particles by part and name; and those that have an axis of particles, their first.

    The others are the same for all particles, and so for all chunks: a closed-form KL that depends on no draw, a
    penalty [B].
    """
    arrays = {(i, name): v for i, part in enumerate((*trace[:5], trace.penalties or {})) for name, v in part.items()}
    alike = {at for at, v in arrays.items() if v.shape[0] != n or (at[0] == PENALTIES and v.ndim == 1)}
    return arrays, frozenset(arrays.keys() - alike)


def unflat(arrays: Mapping[At, Array]) -> Trace:
    """The trace that has these arrays."""
    parts: list[dict[str, Array]] = [{} for _ in range(6)]
    for (i, name), v in arrays.items():
        parts[i][name] = v
    values, log_p, log_q, kl, shared, penalties = parts
    return Trace(values, log_p, log_q, kl, shared, penalties=penalties or None)


def checked_chunk(trace: Trace, whole: Sequence[str]) -> Trace:
    """A chunk's trace, if it can be one of several.

    Args:
        trace: of a chunk.
        whole: what its reading needed the whole minibatch for, in words.

    Raises:
        TrainingError: with the reason.
    """
    if whole:
        refuse_chunks(f"{whole[0]}, which needs all particles at once")
    if trace.marginal is not None:
        refuse_chunks("the guide sums over all values of a latent, whose values are no particles")
    return trace._replace(points=None)


def refuse_chunks(why: str) -> NoReturn:
    """Refuse particles in chunks.

    Raises:
        TrainingError: with the reason.
    """
    raise TrainingError(f"particle_chunk: {why}. {REMEDY}.")
