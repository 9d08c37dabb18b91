"""A step whose rows are divided among several processes: gradients and metrics are those of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ppdgm.backends.pyro.noise import get_rng, set_rng
from ppdgm.backends.pyro.ranks import Ranks
from ppdgm.backends.pyro.row_noise import Coincidence, RowNoise, divided
from ppdgm.backends.pyro.step import EagerStep, Params, Pieces, Row, gradients
from ppdgm.errors import UnsupportedByBackend
from ppdgm.language.shares import TRIED
from ppdgm.language.vocabulary import Array

ROUNDING = 1e-3  #: relative to the largest number of the same kind; the orders of sums differ


class DividedStep(EagerStep):
    """The same step in each process: only the gradient's rows are divided.

    Args:
        ranks: the processes.
        loss: of a share of the data; see `Trainer`.
        how: what else `EagerStep` takes.
    """

    def __init__(self, ranks: Ranks, loss: Pieces, *how: Any):
        super().__init__(loss, *how)
        self.ranks = ranks

    def gradients(self, data: Params, index: Array, weight: Array, row: Row) -> tuple[Params, Array, Params]:
        """Σ_r s_r g_r of the gradients, metrics and new numbers of all processes, with r's share s_r of the rows."""
        mine, own = self.ranks.part(index), self.ranks.part(weight)
        share = own.sum().double() / weight.sum()  # in float32, the shares of 3 processes do not add up to 1
        own = own if bool(share > 0) else torch.ones_like(own)  # a process with only padding counts for nothing
        with divided(RowNoise(self.ranks, len(mine))):
            found, metrics, new = gradients(self.loss, self.params, self.groups, data, mine, own, row, share)
        names = [n for group in self.groups for n in group]
        there = metrics.new_tensor([float(n in found) for n in names])  # by every process: what moves a parameter
        parts = {f"0/{n}": found.get(n, torch.zeros_like(self.params[n])) for n in names}
        parts |= {f"1/{n}": v for n, v in new.items()} | {"metrics": metrics, "there": there}
        total = self.ranks.total(parts)
        moved = [n for n, count in zip(names, total["there"].tolist(), strict=True) if count]
        return {n: total[f"0/{n}"] for n in moved}, total["metrics"], {n: total[f"1/{n}"] for n in new}


def check_same_step(
    step: DividedStep,
    whole: Callable[[Array, Array, Row], tuple[Params, Array, Params]],
    data: Params,
    index: Array,
    row: Row,
) -> None:
    """Refuse a program or an engine whose divided step differs from the step of one process.

    Args:
        step: the divided one.
        whole: (index, weight, row) -> gradients, metrics and new numbers of one process, with the same draws.
        data: on the device.
        index: rows, at least as many as are tried.
        row: hyperparameters and scheduled parameters.

    Raises:
        UnsupportedByBackend: something depends on the rows of other processes, or on what they draw.
    """
    for rows in TRIED:
        part = index[: rows * step.ranks.processes]
        weight = torch.ones(len(part), device=index.device)
        weight[-1] = 0.0  # a row that only fills the minibatch
        before = get_rng(index.device)
        try:
            mine = step.gradients(data, part, weight, row)
        except Coincidence:
            if rows == TRIED[-1]:
                raise
            continue
        after = get_rng(index.device)
        set_rng(index.device, before)
        theirs = whole(part, weight, row)
        differs = next((what for what, a, b in zip(_KINDS, mine, theirs, strict=True) if not _alike(a, b)), None)
        same = all(torch.equal(a, b) for a, b in zip(after, get_rng(index.device), strict=True) if a is not None)
        differs = differs or (None if same else "number of random numbers")
        if step.ranks.any(differs is not None):
            raise UnsupportedByBackend(
                f"devices: the {differs or 'step'} of {step.ranks.processes} processes is not that of one: something "
                "depends on all rows of the minibatch, or draws noise of its own, such as batch norm, HMC, or a mean "
                "over rows that is not P.batch_mean. Train on one device, or on the numpyro backend."
            )
        return


_KINDS = "gradient", "metrics", "state"


def _alike(mine: Params | Array, theirs: Params | Array) -> bool:
    mine, theirs = ({"": v} if isinstance(v, torch.Tensor) else v for v in (mine, theirs))
    pairs = [(a.cpu().numpy(), theirs[n].detach().cpu().numpy()) for n, a in mine.items() if n in theirs]
    if mine.keys() != theirs.keys():
        return False
    most = max((np.abs(b[np.isfinite(b)]).max(initial=0.0) for _, b in pairs), default=0.0)
    return all(np.allclose(a, b, rtol=ROUNDING, atol=ROUNDING * most + 1e-9, equal_nan=True) for a, b in pairs)
