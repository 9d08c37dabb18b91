"""Coordinate ascent: closed forms for one block of the guide after another."""

from __future__ import annotations

from ppdgm.inference.engines.engine import Composite, Phase


class CoordinateAscent(Composite):
    """Closed-form updates of one block of parameters after another, over all data: the ELBO never falls.

    For programs with three methods, in float64 NumPy on both backends. `statistics(params, x)` gives numbers that are
    summed over the data. `updates()` gives the blocks in order, each a function of (params, statistics) to its new
    parameters: log q_j = E_{i≠j} log p + constant, for any number of blocks. `bound(params, statistics)` gives the
    ELBO of all data. The latents of each row have no parameters: statistics use their best q at `params`. A step is one
    round of all blocks, with new statistics for each. Blei et al. 2017, arXiv:1601.00670.
    """

    def phases(self) -> tuple[Phase, ...]:
        return ()
