"""Random numbers that a program draws outside its sample sites: an evaluation with them has no meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.inference.inputs.feed import Feed

if TYPE_CHECKING:
    from ppdgm.language.runtime import Fields, Runtime
    from ppdgm.language.tracer import Params

ROWS = 3


def check_quiet(runtime: Runtime, params: Params, feed: Feed) -> None:
    """Refuse to evaluate a program if its terms change at the same latents, because it draws its own random numbers.

    Layers that the libraries can switch off (dropout of torch, of flax linen, of equinox) are off in this check.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        feed: of the data.

    Raises:
        ProgramError: with the role that draws them, and what to do.
    """
    if remedy := noise_of(runtime, params, feed):
        raise ProgramError(
            "The model or the guide draws random numbers outside its sample sites, so the bound would differ at "
            f"every evaluation, even at the same latents and data. {remedy} Or draw the noise in a sample site. Only "
            "training without validation data accepts such noise."
        )


def check_quiet_model(runtime: Runtime, params: Params, fields: Fields, size: int) -> None:
    """Refuse to draw from a model that draws random numbers outside its sample sites: no distribution contains them.

    Args:
        runtime, params: of the program.
        fields: fields that the model computes with, `size` rows each, or `Unseen`.
        size: number of rows in the run of the model that is checked.

    Raises:
        ProgramError: with what to do.
    """
    if remedy := runtime.model_noise(params, fields, size):
        raise ProgramError(
            "The model draws random numbers outside its sample sites, so its draws would not have the distribution "
            f"that evaluations use. {remedy} Or draw the noise in a sample site."
        )


def noise_of(runtime: Runtime, params: Params, feed: Feed) -> str:
    """What to do about a program's random numbers outside its sample sites; "" if they change no term."""
    index = np.arange(runtime.tracer.batch_size or min(ROWS, feed.size)) % feed.size
    data, where = feed.rows(index)
    found: str = runtime.noise(params, data, where)
    return found
