"""One training step with torch: eagerly, or as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import TypeGuard

import array_api_compat.torch as xp
import numpy as np
import torch
from torch.distributions import Distribution

from ppdgm.errors import SpecError
from ppdgm.language.native import OwnOptimiser
from ppdgm.language.phases import OptimiserLike
from ppdgm.language.vocabulary import Array, Namespace

Params = dict[str, Array]
Losses = tuple[list[Array], Array, Params]  # of each player; metrics; the engine's own new numbers
Loss = Callable[..., Losses]  # (params, data, index, weight, row) -> losses
Pieces = Callable[..., Iterable[Losses]]  # the same, in pieces of which it is the sum
Row = tuple[Params, Params]  # hyperparameters, and scheduled parameters, of a step
Projection = Callable[[Namespace, Array], Array]
Groups = list[list[str]]  # the parameters that each player trains


def is_spec(optimiser: OptimiserLike | torch.optim.Optimizer) -> TypeGuard[OptimiserLike]:
    """Whether it is an `Optimiser` by name, with the run's learning rate."""
    return hasattr(optimiser, "clip_norm")


def gradients(pieces: Pieces, params: Params, groups: Groups, *where: object) -> tuple[Params, Array, Params]:
    """Each player's gradient in its own parameters (without those that have no effect on it), and the other results.

    The graph of a piece of the loss is freed before the next piece is computed.
    """
    found: Params = {}
    sums: list[tuple[Array, Params]] = []
    for values, metrics, own in pieces(params, *where):
        for i, names in enumerate(groups):
            if not names or not values[i].requires_grad:
                continue
            more = i + 1 < len(groups)
            grads = torch.autograd.grad(values[i], [params[n] for n in names], retain_graph=more, allow_unused=True)
            for n, g in zip(names, grads, strict=True):
                if g is not None:
                    found[n] = found[n] + g if n in found else g
        del values  # and with them their graph
        sums = [(sums[0][0] + metrics, {n: sums[0][1][n] + v for n, v in own.items()}) if sums else (metrics, own)]
    return {n: _laid_out_as(params[n], g) for n, g in found.items()}, *sums[0]


def _laid_out_as(param: Array, gradient: Array) -> Array:
    """The gradient in its parameter's memory layout: torch's fused optimisers misread any other, without a warning."""
    return gradient if gradient.stride() == param.stride() else torch.empty_like(param).copy_(gradient)


def clip(gradients: list[Array], most: float) -> None:
    """g ← g min(1, c / ‖g‖) in place, ‖g‖ of all together. As in optax; torch's own divides by ‖g‖ + 1e-6."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, torch.clamp(most / norm, max=1.0))


class EagerStep:
    """Forward, backward, and one of torch's own optimisers: a fused one if there is one."""

    def __init__(
        self,
        loss: Pieces,
        params: Params,
        groups: Groups,
        optimiser: OptimiserLike | OwnOptimiser,
        projection: Projection | None = None,
    ):
        self.loss, self.params, self.groups, self.by_name = loss, params, groups, is_spec(optimiser)
        self.projection = projection
        self.works = True
        self.trained = [params[n] for names in groups for n in names]
        self.clip_norm = optimiser.clip_norm if self.by_name else None
        self.optimiser = torch_optimiser(optimiser, self.trained)

    def rates(self, rate: np.ndarray, device: torch.device) -> list[float]:
        """What the optimiser needs for each of the next steps."""
        return [float(r) for r in rate]

    def __call__(self, data: Params, index: Array, weight: Array, row: Row, rate: float) -> Array:
        grads, metrics, own = self.gradients(data, index, weight, row)
        for names in self.groups:
            for n in names:
                none = torch.zeros_like(self.params[n]) if self.by_name else None  # adamw decays those without gradient
                self.params[n].grad = grads.get(n, none)
        if self.clip_norm:
            clip([p.grad for p in self.trained if p.grad is not None], self.clip_norm)
        if self.by_name:
            for group in self.optimiser.param_groups:
                group["lr"] = rate
        self.optimiser.step()
        if self.projection is not None:
            with torch.no_grad():
                for p in self.trained:
                    p.copy_(self.projection(xp, p))
        for n, value in own.items():
            self.params[n].copy_(value)
        return metrics

    def gradients(self, data: Params, index: Array, weight: Array, row: Row) -> tuple[Params, Array, Params]:
        """Each player's gradient, the metrics, and the engine's own new numbers."""
        return gradients(self.loss, self.params, self.groups, data, index, weight, row)

    def state_arrays(self) -> dict[str, np.ndarray]:
        """The optimiser's state, and the numbers that it may have changed in its groups."""
        return _state_of(self.optimiser)

    def state_like(self, saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The `state_arrays` once all parameters have moved: torch creates an optimiser's state at its first step.

        A fused optimiser writes past the end of a state that is smaller than its parameter.
        """
        try:
            other = deepcopy(self.optimiser)
            for p in (p for group in other.param_groups for p in group["params"]):
                p.grad = torch.zeros_like(p)
            other.step()
        except Exception:
            if self.by_name:
                raise
            return dict(saved)  # the user's own optimiser, which can't be copied: its state is taken unchanged
        return _state_of(other)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from the result of `state_arrays`."""
        saved = self.optimiser.state_dict()
        state: dict[int, dict[str, Array]] = {}
        for name, value in arrays.items():
            part, number, key = name.split("/", 2)
            if part == "state":
                state.setdefault(int(number), {})[key] = torch.tensor(value)
            else:
                group = saved["param_groups"][int(number)]
                group[key] = type(group[key])(value.item())
        self.optimiser.load_state_dict({**saved, "state": state})

    def finite(self) -> bool:
        """Whether the state of an optimiser by name is finite."""
        states = [v for entry in self.optimiser.state.values() for v in entry.values()]
        return not self.by_name or all_finite(states)


def _state_of(optimiser: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    saved = optimiser.state_dict()
    states = {f"state/{i}/{n}": v for i, entry in saved["state"].items() for n, v in entry.items()}
    groups = {f"group/{i}/{n}": v for i, entry in enumerate(saved["param_groups"]) for n, v in entry.items()}
    return {n: _host(v) for n, v in {**states, **groups}.items() if isinstance(v, torch.Tensor | int | float)}


class CompiledStep:
    """Gradient and update in one graph: no autograd engine, no optimiser object, each gradient used while it is hot.

    It takes three quarters of the time of a compiled loss with a fused Adam (784-200-200-50, B = 20).
    """

    def __init__(
        self,
        loss: Loss,
        params: Params,
        groups: Groups,
        optimiser: OptimiserLike | OwnOptimiser,
        projection: Projection | None = None,
    ):
        self.params = {n: p.detach() for n, p in params.items()}  # the same memory: updates are in place
        moving = [n for names in groups for n in names]
        self.first = {n: torch.zeros_like(self.params[n]) for n in moving}
        self.second = {n: torch.zeros_like(self.params[n]) for n in moving}
        self.spec, self.taken = optimiser, 0
        self.works = False  #: whether it has compiled

        def step(
            params: Params, first: Params, second: Params, rate: Array, data: Params, index: Array, weight: Array,
            row: Row,
        ) -> Array:  # fmt: skip
            def made_small(moved: Params) -> Array:
                values, metrics, own = loss({**params, **moved}, data, index, weight, row)
                return (values[0] if len(groups) == 1 else tuple(values)), (metrics, own)

            now = {n: params[n] for n in moving}
            if len(groups) == 1:
                grads, (metrics, own) = torch.func.grad(made_small, has_aux=True)(now)
            else:
                values, pull, (metrics, own) = torch.func.vjp(made_small, now, has_aux=True)
                grads = {}
                for i, names in enumerate(groups):
                    (found,) = pull(tuple(torch.full_like(v, float(i == j)) for j, v in enumerate(values)))
                    grads |= {n: found[n] for n in names}
            if optimiser.clip_norm:
                norm = torch.stack([(g * g).sum() for g in grads.values()]).sum().sqrt()
                scale = torch.clamp(optimiser.clip_norm / norm, max=1.0)
                grads = {n: g * scale for n, g in grads.items()}
            for n, g in grads.items():
                RULES[optimiser.name](optimiser, params[n], g, first[n], second[n], rate)
            if projection is not None:
                for n in moving:
                    params[n].copy_(projection(xp, params[n]))
            for n, value in own.items():
                params[n].copy_(value)
            return metrics

        # torch counts the graphs of a code object in the whole process, and refuses the ninth: each run has its own.
        step.__code__ = step.__code__.replace()
        # torch.compile turns off distributions' validation for the whole process: restore the setting.
        before = Distribution._validate_args
        self._step = torch.compile(step, fullgraph=True, dynamic=False)
        Distribution.set_default_validate_args(before)

    def rates(self, rate: np.ndarray, device: torch.device) -> Array:
        """What the rule needs for each of the next steps, [S, 3]."""
        return torch.as_tensor(corrected(self.spec, rate, self.taken), device=device)

    def __call__(self, data: Params, index: Array, weight: Array, row: Row, rate: Array) -> Array:
        with torch.no_grad():
            metrics = self.take(data, index, weight, row, rate)
        self.works = True
        self.taken += 1
        return metrics

    def take(self, data: Params, index: Array, weight: Array, row: Row, rate: Array) -> Array:
        """Run the graph."""
        metrics: Array = self._step(self.params, self.first, self.second, rate, data, index, weight, row)
        return metrics

    def state_arrays(self) -> dict[str, np.ndarray]:
        """The averages of gradients, and the number of steps taken."""
        named = {f"{part}/{n}": v for part in ("first", "second") for n, v in getattr(self, part).items()}
        return {n: _host(v) for n, v in named.items()} | {"taken": np.array(self.taken)}

    def state_like(self, saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays with the names, shapes and types of those of `state_arrays`."""
        return self.state_arrays()

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from the result of `state_arrays`."""
        self.taken = int(arrays["taken"])
        for part in ("first", "second"):
            for n, value in getattr(self, part).items():
                value.copy_(torch.as_tensor(arrays[f"{part}/{n}"]))

    def finite(self) -> bool:
        """Whether the averages of gradients are finite."""
        return all_finite([*self.first.values(), *self.second.values()])


def all_finite(values: Iterable[Array]) -> bool:
    """Whether all numbers of all floating tensors are finite."""
    return all(bool(torch.isfinite(v).all()) for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())


def _host(value: Array) -> np.ndarray:
    return value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else np.array(value)


def corrected(spec: OptimiserLike, rate: np.ndarray, taken: int) -> np.ndarray:
    """Learning rates with Adam's bias corrections: γ, γ / (1 − β₁ᵗ), 1 / √(1 − β₂ᵗ), float32 [S, 3].

    Computed here, because the graph would compute the power βᵗ again for every element of every parameter.
    """
    t = taken + 1 + np.arange(len(rate))
    columns = rate, rate / (1.0 - spec.beta1**t), 1.0 / np.sqrt(1.0 - spec.beta2**t)
    return np.stack(columns, axis=1).astype(np.float32)


def _adam(spec: OptimiserLike, p: Array, g: Array, m: Array, v: Array, rate: Array) -> None:
    m.lerp_(g, 1.0 - spec.beta1)
    v.mul_(spec.beta2).addcmul_(g, g, value=1.0 - spec.beta2)
    p.sub_(rate[1] * m / (torch.sqrt(v) * rate[2] + spec.eps))


def _adamw(spec: OptimiserLike, p: Array, g: Array, m: Array, v: Array, rate: Array) -> None:
    p.mul_(1.0 - rate[0] * spec.weight_decay)
    _adam(spec, p, g, m, v, rate)


def _adamax(spec: OptimiserLike, p: Array, g: Array, m: Array, v: Array, rate: Array) -> None:
    m.lerp_(g, 1.0 - spec.beta1)
    v.copy_(torch.maximum(spec.beta2 * v, g.abs() + spec.eps))
    p.sub_(rate[1] * m / v)


def _sgd(spec: OptimiserLike, p: Array, g: Array, m: Array, v: Array, rate: Array) -> None:
    if spec.momentum:
        m.mul_(spec.momentum).add_(g)
        g = m
    p.sub_(rate[0] * g)


def _rmsprop(spec: OptimiserLike, p: Array, g: Array, m: Array, v: Array, rate: Array) -> None:
    v.mul_(spec.decay).addcmul_(g, g, value=1.0 - spec.decay)
    p.sub_(rate[0] * g / (torch.sqrt(v) + spec.eps))


RULES: dict[str, Callable[..., None]] = {
    "adam": _adam, "adamw": _adamw, "adamax": _adamax, "sgd": _sgd, "rmsprop": _rmsprop,
}  # fmt: skip


def torch_optimiser(spec: OptimiserLike, params: list[Array]) -> torch.optim.Optimizer:
    """torch.optim for an `Optimiser` spec, or the result of the user's own `optimiser(params)`."""
    if not is_spec(spec):
        made = spec(params) if callable(spec) else None
        if not isinstance(made, torch.optim.Optimizer):
            raise SpecError(
                f"optimiser: got {type(spec).__name__}; the pyro backend expects a name such as 'adam', an Optimiser, "
                "or a function of parameters, such as lambda params: torch.optim.Adam(params)."
            )
        return made
    betas, eps = (spec.beta1, spec.beta2), spec.eps
    if spec.name == "adamw":
        return torch.optim.AdamW(params, betas=betas, eps=eps, weight_decay=spec.weight_decay, fused=True)
    if spec.name == "adamax":
        return torch.optim.Adamax(params, betas=betas, eps=eps)
    if spec.name == "rmsprop":
        return torch.optim.RMSprop(params, alpha=spec.decay, eps=eps)
    if spec.name == "sgd":
        return torch.optim.SGD(params, lr=1.0, momentum=spec.momentum, fused=True)
    return torch.optim.Adam(params, betas=betas, eps=eps, fused=True)
