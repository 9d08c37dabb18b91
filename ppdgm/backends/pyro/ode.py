"""`P.odeint` on torch: adaptive steps by torchdiffeq, and gradients of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ppdgm.language.integrals import MOST_STEPS, Arrays, Rates, no_solver


def adaptive(
    f: Rates, state: Arrays, args: Arrays, start: float, end: float, tolerance: float, adjoint: bool
) -> Arrays:
    """The state at the end, by Dormand and Prince's method; NaN if it can't be found."""
    try:
        import torchdiffeq
    except ImportError:
        raise no_solver("torchdiffeq") from None
    times = torch.tensor([start, end], dtype=state[0].dtype, device=state[0].device)
    how: dict[str, Any] = {"rtol": tolerance, "atol": tolerance, "method": "dopri5"}
    how["options"] = {"max_num_steps": MOST_STEPS}
    rates = lambda t, y: f(t, y, args)
    try:
        if adjoint:
            moved = tuple(a for a in args if a.requires_grad)
            found = torchdiffeq.odeint_adjoint(rates, state, times, adjoint_params=moved, **how)
        else:
            found = torchdiffeq.odeint(rates, state, times, **how)
    except AssertionError:  # its word for steps that are too short, or too many
        return tuple(torch.full_like(a, torch.nan) for a in state)
    return tuple(a[-1] for a in found)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(forward: Callable[..., Arrays], backward: Callable[..., Arrays], *arrays: torch.Tensor) -> Arrays:
        return forward(*arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Arrays) -> None:
        ctx.backward_of, ctx.count = inputs[1], len(inputs) - 2
        ctx.save_for_backward(*inputs[2:], *output)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[Any, ...]:
        kept = ctx.saved_tensors
        return (None, None, *ctx.backward_of(kept[: ctx.count], kept[ctx.count :], slopes))


def with_gradient(forward: Callable[..., Arrays], backward: Callable[..., Arrays], arrays: Arrays) -> Arrays:
    """forward(*arrays), with the gradient backward(arrays, its result, the result's gradient)."""
    found: Arrays = _WithGradient.apply(forward, backward, *arrays)
    return found
