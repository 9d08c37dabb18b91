"""Training with torch: the direct reading, compiled if that is faster, and a fused optimiser."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from ppdgm.backends.pyro.augmenting import change
from ppdgm.backends.pyro.divided import DividedStep, check_same_step
from ppdgm.backends.pyro.graphed import GraphedStep
from ppdgm.backends.pyro.noise import get_rng, set_rng
from ppdgm.backends.pyro.pair import PairTracer
from ppdgm.backends.pyro.precision import products
from ppdgm.backends.pyro.row_noise import row_noise
from ppdgm.backends.pyro.runtime import Runtime, seeded
from ppdgm.backends.pyro.step import CompiledStep, EagerStep, Losses, all_finite, gradients
from ppdgm.backends.pyro.tracer import TorchStep, TorchTracer, select
from ppdgm.backends.pyro.vocabulary import flushed, unvalidated
from ppdgm.errors import CheckpointError, TrainingError, UnsupportedByBackend
from ppdgm.language.phases import PlanLike, StateLike
from ppdgm.language.runtime import Native
from ppdgm.language.step import Objective, at_whole
from ppdgm.language.trainer import GradientTrainer, Symptoms, part_of
from ppdgm.language.turns import in_turn
from ppdgm.language.vocabulary import Array

Row = tuple[dict[str, Array], dict[str, Array]]  #: hyperparameters, and scheduled parameters, of a step


def _copies(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {n: a.detach().cpu().numpy().copy() for n, a in arrays.items()}


class Trainer(GradientTrainer):
    """The training state, and the loop over a stretch of steps."""

    runtime: Runtime
    tracer: TorchTracer | PairTracer

    @in_turn
    def start(self, params: Native, state: Mapping[str, StateLike]) -> None:
        runtime, settings = self.runtime, self.settings
        self.params = self.tracer.adopt(params)
        trained = {n: p for n, p in self.params.items() if p.requires_grad}
        self.average = {} if self.decay is None else {n: p.detach().clone() for n, p in trained.items()}
        put = runtime.put({n: s.value for n, s in state.items()})
        self.params |= {n: v.requires_grad_(state[n].label is not None) for n, v in put.items()}
        self.compiled = settings.compile and not runtime.why_not_compiled(self.engine, settings.optimiser)
        if settings.chunk is not None or settings.rematerialise:
            self.compiled = False
        if self.tracer.looped and not settings.insist:  # it is unrolled: compiling takes minutes for a few times
            self.compiled = False
        if runtime.share.processes > 1:  # the same bits everywhere, if one computes its first values otherwise
            self._agree()
        self._steps, self._now = self._make_steps(), 0  # and the phase of the current step
        self._whole: dict[int, bool] = {}  # by phase: whether its objective has means over the whole minibatch
        with seeded(runtime.device, settings.seed):
            self._rng = get_rng(runtime.device)

    @in_turn
    def run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        """The same as for the base class.

        Raises:
            TrainingError: torch can't compile the program, with `insist`; or a later phase, after steps were taken.
        """
        try:
            with products(self.runtime.device, self.settings.tf32):
                return self._run(plan, data)
        except Exception as error:
            if not self.compiled or self._steps[self._now].works:
                raise
            if self.settings.insist or any(step.works for step in self._steps):
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                said = next((line for line in lines if not line.endswith("raised:")), "")
                raise TrainingError(
                    f"torch can't compile this program ({type(error).__name__}: {said}). "
                    "Train with compile=False, or write it with fewer Python features."
                ) from error
        self.compiled = False
        self._steps = self._make_steps()
        return self.run(plan, data)

    def _make_steps(self) -> list[EagerStep | CompiledStep]:
        return [self._make_step(j) for j in range(len(self.phases))]

    def _make_step(self, j: int) -> EagerStep | CompiledStep:
        ranks, phase = self.runtime.share, self.phases[j]
        how = self.params, self.groups[j], phase.optimiser or self.settings.optimiser, phase.projection
        if ranks.processes > 1:
            return DividedStep(ranks, partial(self._pieces_of, j), *how)
        if self.compiled and self.settings.graphs:
            return GraphedStep(self.runtime.device, partial(self._losses_of, j), *how)
        if self.compiled:
            return CompiledStep(partial(self._losses_of, j), *how)
        return EagerStep(partial(self._pieces_of, j), *how)

    def _run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        device = self.runtime.device
        index, weight, rows = self._put(plan)
        history = torch.empty(plan.count, len(self.settings.metrics), device=device)
        rates = _rates(self._steps, plan, device)
        moving, moved = list(self.average.values()), [self.params[n].detach() for n in self.average]
        with self._drawing():
            for i in range(plan.count):
                self._now = j = int(plan.phase[i])
                history[i] = self._steps[j](data, index[i], weight[i], rows(j, i), rates[i])
                if moving:
                    torch._foreach_lerp_(moving, moved, 1.0 - (self.decay or 0.0))
        for name, values in plan.scheduled.items():  # their last values are kept among the parameters
            self.params[name].detach().copy_(torch.as_tensor(values[plan.count - 1]))
        seen = history.cpu().numpy()
        return {n: seen[:, j] for j, n in enumerate(self.settings.metrics)}

    copies = staticmethod(_copies)

    def further(self) -> dict[str, dict[str, np.ndarray]]:
        """Also the state of the generators."""
        cpu, gpu = self._rng
        rng = {"cpu": cpu.numpy().copy()} | ({} if gpu is None else {"gpu": gpu.numpy().copy()})
        states = {_of_phase(j) + n: a for j, s in enumerate(self._steps) for n, a in s.state_arrays().items()}
        return {"optimiser": states, "rng": rng}

    def state_like(self, saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same as for the base class.

        Raises:
            CheckpointError: the saved state is not one of torch's generator.
        """
        rng = torch.as_tensor(saved.get("rng/cpu", np.empty(0)))
        try:
            torch.Generator().set_state(rng)
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"array 'rng/cpu': {str(error).splitlines()[0]}.") from None
        found = {n: a for n, a in self.state_arrays().items() if not n.startswith(("optimiser/", "rng/gpu"))}
        for j, step in enumerate(self._steps):
            mine = step.state_like(self._of_step(j, saved))
            found |= {f"optimiser/{_of_phase(j)}{n}": a for n, a in mine.items()}
        if "rng/gpu" in saved:  # of a GPU, which may be another GPU than this one
            found["rng/gpu"] = saved["rng/gpu"]
        # A parameter that has had no gradient so far has no state.
        owner = lambda n: n.rpartition("/")[0]
        there = {owner(n) for n in saved}
        return {n: a for n, a in found.items() if "state/" not in n or owner(n) in there}

    def _of_step(self, j: int, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The saved state of the optimiser of phase j, by its own names."""
        saved = part_of(arrays, "optimiser")
        others = tuple(map(_of_phase, range(1, len(self._steps))))
        mine = _of_phase(j)
        return {
            n.removeprefix(mine): a for n, a in saved.items() if (n.startswith(mine) if j else not n.startswith(others))
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for part, own in (("params", self.params), ("average", self.average)):
                for name, value in own.items():
                    value.copy_(torch.as_tensor(arrays[f"{part}/{name}"]))
        for j, step in enumerate(self._steps):
            step.restore(self._of_step(j, arrays))
        rng = {n: torch.tensor(a) for n, a in part_of(arrays, "rng").items()}
        self._rng = rng["cpu"], rng.get("gpu")

    def finite(self) -> bool:
        numbers = [*self.params.values(), *self.average.values()]
        return all_finite(numbers) and all(step.finite() for step in self._steps)

    @in_turn
    def skip(self) -> None:
        with self._drawing():
            torch.rand(1, device=self.runtime.device)

    @in_turn
    def check_divided(self, plan: PlanLike, data: Native) -> None:
        """The same as for the base class.

        Raises:
            UnsupportedByBackend: with the reason.
        """
        if self.settings.pieces > 1:
            raise UnsupportedByBackend(
                "accumulate: each of several processes takes its rows at once on the pyro backend. Leave accumulate "
                "out, and give more devices or a smaller batch_size; or train on the numpyro backend."
            )
        index, _, rows = self._put(plan)
        with self._drawing():
            for j, step in enumerate(self._steps):
                assert isinstance(step, DividedStep)
                whole = partial(gradients, partial(self._pieces_of, j), self.params, self.groups[j], data)
                check_same_step(step, whole, data, index[0], rows(j, 0))

    @in_turn
    def diagnose(self, plan: PlanLike, data: Native) -> Symptoms:
        """The same as for the base class.

        A compiled step has other draws, so this one may not show the problem.
        """
        index, weight, rows = self._put(plan)
        state, j = self.state_arrays(), int(plan.phase[0])
        row = rows(j, 0)
        with self._drawing():
            rng = torch.get_rng_state()
            step = self._step_of(self.params, data, index[0], weight[0], row)
            self.phases[j].engine.objective(step)
            found = step.first, step.returned
            torch.set_rng_state(rng)  # the same draws again
            grads = gradients(partial(self._pieces_of, j), self.params, self.groups[j], data, index[0], weight[0], row)
        self.restore(state)
        terms, returned = self.runtime.fetch(found)
        return Symptoms(terms, returned, _copies(grads[0]), _copies(step.updates))

    def _put(self, plan: PlanLike) -> tuple[Array, Array, Callable[[int, int], Row]]:
        device = self.runtime.device
        index = torch.as_tensor(plan.index, dtype=torch.int64, device=device)
        weight = torch.as_tensor(plan.weight, device=device)
        put = lambda arrays: {n: torch.as_tensor(v, device=device) for n, v in arrays.items()}
        hyperparameters, scheduled = [put(h) for h in plan.hyperparameters], put(plan.scheduled)
        at = lambda arrays, i: {n: v[i] for n, v in arrays.items()}
        return index, weight, lambda j, i: (at(hyperparameters[j], i), at(scheduled, i))

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Training's own generators, modes and settings; afterwards the process gets its own back."""
        device = self.runtime.device
        with seeded(device, 0), unvalidated(), flushed(), self.tracer.training(self.params):
            set_rng(device, self._rng)
            yield
            self._rng = get_rng(device)
        self.runtime.share.check_same(self._rng)

    def _step_of(self, params: dict[str, Array], data: Native, index: Array, weight: Array, row: Row) -> TorchStep:
        batch = select(self.tracer, data, index)
        if self.settings.augment is not None:
            with torch.no_grad():
                batch = {**batch, "x": change(self.settings.augment, batch["x"])}
        if self.settings.binarise:
            x, rows = batch["x"], row_noise()
            with nullcontext() if rows is None else rows.of_sites((len(x),)):
                batch = {**batch, "x": (torch.rand_like(x) < x).to(x.dtype)}
        now, scheduled = row
        how = self.settings.data_size, self.settings.mixed, self.settings.chunk, self.settings.rematerialise
        return TorchStep(self.tracer, {**params, **scheduled}, None, batch, index, weight, now, *how)

    def _pieces_of(
        self,
        j: int,
        params: dict[str, Array],
        data: Native,
        index: Array,
        weight: Array,
        row: Row,
        share: Array | None = None,
    ) -> Iterator[Losses]:
        """What each player of a phase minimises, its metrics, and the engine's own new numbers; a sum over pieces.

        If the rows are a `share` of the minibatch, these are their shares of what all processes have together.
        """
        if share is not None:
            yield self._shared_losses(j, share, self._step_of(params, data, index, weight, row))
            return
        if self.settings.pieces == 1:
            yield self._as_losses(j, self.objective(j, params, self._step_of(params, data, index, weight, row)))
            return
        shares, means = _shares(self._cut(weight)), dict[str, Array]()
        if self._whole.get(j, True):  # the means of the whole minibatch, if there are any; then the same draws again
            begin = get_rng(self.runtime.device)
            with torch.no_grad():
                every = [self.objective(j, params, step) for step in self._steps_of(params, data, index, weight, row)]
            set_rng(self.runtime.device, begin)
            means = _means(shares, every)
            self._whole[j] = bool(means)
            del every
        steps = self._steps_of(params, data, index, weight, row)
        for s in shares:
            yield self._piece(j, params, steps.pop(0), s, means)
            gc.collect(1)  # a run and its vocabulary refer to each other, so Python would free the piece's graph later

    def _piece(self, j: int, params: dict[str, Array], step: TorchStep, share: Array, means: Native) -> Losses:
        found = at_whole(self.objective(j, params, step), means, torch.Tensor.detach)
        losses, metrics, own = self._as_losses(j, found)
        part = lambda value: _added([share], [value])
        return [part(v) for v in losses], part(metrics), {n: part(v) for n, v in own.items()}

    def _losses_of(
        self, j: int, params: dict[str, Array], data: Native, index: Array, weight: Array, row: Row
    ) -> Losses:
        """The same for a compiled step, in one graph."""
        if self.settings.pieces == 1:
            return self._as_losses(j, self.objective(j, params, self._step_of(params, data, index, weight, row)))
        shares = _shares(self._cut(weight))
        every = [self.objective(j, params, step) for step in self._steps_of(params, data, index, weight, row)]
        means = _means(shares, every)
        found = [self._as_losses(j, at_whole(f, means, torch.Tensor.detach)) for f in every]
        losses = [_added(shares, values) for values in zip(*(f[0] for f in found), strict=True)]
        own = {n: _added(shares, [f[2][n] for f in found]) for n in found[0][2]}
        return losses, _added(shares, [f[1] for f in found]), own

    def _cut(self, rows: Array) -> Array:
        """A minibatch's rows in pieces, one after the other."""
        return rows.reshape(self.settings.pieces, -1)

    def _steps_of(
        self, params: dict[str, Array], data: Native, index: Array, weight: Array, row: Row
    ) -> list[TorchStep]:
        """The step of each piece."""
        weights = self._cut(weight)
        whole = torch.where(_shares(weights)[:, None] > 0, weights, 1.0)  # a piece with only padding counts for nothing
        return [self._step_of(params, data, i, w, row) for i, w in zip(self._cut(index), whole, strict=True)]

    def _shared_losses(self, j: int, share: Array, step: TorchStep) -> Losses:
        ranks = self.runtime.share
        scaled = lambda v: torch.where(share > 0, share.to(v.dtype) * v, 0.0)
        step.minibatch.joined = lambda mean: ranks.added(scaled(mean))
        found = self.objective(j, step.params, step)
        if "means" in found:
            whole = ranks.total({n: scaled(m.detach()) for n, m in found["means"].items()})
            found = at_whole(found, whole, torch.Tensor.detach)
        losses, metrics, own = self._as_losses(j, found)
        return [scaled(v) for v in losses], scaled(metrics), {n: scaled(v) for n, v in own.items()}

    def _agree(self) -> None:
        """Every process goes on with the first one's numbers."""
        ranks = self.runtime.share
        with torch.no_grad():
            for own in (self.params, self.average):
                mine = {n: v.detach() if ranks.process == 0 else torch.zeros_like(v) for n, v in own.items()}
                for n, v in ranks.total(mine).items():
                    own[n].copy_(v)

    def _as_losses(self, j: int, found: Objective) -> Losses:
        metrics = torch.stack([number.detach().to(torch.float32) for number in self.metrics(found)])
        return self.losses(j, found), metrics, {n: v.detach() for n, v in found.get("state", {}).items()}


def _shares(weights: Array) -> Array:
    """The part of a minibatch's data in each of its pieces."""
    return weights.sum(1) / weights.sum()


def _added(shares: Iterable[Array], values: Sequence[Array]) -> Array:
    """The sum over pieces, by their shares."""
    return sum(torch.where(s > 0, s * v, 0.0) for s, v in zip(shares, values, strict=True))


def _means(shares: Iterable[Array], pieces: Sequence[Objective]) -> Native:
    """The means of the whole minibatch, from those of all its pieces."""
    return {n: _added(shares, [piece["means"][n] for piece in pieces]) for n in pieces[0].get("means", {})}


def _of_phase(j: int) -> str:
    return f"phase{j}/" if j else ""


def _rates(steps: list[EagerStep | CompiledStep], plan: PlanLike, device: torch.device) -> list[Any]:
    """What each step's optimiser needs, by its own count of the steps that it has taken."""
    found: list[Any] = [None] * plan.count
    for j, step in enumerate(steps):
        mine = np.flatnonzero(plan.phase[: plan.count] == j)
        for i, rate in zip(mine, step.rates(plan.rate[mine], device), strict=True):
            found[i] = rate
    return found
