"""The vocabulary for torch and Pyro's distributions, and the direct reader of those."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

import array_api_compat.torch as xp
import numpy as np
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch.distributions import Distribution, kl_divergence
from torch.utils.checkpoint import checkpoint

from ppdgm.backends.pyro.density import Density, TorchRandom, draw
from ppdgm.backends.pyro.distributions import DISTRIBUTIONS
from ppdgm.backends.pyro.noise import GeneratorWatch
from ppdgm.backends.pyro.ode import adaptive, with_gradient
from ppdgm.backends.pyro.reversible import reversible
from ppdgm.backends.pyro.row_noise import OfRows, row_noise
from ppdgm.backends.pyro.support import SUPPORTS, observe
from ppdgm.language.divergence import Library, pairs
from ppdgm.language.loops import unchanged, unrolled_states
from ppdgm.language.mixed_precision import MixedPrecision
from ppdgm.language.native import Padding
from ppdgm.language.pure import InvertibleBlock
from ppdgm.language.reader import Gradients, Reader
from ppdgm.language.supports import Supports
from ppdgm.language.vocabulary import Array, Batch, Carry, Dist, Module, Namespace, Random, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


class TorchVocabulary(Vocabulary):
    """P with torch tensors and Pyro's distributions."""

    xp: ClassVar[Namespace] = xp
    dist: ClassVar[Any] = DISTRIBUTIONS
    density: ClassVar[Any] = Density

    @property
    def _like(self) -> dict[str, torch.dtype | torch.device]:
        for value in self.params.values():
            if value.is_floating_point():
                return {"dtype": value.dtype, "device": value.device}
        return {}

    def constant(self, value: ArrayLike) -> Array:
        like = self._like
        place = like.get("device", torch.device("cpu"))
        if place == torch.device("cpu") or torch.compiler.is_compiling() or not isinstance(value, np.ndarray):
            return torch.as_tensor(value, **like)
        held: Array = _held(value.tobytes(), value.shape, value.dtype.str, like["dtype"], place)
        return held.clone()  # the program's own

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        return torch.full(shape, value, **self._like)

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        return F.linear(x, weight.T, bias)

    def conv2d(self, x: Array, weight: Array, bias: Array, stride: int, padding: Padding) -> Array:
        if not isinstance(padding, int):
            (top, bottom), (left, right) = padding
            x, padding = F.pad(x, (left, right, top, bottom)), 0
        return F.conv2d(x, weight, bias, stride, padding)

    def conv_transpose2d(
        self, x: Array, weight: Array, bias: Array, stride: int, padding: int, output_padding: tuple[int, int]
    ) -> Array:
        return F.conv_transpose2d(x, weight, bias, stride, padding, output_padding)

    def activation(self, name: str, x: Array) -> Array:
        return _ACTIVATIONS[name](x)

    def stop_gradient(self, x: Array) -> Array:
        return x.detach()

    def logsumexp(self, x: Array, axis: int = -1) -> Array:
        return torch.logsumexp(x, dim=axis)

    def lgamma(self, x: Array) -> Array:
        return torch.lgamma(x)

    def log_ndtr(self, x: Array) -> Array:
        return torch.special.log_ndtr(x)

    def one_hot(self, index: Array, size: int) -> Array:
        return F.one_hot(index.long(), size).to(**self._like)

    def _random(self, noise: None) -> Random:
        random, rows = TorchRandom(self._like), row_noise()
        return random if rows is None else cast(Random, OfRows(random, rows))

    def _recomputed(self, f: Callable[[Array], Array], x: Array) -> Array:
        return checkpoint(f, x, use_reentrant=False, preserve_rng_state=False)

    def _vjp(self, f: Callable[[Array], Array], x: Array) -> tuple[Array, Callable[[Array], Array]]:
        before, self.interpreter.recomputes = self.interpreter.recomputes, False  # torch.func has no hooks for it
        value, pull = torch.func.vjp(f, x)
        self.interpreter.recomputes = before
        return value, lambda v: pull(v)[0]

    def _reversible(self, blocks: Sequence[InvertibleBlock], x: Array) -> Array:
        return reversible(blocks, x)

    _adaptive = staticmethod(adaptive)
    _with_gradient = staticmethod(with_gradient)

    def _loop(self, count: int, body: Callable[[Carry], Carry], x: Carry) -> Carry:
        for _ in range(count):
            x = body(x)
        return x

    def _loop_early(self, count: int, body: Callable[[Carry], Carry], x: Carry) -> Carry:
        with torch.no_grad():
            if torch.compiler.is_compiling():  # the number of repetitions of a graph is fixed
                return self._loop(count, body, x)
            for _ in range(count):
                before, x = x, body(x)
                if unchanged(before, x, xp):
                    break
        return x

    def _recurrence(self, body: Callable[[Carry, Array], Carry], first: Carry, xs: Array) -> Carry:
        if (reader := getattr(self.interpreter, "reader", None)) is not None:
            reader.fork()  # it is unrolled, as a scan is
        return unrolled_states(body, first, xs, torch.stack)

    def foreign(self, module: Module, x: Array, event_ndim: int) -> Array:
        n = len(self.prefix)
        own = {k[n:]: self.interpreter.param(k, v) for k, v in self.params.items() if k.startswith(self.prefix)}
        lead = x.shape[: x.ndim - event_ndim]  # one batch dimension: layers such as BatchNorm expect that
        rows = row_noise() if module.training else None
        with nullcontext() if rows is None else rows.of_arrays():  # such as dropout
            out = torch.func.functional_call(module, own, (x.reshape(-1, *x.shape[len(lead) :]),))
        return out.reshape(*lead, *out.shape[1:])


@lru_cache(64)
def _held(content: bytes, shape: tuple[int, ...], kind: str, dtype: Any, device: Any) -> Array:
    """A constant on a GPU: each step would wait for its copy from the host."""
    return torch.tensor(np.frombuffer(content, kind).reshape(shape), dtype=dtype, device=device)


class MixedVocabulary(MixedPrecision, TorchVocabulary):
    """The same, with nets that multiply in bfloat16."""


def stamps(batch: Batch) -> list[int]:
    """A number for each tensor, which grows if it is changed in place; only if distributions are also checked."""
    if not Distribution._validate_args or torch.compiler.is_compiling():
        return []
    return [t._version for t in batch.values() if isinstance(t, torch.Tensor) and not t.is_inference()]


def has_pathwise(d: Dist) -> bool:
    """Whether a draw is a differentiable function of the parameters, and its gradient is the complete one."""
    return bool(d.has_rsample) and not isinstance(SUPPORTS.inner(d), dist.Rejector)


def _kl(q: Dist, p: Dist) -> Array:
    if not isinstance(q, dist.Normal):  # some of torch's formulas, such as Bernoulli's, do not broadcast
        shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
        q, p = q.expand(shape), p.expand(shape)
    return kl_divergence(q, p)


LIBRARY = Library(
    xp=xp,
    home=("torch.distributions", "pyro.distributions"),
    independent=torch.distributions.Independent,
    expanded=ExpandedDistribution,
    masked=dist.MaskedDistribution,
    delta=dist.Delta,
    transformed=torch.distributions.TransformedDistribution,
    formulas=pairs(
        {  # torch's are left out for ContinuousBernoulli and Uniform: infinite where they are not
            "Bernoulli": "Bernoulli Poisson",
            "Beta": "Beta ContinuousBernoulli Exponential Gamma Normal Pareto Uniform",
            "Binomial": "Binomial",
            "Categorical": "Categorical",
            "Cauchy": "Cauchy",
            "ContinuousBernoulli": "ContinuousBernoulli Exponential Normal Pareto",
            "Dirichlet": "Dirichlet",
            "Exponential": "Beta ContinuousBernoulli Exponential Gamma Gumbel Normal Pareto Uniform",
            "Gamma": "Beta ContinuousBernoulli Exponential Gamma Gumbel Normal Pareto Uniform",
            "Geometric": "Geometric",
            "Gumbel": "Beta ContinuousBernoulli Exponential Gamma Gumbel Normal Pareto Uniform",
            "HalfNormal": "HalfNormal",
            "Laplace": "Beta ContinuousBernoulli Exponential Gamma Laplace Normal Pareto Uniform",
            "LowRankMultivariateNormal": "LowRankMultivariateNormal MultivariateNormal",
            "MultivariateNormal": "LowRankMultivariateNormal MultivariateNormal",
            "Normal": "Beta ContinuousBernoulli Exponential Gamma Gumbel Laplace Normal Pareto Uniform",
            "Normals": "MultivariateNormal",
            "OneHotCategorical": "OneHotCategorical",
            "Pareto": "Beta ContinuousBernoulli Exponential Gamma Normal Pareto Uniform",
            "Poisson": "Bernoulli Binomial Poisson",
            "Uniform": "Beta Exponential Gamma Gumbel Normal Pareto Uniform",
        }
    ),
    kl=_kl,
    one_to_one=lambda transform: bool(transform.bijective),
    broadcast=torch.broadcast_shapes,
)


class TorchReader(Reader):
    """Draws and densities of Pyro's distributions, from torch's generator."""

    xp: ClassVar[Namespace] = xp
    library: ClassVar[Library] = LIBRARY
    supports: ClassVar[Supports] = SUPPORTS
    native: ClassVar[type] = Distribution
    arrays: ClassVar[tuple[type, ...]] = (torch.Tensor,)

    def __init__(
        self,
        gradients: Gradients | None = None,
        watch: GeneratorWatch | None = None,
        looped: list[bool] | None = None,
    ):
        self.gradients, self.watch = gradients, watch
        self.looped = [] if looped is None else looped  # whether there is a scan

    def draw(self, d: Dist, shape: tuple[int, ...]) -> tuple[Array, Array]:
        if self.watch is None:
            return draw(d, shape)
        self.watch.site()
        found = draw(d, shape)
        self.watch.drawn()
        return found

    def noise(self) -> None:
        self.noises += 1

    def fork(self) -> None:
        if not torch.compiler.is_compiling():
            self.looped[:] = [True]

    def same(self, a: Array, b: Array) -> bool | None:
        return None if self.gradients is not None or torch.compiler.is_compiling() else torch.equal(a, b)

    has_pathwise = staticmethod(has_pathwise)

    def log_prob(self, d: Dist, value: Array) -> Array:
        if isinstance(d, torch.distributions.Categorical):  # Pyro's own compares ids, which torch.compile can't trace
            return torch.distributions.Categorical.log_prob(d, value)
        return d.log_prob(value)

    def observe(self, d: Dist, value: Array) -> Array:
        return observe(d, value, self.log_prob)

    def as_draw(self, d: Dist, value: Array) -> Array:
        return value  # classes are already whole numbers, and everything else is floating

    stamps = staticmethod(stamps)


@contextmanager
def unvalidated(off: bool = True) -> Iterator[None]:
    """Distributions without argument checks, only for the fast readings; then the process's setting is restored."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(not off)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


@contextmanager
def flushed() -> Iterator[None]:
    """Denormal numbers as zeros, as in XLA: an optimiser's averages of vanishing gradients slow a CPU down."""
    before = bool(np.finfo(np.float32).tiny * np.float32(0.5) == 0)  # torch sets this flag, but can't read it
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
