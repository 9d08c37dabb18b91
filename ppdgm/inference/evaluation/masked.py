"""Latents under a mask: where it is off, they have no term, and their values no meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.language import questions
from ppdgm.language.pair_tracer import PairTracer
from ppdgm.language.tracer import ProgramTracer

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Runtime
    from ppdgm.language.tracer import Params
    from ppdgm.language.vocabulary import Array, Noise


def under_masks(runtime: Runtime, params: Params, data: Native, index: np.ndarray) -> tuple[str, ...]:
    """The names of latents under a mask, such as that of a scan.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        data, index: some rows.
    """
    return tuple(runtime.look(_masked, params, data, runtime.index(index)))


def _masked(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array) -> Native:
    batch, tracer = runtime.select(data, index), runtime.tracer
    if isinstance(tracer, PairTracer):
        return tracer.without_meaning(params, noise, batch, index)
    return questions.without_meaning(cast(ProgramTracer, tracer).ask(params, noise, batch, index.shape[0]))
