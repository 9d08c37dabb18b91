"""Training with torch: the direct reading, compiled where that pays, and a fused optimiser."""

from __future__ import annotations

from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from ppdgm.backends.pyro.runtime import seeded
from ppdgm.backends.pyro.step import CompiledStep, EagerStep, is_spec
from ppdgm.backends.pyro.tracer import select
from ppdgm.backends.pyro.vocabulary import flushed, unvalidated
from ppdgm.errors import TrainingError
from ppdgm.language import Array


class Trainer:
    """The training state, and the loop over a stretch of steps.

    Args:
        runtime: of the program.
        objective: (trace, xp, weights, knobs, data_size) -> named scalars, of which "objective" is maximised.
        optimiser: spec, or a function of parameters that makes a torch optimiser.
        params, data: from `runtime.put`.
        seed: of all draws.
        data_size: N.
        binarise: draw x ~ Bernoulli(x) anew for each minibatch.
        compile: compile the step, where that can be done.
        insist: a program that torch can't compile is an error, rather than run eagerly.
    """

    def __init__(
        self,
        runtime: Any,
        objective: Any,
        optimiser: Any,
        params: dict[str, Array],
        data: dict[str, Array],
        seed: int,
        data_size: int,
        binarise: bool = False,
        compile: bool = False,
        insist: bool = False,
    ):
        self.runtime, self.tracer, self.objective = runtime, runtime.tracer, objective
        self.data, self.data_size, self.binarise = data, data_size, binarise
        self.params = self.tracer.adopt(params)
        # Buffers move as a side effect of a forward pass, and a user's own optimiser is its own: neither compiles.
        self.compiled = compile and self.tracer.compiles and not self.tracer.state_names and is_spec(optimiser)
        self.optimiser, self.insist = optimiser, insist
        self._step = (CompiledStep if self.compiled else EagerStep)(self._loss_of, self.params, optimiser)
        with seeded(runtime.device, seed):
            self._rng = _get_rng(runtime.device)

    def run(self, plan: Any) -> dict[str, np.ndarray]:
        """Take the plan's steps; return each objective's metrics per step. Nothing is read back in between.

        Raises:
            TrainingError: torch can't compile the program, and `insist`.
        """
        try:
            return self._run(plan)
        except Exception as error:
            if not self.compiled or self._step.works:
                raise
            if self.insist:
                raise TrainingError(
                    f"torch can't compile this program ({type(error).__name__}: {str(error).strip().splitlines()[0]}). "
                    "Train with compile=False, or write it with fewer Python features."
                ) from error
        self.compiled, self._step = False, EagerStep(self._loss_of, self.params, self.optimiser)
        return self._run(plan)

    def _run(self, plan: Any) -> dict[str, np.ndarray]:
        device = self.runtime.device
        index = torch.as_tensor(plan.index, dtype=torch.int64, device=device)
        weight = torch.as_tensor(plan.weight, device=device)
        knobs = {n: torch.as_tensor(v, device=device) for n, v in plan.knobs.items()}
        rates = self._step.rates(plan.rate[: plan.count], device)
        history = torch.empty(plan.count, len(self.objective.metrics), device=device)
        with seeded(device, 0), unvalidated(), flushed(), self.tracer.training(self.params):
            _set_rng(device, self._rng)
            for i in range(plan.count):
                row = {n: v[i] for n, v in knobs.items()}
                history[i] = self._step(self.data, index[i], weight[i], row, rates[i])
            self._rng = _get_rng(device)
        values = history.cpu().numpy()
        return {n: values[:, j] for j, n in enumerate(self.objective.metrics)}

    def values(self) -> dict[str, np.ndarray]:
        """The parameters and buffers now."""
        return {n: p.detach().cpu().numpy().copy() for n, p in self.params.items()}

    def _loss_of(
        self,
        params: dict[str, Array],
        data: dict[str, Array],
        index: Array,
        weight: Array,
        knobs: dict[str, Array],
    ) -> tuple[Array, Array]:
        batch = select(self.tracer, data, index)
        if self.binarise:
            x = batch["x"]
            batch = {**batch, "x": (torch.rand_like(x) < x).to(x.dtype)}
        k, kl = self.objective.particles, self.objective.wants_kl
        terms = self.tracer.trace(params, batch, index, k, None, kl, pathwise=True)
        metrics = self.objective(terms, xp, weight, knobs, self.data_size)
        stacked = torch.stack([metrics[n].detach().to(torch.float32) for n in self.objective.metrics])
        return -metrics["objective"], stacked


def _get_rng(device: torch.device) -> tuple[Array, Array | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_rng(device: torch.device, state: tuple[Array, Array | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
