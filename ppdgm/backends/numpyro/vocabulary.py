"""The vocabulary for JAX and NumPyro, and the direct reader of its distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import DTypeLike

from ppdgm.backends.numpyro.convolution import conv2d, conv_transpose2d
from ppdgm.backends.numpyro.density import Density, JaxRandom, draw
from ppdgm.backends.numpyro.distributions import Distributions
from ppdgm.backends.numpyro.foreign import apply_module, has_dropout
from ppdgm.backends.numpyro.indices import check_classes
from ppdgm.backends.numpyro.loops import keep, loop
from ppdgm.backends.numpyro.ode import adaptive, with_gradient
from ppdgm.backends.numpyro.recomputed import recomputed
from ppdgm.backends.numpyro.reversible import reversible
from ppdgm.backends.numpyro.support import SUPPORTS, is_masked, observe
from ppdgm.language.divergence import Library, pairs
from ppdgm.language.loops import unchanged
from ppdgm.language.masks import wide
from ppdgm.language.mixed_precision import MixedPrecision
from ppdgm.language.native import Padding
from ppdgm.language.pure import InvertibleBlock
from ppdgm.language.reader import Gradients, Reader
from ppdgm.language.steps import Tree
from ppdgm.language.supports import Supports
from ppdgm.language.vocabulary import Array, Carry, Dist, Module, Namespace, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}


class JaxVocabulary(Vocabulary):
    """P with JAX arrays and NumPyro's distributions."""

    xp: ClassVar[Namespace] = jnp
    dist: ClassVar[Any] = Distributions()
    density: ClassVar[Any] = Density

    @property
    def _like(self) -> DTypeLike:
        return next((v.dtype for v in self.params.values()), jnp.result_type(float))

    def constant(self, value: ArrayLike) -> Array:
        return jnp.asarray(value, dtype=self._like)

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        return jnp.full(shape, value, dtype=self._like)

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        # As one matrix product: with a batch dimension, even of one particle, XLA's CPU is up to a tenth slower.
        return jnp.reshape(jnp.reshape(x, (-1, x.shape[-1])) @ weight + bias, (*x.shape[:-1], -1))

    def conv2d(self, x: Array, weight: Array, bias: Array, stride: int, padding: Padding) -> Array:
        return conv2d(x, weight, stride, padding) + bias[:, None, None]

    def conv_transpose2d(
        self, x: Array, weight: Array, bias: Array, stride: int, padding: int, output_padding: tuple[int, int]
    ) -> Array:
        return conv_transpose2d(x, weight, stride, padding, output_padding) + bias[:, None, None]

    def activation(self, name: str, x: Array) -> Array:
        return _ACTIVATIONS[name](x)

    def stop_gradient(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x)

    def logsumexp(self, x: Array, axis: int = -1) -> Array:
        return jax.nn.logsumexp(x, axis=axis)

    def lgamma(self, x: Array) -> Array:
        return jax.lax.lgamma(jnp.asarray(x))

    def log_ndtr(self, x: Array) -> Array:
        return jax.scipy.special.log_ndtr(x)

    def one_hot(self, index: Array, size: int) -> Array:
        check_classes(index, size)
        return jax.nn.one_hot(index, size, dtype=self._like)

    def _random(self, noise: Array) -> JaxRandom:
        return JaxRandom(noise, self._like)

    def _recomputed(self, f: Callable[[Array], Array], x: Array) -> Array:
        return recomputed(f, x)

    def _vjp(self, f: Callable[[Array], Array], x: Array) -> tuple[Array, Callable[[Array], Array]]:
        value, pull = jax.vjp(f, x)
        return value, lambda v: pull(v)[0]

    def _reversible(self, blocks: Sequence[InvertibleBlock], x: Array) -> Array:
        return reversible(blocks, x)

    _adaptive = staticmethod(adaptive)
    _with_gradient = staticmethod(with_gradient)

    def _loop(self, count: int, body: Callable[[Carry], Carry], x: Carry) -> Carry:
        return jax.lax.fori_loop(0, count, lambda _, x: body(x), x)

    def _loop_early(self, count: int, body: Callable[[Carry], Carry], x: Carry) -> Carry:
        def again(state: tuple[Array, Array, Carry]) -> tuple[Array, Array, Carry]:
            i, _, x = state
            after = body(x)
            return i + 1, unchanged(x, after, jnp), after

        first = jax.lax.stop_gradient((jnp.array(0), jnp.array(False), x))
        found = jax.lax.while_loop(lambda state: (state[0] < count) & ~state[1], again, first)
        return jax.lax.stop_gradient(found[2])  # reverse mode does not pass through it

    def _recurrence(self, body: Callable[[Carry, Array], Carry], first: Carry, xs: Array) -> Carry:
        return jax.lax.scan(lambda state, x: (body(state, x),) * 2, first, xs)[1]

    def foreign(self, module: Module, x: Array, event_ndim: int) -> Array:
        n = len(self.prefix)
        own = {name[n:]: v for name, v in self.params.items() if name.startswith(self.prefix)}
        own = {k: self.interpreter.param(self.prefix + k, v) for k, v in own.items()}
        states = [name for name in own if self.prefix + name in self.declared.states]
        trains = (bool(states) or has_dropout(module)) and self.interpreter.drops()
        out, moved = apply_module(module, own, x, event_ndim, self.interpreter.noise() if trains else None)
        for name in states if trains else ():
            self.update(name, moved[name])
        return out


class MixedVocabulary(MixedPrecision, JaxVocabulary):
    """The same, with nets that multiply in bfloat16."""


_ONE_TO_ONE = {
    "AffineTransform",
    "ExpTransform",
    "InverseAutoregressiveTransform",
    "PermuteTransform",
    "SigmoidTransform",
}
LIBRARY = Library(
    xp=jnp,
    home=("numpyro.distributions",),
    independent=dist.Independent,
    expanded=dist.ExpandedDistribution,
    masked=dist.MaskedDistribution,
    delta=dist.Delta,
    transformed=dist.TransformedDistribution,
    formulas=pairs(
        {  # left out is NumPyro's for Kumaraswamy and Beta: the first ten terms of a series
            "Beta": "Beta",
            "CategoricalProbs": "CategoricalProbs",
            "Dirichlet": "Dirichlet",
            "Gamma": "Gamma",
            "MultivariateNormal": "MultivariateNormal",
            "Normal": "Normal",
            "Normals": "CirculantNormal",
            "Weibull": "Gamma",
        }
    ),
    kl=dist.kl_divergence,
    one_to_one=lambda transform: type(transform).__name__ in _ONE_TO_ONE,
    broadcast=jnp.broadcast_shapes,
)


def as_draw(d: Dist, value: Array) -> Array:
    """A value in the type of a draw: NumPyro's counts and classes are whole numbers, which may be used as indices."""
    return jnp.asarray(value, jax.eval_shape(d.sample, jax.random.key(0)).dtype)


class JaxReader(Reader):
    """Draws and densities of NumPyro's distributions; each draw has its own key, by its place in the program."""

    xp: ClassVar[Namespace] = jnp
    library: ClassVar[Library] = LIBRARY
    supports: ClassVar[Supports] = SUPPORTS
    native: ClassVar[type] = dist.Distribution
    arrays: ClassVar[tuple[type, ...]] = (jax.Array, np.ndarray)

    def __init__(self, key: Array | None, gradients: Gradients | None = None, looped: list[bool] | None = None):
        self.key, self.gradients, self.draws = key, gradients, 0
        self.looped = [] if looped is None else looped  # whether there is a scan

    def draw(self, d: Dist, shape: tuple[int, ...]) -> tuple[Array, Array]:
        key = jax.random.fold_in(self.key, self.draws)
        self.draws += 1
        return draw(d, key, shape)

    def noise(self) -> Array:
        key = jax.random.key(0) if self.key is None else jax.random.fold_in(self.key, self.draws)
        self.draws += 1
        self.noises += 1
        return key

    def fork(self) -> Array | None:
        self.draws += 1
        return None if self.key is None else jax.random.fold_in(self.key, self.draws - 1)

    def at(self, noise: Array | None, t: Array) -> JaxReader:
        return TimeReader(noise, t, self.gradients)

    def times(self, length: int) -> Array:
        return jnp.arange(length)

    def loop(
        self, step: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, at: Tree, length: int
    ) -> tuple[Tree, Tree]:
        self.looped[:] = [True]
        return loop(step, carry, at, length)

    keep = staticmethod(keep)

    def over(self, function: Callable[..., Array | None], *kept: Any) -> Array | None:
        return jax.vmap(function)(*kept)

    def same(self, a: Array, b: Array) -> bool | None:
        known = self.gradients is None and not isinstance(a, jax.core.Tracer) and not isinstance(b, jax.core.Tracer)
        return bool(jnp.array_equal(a, b)) if known else None

    def has_pathwise(self, d: Dist) -> bool:
        return bool(d.has_rsample)

    def observe(self, d: Dist, value: Array) -> Array:
        value = wide(value, d, jnp) if is_masked(d) else value
        return observe(d, value, lambda: d.log_prob(value))

    as_draw = staticmethod(as_draw)


class TimeReader(JaxReader):
    """The draws of one time of a scan. Its key is made when it is needed: values that are given depend on no key."""

    def __init__(self, noise: Array | None, t: Array, gradients: Gradients | None):
        super().__init__(None, gradients)
        self.of_scan, self.t = noise, t

    def draw(self, d: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
        self._wake()
        return super().draw(d, shape)

    def noise(self) -> Array:
        self._wake()
        return super().noise()

    def _wake(self) -> None:
        if self.key is None and self.of_scan is not None:
            self.key = jax.random.fold_in(self.of_scan, self.t)
