"""Solutions of differential equations inside a program, `P.odeint`, with gradients of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from ppdgm.errors import UnsupportedByBackend
from ppdgm.language.native import Array

Arrays = tuple[Array, ...]
Rates = Callable[[Array, Arrays, Arrays], Arrays]  #: (t, state, args) -> dstate/dt
MOST_STEPS = 4096  #: of an adaptive solver; a solution that needs more is NaN, which training reports


class Words(Protocol):
    """What an integral needs of a vocabulary."""

    def full(self, shape: tuple[int, ...], value: float) -> Array: ...
    def repeat(self, count: int, body: Callable[[Arrays], Arrays], x: Arrays) -> Arrays: ...
    def _vjp(self, f: Callable[..., Arrays], x: Any) -> tuple[Arrays, Callable[..., Any]]: ...


class Integrals:
    """The words of a program that are about integrals; a part of the vocabulary."""

    interpreter: Any

    def estimated(self, what: str) -> bool:
        """Whether an unbiased estimate, such as of a trace, may be used for a term here: only in a training step.

        Everywhere else terms are exact. Engines that need more than unbiased terms refuse the program.

        Args:
            what: is estimated, in words, for their message.
        """
        found: bool = self.interpreter.estimates(what)
        return found

    def odeint(
        self,
        f: Rates,
        state: Arrays,
        args: Arrays,
        start: float,
        end: float,
        steps: int | None = None,
        tolerance: float | None = None,
        adjoint: bool = False,
    ) -> Arrays:
        """The state at time `end` of dstate/dt = f(t, state, args), by Runge and Kutta.

        Args:
            f: arithmetic, on tuples of arrays. What has a gradient comes from `state` and `args`.
            state: at time `start`, in the shapes and types that f returns.
            args: other arrays.
            start, end: times, in either order.
            steps: the number of steps of the classical method, of order 4.
            tolerance: in its place, the relative and absolute error of an adaptive method (Dormand & Prince, order 5).
            adjoint: whether the gradient is the solution of the adjoint equation, backwards in time, with memory that
                does not grow with the number of steps; else it goes through the steps.

        Raises:
            UnsupportedByBackend: the backend's library for adaptive steps is not installed.
        """
        P = cast(Words, self)
        if tolerance is not None:
            return self._adaptive(f, state, args, start, end, tolerance, adjoint)
        assert steps is not None
        count = len(state)
        if not adjoint:
            return runge_kutta(P, lambda t, y: f(t, y, args), state, start, end, steps)

        def forward(*arrays: Array) -> Arrays:
            return runge_kutta(P, lambda t, y: f(t, y, arrays[count:]), arrays[:count], start, end, steps)

        def backward(arrays: Arrays, last: Arrays, slopes: Arrays) -> Arrays:
            own = arrays[count:]

            def rates(t: Array, joined: Arrays) -> Arrays:
                value, pull = P._vjp(lambda both: f(t, *both), (joined[:count], own))
                by_state, by_args = pull(joined[count : 2 * count])
                return (*value, *(-v for v in (*by_state, *by_args)))

            first = (*last, *slopes, *(0.0 * a for a in own))
            return runge_kutta(P, rates, first, end, start, steps)[count:]

        return self._with_gradient(forward, backward, (*state, *args))

    def _adaptive(
        self, f: Rates, state: Arrays, args: Arrays, start: float, end: float, tolerance: float, adjoint: bool
    ) -> Arrays:
        raise NotImplementedError

    def _with_gradient(self, forward: Callable[..., Arrays], backward: Callable[..., Arrays], arrays: Arrays) -> Arrays:
        """forward(*arrays), whose gradient is backward(arrays, its result, the result's gradient)."""
        raise NotImplementedError


def runge_kutta(
    P: Words, rates: Callable[[Array, Arrays], Arrays], state: Arrays, start: float, end: float, steps: int
) -> Arrays:
    """The state at time `end`, by the classical method of order 4. Runge 1895; Kutta 1901.

    Args:
        P: the vocabulary.
        rates: (t, state) -> dstate/dt.
        state: at time `start`.
        start, end: times.
        steps: their number, of equal length.
    """
    h = (end - start) / steps

    def step(carry: Arrays) -> Arrays:
        t, y = carry[0], carry[1:]
        moved = lambda k, by: tuple(a + by * b for a, b in zip(y, k, strict=True))
        k1 = rates(t, y)
        k2 = rates(t + 0.5 * h, moved(k1, 0.5 * h))
        k3 = rates(t + 0.5 * h, moved(k2, 0.5 * h))
        k4 = rates(t + h, moved(k3, h))
        slopes = tuple(a + 2.0 * b + 2.0 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
        return (t + h, *moved(slopes, h / 6.0))

    return P.repeat(steps, step, (P.full((), start), *state))[1:]


def no_solver(package: str) -> UnsupportedByBackend:
    """The error for adaptive steps without the library that takes them."""
    return UnsupportedByBackend(
        f"Adaptive steps (solver='dopri5') need the package {package!r}, which is not installed: "
        "pip install 'ppdgm[ode]'. Or use solver='rk4', which needs no other package."
    )
