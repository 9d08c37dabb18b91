"""Latents under a mask: where it is off, they have no term, and their values no meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppdgm.language import questions
from ppdgm.language.tracer import ProgramTracer

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Runtime
    from ppdgm.language.tracer import Params
    from ppdgm.language.vocabulary import Array, Noise


def under_masks(runtime: Runtime, params: Params, data: Native, index: np.ndarray) -> tuple[str, ...]:
    """The names of a program's latents under a mask, such as that of a scan; none of a plain pair's are known.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        data, index: some rows.
    """
    if not isinstance(runtime.tracer, ProgramTracer):
        return ()
    return tuple(runtime.look(_masked, params, data, runtime.index(index)))


def _masked(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array) -> Native:
    assert isinstance(runtime.tracer, ProgramTracer)
    return questions.without_meaning(runtime.tracer.ask(params, noise, runtime.select(data, index), index.shape[0]))
