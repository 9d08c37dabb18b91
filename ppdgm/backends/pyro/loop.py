"""Training with torch: the direct reading, compiled where that pays, and a fused optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch
from torch.distributions import Distribution

from ppdgm.backends.pyro.runtime import seeded
from ppdgm.backends.pyro.tracer import select
from ppdgm.backends.pyro.vocabulary import unvalidated
from ppdgm.errors import SpecError
from ppdgm.language import Array


def make_optimiser(spec: Any, params: list[Array]) -> torch.optim.Optimizer:
    """torch.optim for an `Optimiser` spec, or what the user's own `optimiser(params)` returns."""
    if not hasattr(spec, "clip_norm"):
        made = spec(params) if callable(spec) else None
        if not isinstance(made, torch.optim.Optimizer):
            raise SpecError(
                f"optimiser: got {type(spec).__name__}; the pyro backend expects a name such as 'adam', an Optimiser, "
                "or a function of parameters, such as lambda params: torch.optim.Adam(params)."
            )
        return made
    betas, eps = (spec.beta1, spec.beta2), spec.eps
    rules: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(params, betas=betas, eps=eps, fused=True),
        "adamw": lambda: torch.optim.AdamW(params, betas=betas, eps=eps, weight_decay=spec.weight_decay, fused=True),
        "adamax": lambda: torch.optim.Adamax(params, betas=betas, eps=eps),
        "sgd": lambda: torch.optim.SGD(params, lr=1.0, momentum=spec.momentum, fused=True),
    }
    return rules[spec.name]()


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
        compile: compile the loss.
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
    ):
        self.runtime, self.tracer, self.objective = runtime, runtime.tracer, objective
        self.data, self.data_size, self.binarise = data, data_size, binarise
        self.params = self.tracer.adopt(params)
        self.trained = [p for p in self.params.values() if p.requires_grad]
        self.own_optimiser = not hasattr(optimiser, "clip_norm")
        self.clip_norm = None if self.own_optimiser else optimiser.clip_norm
        self.optimiser = make_optimiser(optimiser, self.trained)
        with seeded(runtime.device, seed):
            self._rng = _get_rng(runtime.device)
        self.compiled = bool(compile) and self.tracer.compiles
        self._loss = _compile(self._loss_of) if self.compiled else self._loss_of

    def run(self, plan: Any) -> dict[str, np.ndarray]:
        """Take the plan's steps; return each objective's metrics per step. Nothing is read back in between."""
        device = self.runtime.device
        index = torch.as_tensor(plan.index, dtype=torch.int64, device=device)
        weight = torch.as_tensor(plan.weight, device=device)
        knobs = {n: torch.as_tensor(v, device=device) for n, v in plan.knobs.items()}
        history = torch.empty(plan.count, len(self.objective.metrics), device=device)
        with seeded(device, 0), unvalidated(), self.tracer.training(self.params):
            _set_rng(device, self._rng)
            for i in range(plan.count):
                row = {n: v[i] for n, v in knobs.items()}
                history[i] = self._step(index[i], weight[i], row, float(plan.rate[i]))
            self._rng = _get_rng(device)
        values = history.cpu().numpy()
        return {n: values[:, j] for j, n in enumerate(self.objective.metrics)}

    def values(self) -> dict[str, np.ndarray]:
        """The parameters and buffers now."""
        return {n: p.detach().cpu().numpy().copy() for n, p in self.params.items()}

    def _step(self, index: Array, weight: Array, knobs: dict[str, Array], rate: float) -> Array:
        loss, metrics = self._loss(self.params, self.data, index, weight, knobs)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.trained, self.clip_norm)
        if not self.own_optimiser:
            for group in self.optimiser.param_groups:
                group["lr"] = rate
        self.optimiser.step()
        return metrics

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


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile, which switches off distributions' validation for the whole process: put back what was."""
    before = Distribution._validate_args
    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=False)
    Distribution.set_default_validate_args(before)
    return compiled


def _get_rng(device: torch.device) -> tuple[Array, Array | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_rng(device: torch.device, state: tuple[Array, Array | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
