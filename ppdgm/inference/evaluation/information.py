"""The mutual information of data and latents under a guide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from ppdgm.diagnostics.arrays import some_rows
from ppdgm.errors import ProgramError
from ppdgm.inference.evaluation.evaluator import check_latents_drawn
from ppdgm.inference.evaluation.masked import under_masks
from ppdgm.inference.inputs.feed import Feed

if TYPE_CHECKING:
    from ppdgm.language.runtime import Runtime
    from ppdgm.language.tracer import Params

ROWS = 500


def mutual_information(runtime: Runtime, params: Params, feed: Feed, seed: int = 0, rows: int = ROWS) -> float:
    """I(x; z) = E[log q(z|x) − log q(z)], with q(z) = 1/B Σ_j q(z|x_j) over B rows; at most log B. In nats.

    Hoffman & Johnson 2016. One draw of z for each row.

    Args:
        runtime: of the program.
        params: from `runtime.put`.
        feed: of the data; rows are chosen at random.
        seed: of the draws, and of the choice.
        rows: B.

    Raises:
        ProgramError: all rows share a latent, one is under a mask, or there is none.
    """
    rows = runtime.tracer.batch_size or min(rows, feed.size)
    data, index = feed.rows(np.resize(some_rows(feed.size, rows, seed), rows))
    if masked := under_masks(runtime, params, data, index):
        raise ProgramError(
            f"Site {masked[0]!r} is under a mask, so rows have densities of different numbers of latents, and their "
            "mutual information with the data is not known."
        )
    drawn = check_latents_drawn(runtime.tracer.program, runtime.draws(params, data, index, 1, seed))
    if shared := [n for n, z in drawn.items() if z.shape[1] != rows]:
        raise ProgramError(
            f"Site {shared[0]!r} is one latent for all data, but mutual information needs a latent for each row."
        )
    # Particle i is the draw of row i, and is scored under every row.
    given = {n: np.swapaxes(z, 0, 1) for n, z in drawn.items()}
    log_q = np.asarray(runtime.guide(params, data, index, given), float)
    return float(np.mean(np.diagonal(log_q) - logsumexp(log_q, axis=1) + np.log(rows)))
