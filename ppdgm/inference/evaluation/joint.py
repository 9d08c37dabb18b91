"""log p(z), log p(x|z) and their gradient by z, as functions of one vector per particle and row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.inference.evaluation.evaluator import Evaluator, Sites, memory_told
from ppdgm.inference.evaluation.latents import Latents
from ppdgm.inference.evaluation.numbered import check_not_points

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Runtime
    from ppdgm.language.tracer import Params

ONCE = 200  # draws of the guide for each of a few rows: one number, so that they are compiled once


@dataclass(frozen=True)
class Joint:
    """A program's joint density at some rows.

    Args:
        runtime, params: of the program.
        data: on the device.
        index: of the B rows of `data`, [B].
        latents: how vectors are split into sites.
        dtype: of the program.
    """

    runtime: Runtime
    params: Params
    data: Native
    index: np.ndarray
    latents: Latents
    dtype: str = "float32"

    def __call__(self, z: np.ndarray, beta: float | np.ndarray = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log p(z) [K, B], log p(x|z) [K, B], and ∇ (log p(z) + beta · log p(x|z)) [K, B, D]; in float64.

        Args:
            z: [K, B, D].
            beta: inverse temperatures, [K, B] or a number.
        """
        with memory_told():
            prior, seen, slopes = self.runtime.joint(
                self.params, self.data, self.index, self.latents.sites(z, self.dtype), np.asarray(beta, self.dtype)
            )
        return prior.astype(np.float64), seen.astype(np.float64), self.latents.flat(slopes)


def joint_of(evaluator: Evaluator) -> tuple[Joint, Sites]:
    """The joint density at all rows, and draws of the guide, [ONCE, N, *event]; for real latents.

    Raises:
        ProgramError: latents are not real.
    """
    check_not_points(evaluator.program)
    data, index = evaluator.feed.rows(np.arange(evaluator.size))
    evaluator.runtime.check_walked(evaluator.params, data, index)
    drawn = evaluator.drawing(ONCE)(data, index, evaluator.stream("joint"))
    return Joint(evaluator.runtime, evaluator.params, data, index, Latents.of(drawn), evaluator.dtype), drawn
