"""`P.odeint` on JAX: adaptive steps by diffrax, and gradients of one's own."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ppdgm.language.integrals import MOST_STEPS, Arrays, Rates, no_solver


def adaptive(
    f: Rates, state: Arrays, args: Arrays, start: float, end: float, tolerance: float, adjoint: bool
) -> Arrays:
    """The state at the end, by Dormand and Prince's method; NaN if it can't be found."""
    try:
        import diffrax
    except ImportError:
        raise no_solver("diffrax") from None
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(f),
        diffrax.Dopri5(),
        start,
        end,
        None,
        state,
        args,
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        adjoint=diffrax.BacksolveAdjoint() if adjoint else diffrax.RecursiveCheckpointAdjoint(),
        max_steps=MOST_STEPS,
        throw=False,  # its way to raise is a call of Python from the compiled program
    )
    right = found.result == diffrax.RESULTS.successful
    return tuple(jnp.where(right, a[-1], jnp.nan) for a in found.ys)


def with_gradient(forward: Callable[..., Arrays], backward: Callable[..., Arrays], arrays: Arrays) -> Arrays:
    """forward(*arrays), with the gradient backward(arrays, its result, the result's gradient)."""
    function = jax.custom_vjp(forward)

    def first(*arrays: jax.Array) -> tuple[Arrays, tuple[Arrays, Arrays]]:
        found = forward(*arrays)
        return found, (arrays, found)

    function.defvjp(first, lambda kept, slopes: backward(*kept, slopes))
    return function(*arrays)
