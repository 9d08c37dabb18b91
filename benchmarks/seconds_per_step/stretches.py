"""How contestants take a stretch of steps: with ppdgm's trainer, a loop over torch, or Pyro's SVI."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ppdgm.inference.engines.engine import hyperparameters_of
from ppdgm.inference.inputs.batches import Plan

from .problem import LEARNING_RATE, Contestant, Floats, Rows, Stretch


def of_trainer(trainer: Any, engine: Any, data: Any) -> Contestant:
    """The loop inside `ppdgm.fit`, without its stops; the loss is minus the engine's objective."""
    taken = 0

    def contestant(rows: Rows) -> Stretch:
        count = len(rows)
        weight, rate = np.ones(rows.shape, np.float32), np.full(count, LEARNING_RATE, np.float32)

        def stretch() -> Floats:
            nonlocal taken
            now = hyperparameters_of(engine, np.arange(taken, taken + count))
            plan = Plan(rows.astype(np.int32), weight, rate, now, first=taken, count=count)
            taken += count
            return -trainer.run(plan, data)["objective"]

        return stretch

    return contestant


def of_torch(loss_of: Callable[[Any], Any], adam: Any, data: Any) -> Contestant:
    """A Python loop; the loss of a minibatch is never read back within a stretch."""
    import torch  # not at the top: contestants of JAX are measured without it

    def contestant(rows: Rows) -> Stretch:
        device_rows = torch.from_numpy(rows).to(data.device).unbind()

        def stretch() -> Floats:
            losses = []
            for row in device_rows:
                loss = loss_of(data.index_select(0, row))
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
                losses.append(loss.detach())
            return torch.stack(losses).cpu().numpy()

        return stretch

    return contestant


def of_svi(svi: Any, data: Any, batch: int) -> Contestant:
    """`svi.step` of Pyro in a loop, with validation off."""
    import pyro
    import torch

    def contestant(rows: Rows) -> Stretch:
        device_rows = torch.from_numpy(rows).to(data.device).unbind()

        def stretch() -> Floats:
            with pyro.validation_enabled(False):
                losses = [svi.step(data.index_select(0, row)) for row in device_rows]
            return np.array(losses, np.float32) / np.float32(batch)

        return stretch

    return contestant
