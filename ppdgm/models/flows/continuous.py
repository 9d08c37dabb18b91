"""Flows in continuous time: the solution of a differential equation."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator, model_validator

from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.integrals import Arrays, Rates
from ppdgm.language.shapes import broadcast_shapes
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.base import Flow
from ppdgm.models.flows.conditioner import declare_conditioner
from ppdgm.nets import MLP
from ppdgm.program import Context
from ppdgm.specs import NonNegativeInt, PositiveFloat, PositiveInt, Shape

Smooth = Literal["tanh", "softplus", "silu", "sigmoid"]
_KINKED = ("relu", "leaky_relu", "elu")
#: field -> the field, and the value of it, without which it would change nothing
_SETTING_OF = {"steps": ("solver", "rk4"), "tolerance": ("solver", "dopri5"), "noise": ("trace", "hutchinson")}


class ContinuousFlow(Flow):
    """Continuous-time flow (neural ODE, FFJORD): dz/dt = v(z, t; c) from t = 0 to 1; log|det ∂f/∂z| = ∫ tr ∂v/∂z dt.

    Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2019, arXiv:1810.01367. v is a multilayer perceptron of z, t
    and the context c; it starts near 0. Both directions are one solution. In training, the trace is Hutchinson's
    estimate εᵀ (∂v/∂z) ε, with one ε for each solution: it is unbiased, so it is for `SVI`, and not for engines that
    weigh draws, such as `IWAE`. Validation, evaluations and reports have the exact trace, by D products.

    Args:
        hidden: widths of the net v; () for a linear v.
        activation: of this net; it has to be smooth.
        solver: "rk4", the classical method of Runge and Kutta, in `steps` equal steps; or "dopri5", steps that keep the
            error below a tolerance, which all rows that are solved together share: pip install 'ppdgm[ode]'.
        steps: of "rk4"; its error is of the order steps⁻⁴.
        tolerance: of "dopri5", relative and absolute; a solution that needs more than 4,096 steps is NaN.
        gradient: "solver": through the steps; "adjoint": the solution of the adjoint equation, backwards in time, with
            memory that does not grow with the number of steps. They differ by the error of the solver.
        trace: "hutchinson", or "exact" in training too.
        noise: ε: "rademacher" (±1), or "normal", whose estimate has a larger variance.
        context_size: in a posterior or with a condition, how many numbers v sees for each row.
    """

    hidden: Shape = (64, 64)
    activation: Smooth = "tanh"
    solver: Literal["rk4", "dopri5"] = "rk4"
    steps: PositiveInt = 8
    tolerance: PositiveFloat = 1e-5
    gradient: Literal["solver", "adjoint"] = "solver"
    trace: Literal["hutchinson", "exact"] = "hutchinson"
    noise: Literal["rademacher", "normal"] = "rademacher"
    context_size: NonNegativeInt = 64

    @field_validator("activation", mode="before")
    @classmethod
    def _is_smooth(cls, value: object) -> object:
        if value in _KINKED:
            raise ValueError(
                f"{value} is not smooth, and the trace of the Jacobian is not continuous then, so that solvers fail or "
                "are far less accurate. Use tanh, softplus, silu or sigmoid."
            )
        return value

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        for name, (of, needed) in _SETTING_OF.items():
            if getattr(self, of) != needed and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is a setting of {of}={needed!r}, but {of} is {getattr(self, of)!r}.")
        return self

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        seen = self.context_size if conditional else 0
        net = MLP(hidden=self.hidden, activation=self.activation)
        declare_conditioner(scope, "field", net, (width + 1 + seen,), (width,))
        return seen

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        return self._solve(P, x, context, 0.0, 1.0)

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self._solve(P, y, context, 1.0, 0.0)

    def settle(self, P: NumpyVocabulary, y: Array, context: Array | None) -> Array:
        z, args = self._start(P, y, context)
        return self._odeint(P, lambda t, state, args: (self._velocity(P, t, state[0], args)[0],), (z,), args, 1.0, 0.0)[
            0
        ]

    def _solve(self, P: Vocabulary, x: Array, context: Array | None, start: float, end: float) -> tuple[Array, Array]:
        z, args = self._start(P, x, context)
        if self.trace == "hutchinson" and P.estimated("the trace of ContinuousFlow (give it trace='exact')"):
            args = (self._probe(P, tuple(z.shape)), *args)
            rates = self._rates_estimated(P)
        else:
            rates = self._rates_exact(P)
        y, log_det = self._odeint(P, rates, (z, P.xp.zeros_like(z[..., 0])), args, start, end)
        return y, log_det

    def _odeint(self, P: Vocabulary, rates: Rates, state: Arrays, args: Arrays, start: float, end: float) -> Arrays:
        equal = self.solver == "rk4"
        how = self.steps if equal else None, None if equal else self.tolerance
        return P.odeint(rates, state, args, start, end, *how, adjoint=self.gradient == "adjoint")

    def _start(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Arrays]:
        """x with the leading dimensions of the context too, and the arrays that v is made of.

        These are the first layer's weights of z and of t, its bias with what the context adds, and the other layers.
        """
        own, width = P.scope("field"), x.shape[-1]
        weight, first = own.param("layers.0.weight"), own.param("layers.0.bias")
        if context is not None:
            first = P.linear(context, weight[width + 1 :], first)
            lead = broadcast_shapes(tuple(x.shape[:-1]), tuple(context.shape[:-1]))
            x = P.xp.broadcast_to(x, (*lead, width))
        rest = [own.param(f"layers.{i + 1}.{n}") for i in range(len(self.hidden)) for n in ("weight", "bias")]
        return x, (weight[:width], weight[width], first, *rest)

    def _probe(self, P: Vocabulary, shape: tuple[int, ...]) -> Array:
        """ε: E[ε εᵀ] = I. Hutchinson 1990."""
        if self.noise == "normal":
            return P.random.normal(shape)
        uniform = P.random.uniform(shape)
        return 2.0 * P.xp.astype(uniform < 0.5, uniform.dtype) - 1.0

    def _rates_estimated(self, P: Vocabulary) -> Rates:
        def rates(t: Array, state: Arrays, args: Arrays) -> Arrays:
            probe, args = args[0], args[1:]
            velocity, slopes = self._velocity(P, t, state[0], args)
            tangent = _product(P, probe, args[0])
            for slope, weight in zip(slopes, args[3::2], strict=True):
                tangent = _product(P, slope * tangent, weight)
            return velocity, P.xp.sum(tangent * probe, axis=-1)

        return rates

    def _rates_exact(self, P: Vocabulary) -> Rates:
        def rates(t: Array, state: Arrays, args: Arrays) -> Arrays:
            velocity, slopes = self._velocity(P, t, state[0], args)
            tangents, weights = args[0], args[3::2]  # ∂h/∂z [D, H], then [..., D, H]
            if not weights:
                return velocity, P.xp.sum(P.xp.linalg.diagonal(tangents)) + 0.0 * velocity[..., 0]
            for slope, weight in zip(slopes[:-1], weights[:-1], strict=True):
                tangents = _product(P, slope[..., None, :] * tangents, weight)
            ends = P.xp.sum(tangents * P.xp.matrix_transpose(weights[-1]), axis=-2)
            return velocity, P.xp.sum(slopes[-1] * ends, axis=-1)

        return rates

    def _velocity(self, P: Vocabulary, t: Array, z: Array, args: Arrays) -> tuple[Array, list[Array]]:
        """v(z, t; c) [..., D], and the derivative of each activation, [..., H]."""
        h = _product(P, z, args[0]) + (t * args[1] + args[2])
        slopes = []
        for weight, bias in zip(args[3::2], args[4::2], strict=True):
            out, slope = _activated(P, self.activation, h)
            slopes.append(slope)
            h = P.linear(out, weight, bias)
        return h, slopes


def _product(P: Vocabulary, x: Array, weight: Array) -> Array:
    return P.linear(x, weight, P.xp.zeros_like(weight[0]))


def _activated(P: Vocabulary, name: Smooth, h: Array) -> tuple[Array, Array]:
    """a(h) and a′(h)."""
    out = P.activation(name, h)
    if name == "tanh":
        return out, 1.0 - out * out
    if name == "sigmoid":
        return out, out * (1.0 - out)
    gate = P.activation("sigmoid", h)
    return out, gate if name == "softplus" else gate * (1.0 + h - out)
