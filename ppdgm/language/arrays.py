"""The vocabulary over NumPy, for first values that depend on the data; it draws and differentiates nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ppdgm.language.integrals import Arrays, Rates
from ppdgm.language.loops import unrolled_states
from ppdgm.language.native import Padding
from ppdgm.language.pure import InvertibleBlock, WithoutStatements
from ppdgm.language.vocabulary import Array, Carry, Declarations, Namespace, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x: x * _sigmoid(x),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "sigmoid": lambda x: _sigmoid(x),
    "identity": lambda x: x,
}


class NumpyVocabulary(Vocabulary):
    """P over NumPy arrays, without statements."""

    xp: ClassVar[Namespace] = np
    dist: ClassVar[Any] = None
    density: ClassVar[Any] = None

    @classmethod
    def over(cls, params: dict[str, np.ndarray], declared: Declarations) -> NumpyVocabulary:
        """P over a program's first values."""
        return cls(_FirstValues(), params, declared)

    def set(self, **values: Array) -> None:
        """Replace first values of parameters in scope."""
        for name, value in values.items():
            self.params[self.prefix + name] = value  # type: ignore[index]  # a dictionary, of first values

    def constant(self, value: ArrayLike) -> Array:
        return np.asarray(value, float)

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        return np.full(shape, value)

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        return x @ weight + bias

    def conv2d(self, x: Array, weight: Array, bias: Array, stride: int, padding: Padding) -> Array:
        pads = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
        wide = np.pad(x, ((0, 0), (0, 0), *pads))
        windows = np.lib.stride_tricks.sliding_window_view(wide, weight.shape[2:], axis=(2, 3))[
            :, :, ::stride, ::stride
        ]
        return np.einsum("bihwkl,oikl->bohw", windows, weight, optimize=True) + bias[:, None, None]

    def activation(self, name: str, x: Array) -> Array:
        if name == "gelu":
            from scipy.special import ndtr  # not before it is needed: SciPy's import takes long

            return x * ndtr(x)
        return _ACTIVATIONS[name](x)

    def stop_gradient(self, x: Array) -> Array:
        return x

    def logsumexp(self, x: Array, axis: int = -1) -> Array:
        return np.logaddexp.reduce(x, axis=axis)

    def log_ndtr(self, x: Array) -> Array:
        from scipy.special import log_ndtr

        return log_ndtr(x)

    def _reversible(self, blocks: Sequence[InvertibleBlock], x: Array) -> Array:
        for block in blocks:
            x = block.forward(block.own, x)
        return x

    def _loop(self, count: int, body: Callable[[Carry], Carry], x: Carry) -> Carry:
        for _ in range(count):
            x = body(x)
        return x

    _loop_early = _loop

    def _recurrence(self, body: Callable[[Carry, Array], Carry], first: Carry, xs: Array) -> Carry:
        return unrolled_states(body, first, xs, np.stack)

    def _adaptive(
        self, f: Rates, state: Arrays, args: Arrays, start: float, end: float, tolerance: float, adjoint: bool
    ) -> Arrays:
        from scipy.integrate import solve_ivp  # not before it is needed: SciPy's import takes long

        ends = np.cumsum([a.size for a in state])[:-1]
        split = lambda y: tuple(np.reshape(p, a.shape) for p, a in zip(np.split(y, ends), state, strict=True))
        join = lambda arrays: np.concatenate([np.reshape(a, -1) for a in arrays])
        rates = lambda t, y: join(f(t, split(y), args))
        found = solve_ivp(rates, (start, end), join(state), t_eval=[end], rtol=tolerance, atol=tolerance)
        return split(found.y[:, -1]) if found.success else tuple(np.full_like(a, np.nan) for a in state)

    def _with_gradient(self, forward: Callable[..., Arrays], backward: Callable[..., Arrays], arrays: Arrays) -> Arrays:
        return forward(*arrays)


class _FirstValues(WithoutStatements):
    """Nothing is dropped and no state moves where first values are found."""

    def update(self, name: str, value: np.ndarray, state: np.ndarray) -> None: ...

    def batch_mean(self, value: np.ndarray, event_ndim: int, otherwise: np.ndarray | None, xp: Namespace) -> np.ndarray:
        return np.mean(value, axis=tuple(range(value.ndim - event_ndim))) if otherwise is None else otherwise

    def drops(self) -> bool:
        return False

    draws_terms = drops

    def estimates(self, what: str) -> bool:
        return False


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))
