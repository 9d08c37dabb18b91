"""Training with torch: the direct reading, compiled where that pays, and a fused optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from ppdgm.backends.pyro.runtime import seeded
from ppdgm.backends.pyro.step import CompiledStep, EagerStep, all_finite, is_spec
from ppdgm.backends.pyro.tracer import select
from ppdgm.backends.pyro.vocabulary import flushed, unvalidated
from ppdgm.errors import TrainingError
from ppdgm.language import Array, Trace


class Trainer:
    """The training state, and the loop over a stretch of steps.

    Args:
        runtime: of the program.
        objective: (trace, xp, weights, knobs, data_size) -> named scalars, of which "objective" is maximised.
        optimiser: spec, or a function of parameters that makes a torch optimiser.
        params: from `runtime.put`.
        seed: of all draws.
        data_size: N.
        binarise: draw x ~ Bernoulli(x) anew for each minibatch.
        average: d of the moving average of the parameters, or None.
        compile: compile the step, where that can be done.
        insist: a program that torch can't compile is an error, rather than run eagerly.
    """

    def __init__(
        self,
        runtime: Any,
        objective: Any,
        optimiser: Any,
        params: dict[str, Array],
        seed: int,
        data_size: int,
        binarise: bool = False,
        average: float | None = None,
        compile: bool = False,
        insist: bool = False,
    ):
        self.runtime, self.tracer, self.objective = runtime, runtime.tracer, objective
        self.data_size, self.binarise, self.decay = data_size, binarise, average
        self.params = self.tracer.adopt(params)
        trained = {n: p for n, p in self.params.items() if p.requires_grad}
        self.average = {} if average is None else {n: p.detach().clone() for n, p in trained.items()}
        # Buffers move as a side effect of a forward pass, and a user's own optimiser is its own: neither compiles.
        self.compiled = compile and self.tracer.compiles and not self.tracer.state_names and is_spec(optimiser)
        self.optimiser, self.insist = optimiser, insist
        self._step = (CompiledStep if self.compiled else EagerStep)(self._loss_of, self.params, optimiser)
        with seeded(runtime.device, seed):
            self._rng = _get_rng(runtime.device)

    def run(self, plan: Any, data: dict[str, Array]) -> dict[str, np.ndarray]:
        """Take the plan's steps; return each objective's metrics per step. Nothing is read back in between.

        Args:
            plan: of a stretch.
            data: that the plan's indices refer to, from `runtime.put`.

        Raises:
            TrainingError: torch can't compile the program, and `insist`.
        """
        try:
            return self._run(plan, data)
        except Exception as error:
            if not self.compiled or self._step.works:
                raise
            if self.insist:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                said = next((line for line in lines if not line.endswith("raised:")), "")
                raise TrainingError(
                    f"torch can't compile this program ({type(error).__name__}: {said}). "
                    "Train with compile=False, or write it with fewer Python features."
                ) from error
        self.compiled, self._step = False, EagerStep(self._loss_of, self.params, self.optimiser)
        return self._run(plan, data)

    def _run(self, plan: Any, data: dict[str, Array]) -> dict[str, np.ndarray]:
        device = self.runtime.device
        index, weight, knobs = self._put(plan)
        rates = self._step.rates(plan.rate[: plan.count], device)
        history = torch.empty(plan.count, len(self.objective.metrics), device=device)
        moving, moved = list(self.average.values()), [self.params[n].detach() for n in self.average]
        with self._drawing():
            for i in range(plan.count):
                row = {n: v[i] for n, v in knobs.items()}
                history[i] = self._step(data, index[i], weight[i], row, rates[i])
                if moving:
                    torch._foreach_lerp_(moving, moved, 1.0 - (self.decay or 0.0))
        for name in self.tracer.schedules:  # they stand among the parameters at their last value
            if name in knobs:
                self.params[name].detach().copy_(knobs[name][plan.count - 1])
        values = history.cpu().numpy()
        return {n: values[:, j] for j, n in enumerate(self.objective.metrics)}

    @property
    def judged(self) -> dict[str, Array]:
        """The parameters that stand for the run: their average, where one is kept."""
        return {**self.params, **self.average}

    def values(self) -> dict[str, np.ndarray]:
        """The judged parameters, and the buffers, now."""
        return _copies(self.judged)

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on."""
        cpu, gpu = self._rng
        rng = {"cpu": cpu.numpy().copy()} | ({} if gpu is None else {"gpu": gpu.numpy().copy()})
        parts = {
            "params": _copies(self.params),
            "average": _copies(self.average),
            "optimiser": self._step.state_arrays(),
            "rng": rng,
        }
        return {f"{part}/{n}": a for part, arrays in parts.items() for n, a in arrays.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state_arrays` gave."""
        part = lambda name: {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{name}/")}
        with torch.no_grad():
            for own, saved in ((self.params, part("params")), (self.average, part("average"))):
                for name, value in own.items():
                    value.copy_(torch.as_tensor(saved[name]))
        self._step.restore(part("optimiser"))
        rng = {n: torch.tensor(a) for n, a in part("rng").items()}
        self._rng = rng["cpu"], rng.get("gpu")

    def finite(self) -> bool:
        """Whether all parameters are, and the state of an optimiser by name."""
        return all_finite([*self.params.values(), *self.average.values()]) and self._step.finite()

    def skip(self) -> None:
        """Pass over a step: the next one has draws of its own."""
        with self._drawing():
            torch.rand(1, device=self.runtime.device)

    def diagnose(self, plan: Any, data: dict[str, Array]) -> tuple[Trace, dict[str, np.ndarray]]:
        """The terms and gradients of the plan's first step, which is not taken.

        A compiled step has other draws, so that this one may find nothing.
        """
        index, weight, knobs = self._put(plan)
        state, row = self.state_arrays(), {n: v[0] for n, v in knobs.items()}
        found: list[Trace] = []
        with self._drawing():
            loss, _ = self._loss_of(self.params, data, index[0], weight[0], row, found.append)
            trained = {n: p for n, p in self.params.items() if p.requires_grad}
            grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        self.restore(state)
        terms: Trace = self.runtime.fetch(found[0])
        return terms, _copies({n: g for n, g in zip(trained, grads, strict=True) if g is not None})

    def _put(self, plan: Any) -> tuple[Array, Array, dict[str, Array]]:
        device = self.runtime.device
        index = torch.as_tensor(plan.index, dtype=torch.int64, device=device)
        weight = torch.as_tensor(plan.weight, device=device)
        return index, weight, {n: torch.as_tensor(v, device=device) for n, v in plan.knobs.items()}

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Training's own generators, modes and settings; the process's come back afterwards."""
        device = self.runtime.device
        with seeded(device, 0), unvalidated(), flushed(), self.tracer.training(self.params):
            _set_rng(device, self._rng)
            yield
            self._rng = _get_rng(device)

    def _loss_of(
        self,
        params: dict[str, Array],
        data: dict[str, Array],
        index: Array,
        weight: Array,
        knobs: dict[str, Array],
        show: Callable[[Trace], Any] | None = None,
    ) -> tuple[Array, Array]:
        batch = select(self.tracer, data, index)
        if self.binarise:
            x = batch["x"]
            batch = {**batch, "x": (torch.rand_like(x) < x).to(x.dtype)}
        k, kl = self.objective.particles, self.objective.wants_kl
        params = {**params, **{n: knobs[n] for n in self.tracer.schedules if n in knobs}}
        terms = self.tracer.trace(params, batch, index, k, None, kl, pathwise=True)
        if show:
            show(terms)
        metrics = self.objective(terms, xp, weight, knobs, self.data_size)
        stacked = torch.stack([metrics[n].detach().to(torch.float32) for n in self.objective.metrics])
        return -metrics["objective"], stacked


def _copies(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {n: a.detach().cpu().numpy().copy() for n, a in arrays.items()}


def _get_rng(device: torch.device) -> tuple[Array, Array | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_rng(device: torch.device, state: tuple[Array, Array | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
