"""Densities by the chain rule: a causal net gives the distribution of each number from the numbers before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from ppdgm.errors import ProgramError, SpecError
from ppdgm.language.vocabulary import Array, Dist, Random, Support, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood
from ppdgm.models.likelihoods.bernoulli import Bernoulli
from ppdgm.nets import MADE
from ppdgm.nets.base import lead
from ppdgm.nets.causal import CausalNet, Places
from ppdgm.program import Context, started
from ppdgm.specs import Shape

Start = Callable[[Mapping[str, np.ndarray]], np.ndarray | None]


class Autoregressive(Likelihood):
    """p(x|h) = Π_j p(x_j | x_<j, h): a decoder's likelihood whose numbers depend on each other.

    The net gives what `each` needs for the distribution of x_j, from x_<j and the decoder's output h. The density takes
    one pass; for a draw, see `CausalNet.ancestral`. Its `mean` is the chain of conditional means, a point that is used
    for the expectation; draws and the mean carry no gradient. Larochelle & Murray 2011; as a decoder: Gulrajani et al.
    2017, arXiv:1611.05013.

    Args:
        net: the causal net.
        each: the distribution of each number; it must have a `draw`.
        condition: the shape of the decoder's output h, which the net sees as its condition.
    """

    mean_is_a_point: ClassVar[bool] = True

    net: CausalNet = MADE()
    each: Likelihood = Bernoulli()
    condition: Shape = (64,)

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        declare_autoregressive(context, self.net, self.each, shape, self.condition)
        return self.condition

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        leading = lead(head[0], self.condition)
        return autoregressive(P, self.net, self.each, P.shape, head[0], leading)

    def encoded(self, P: Vocabulary, x: Array) -> Array:
        return self.each.encoded(P, x)

    @property
    def support(self) -> Support:
        return self.each.support

    @property
    def expected_data(self) -> str:
        return self.each.expected_data

    def check(self, name: str, x: np.ndarray) -> None:
        self.each.check(name, x)


def declare_autoregressive(
    context: Context,
    net: CausalNet,
    each: Likelihood,
    shape: tuple[int, ...],
    condition: tuple[int, ...] = (),
    start: Start | None = None,
) -> None:
    """Declare the net, in the scope "net", and the part `each`, in the scope "each".

    Raises:
        SpecError: `each` can't be drawn number by number; or it draws some together that the net separates.
    """
    if type(each).draw is Likelihood.draw:
        raise SpecError(
            f"{type(each).__name__} can't be the distribution of each number of an autoregressive model: it has no "
            "draw(self, P, random, shape, head). Choose one such as Bernoulli, Categorical or DiscretisedLogistic."
        )
    groups = each.drawn_together(shape)
    if groups is not None and len(np.unique(groups)) < len(set(zip(groups.flat, net.order(shape).flat, strict=True))):
        raise SpecError(
            f"{type(each).__name__} draws the colours of a pixel together, but {type(net).__name__} gives them one "
            "after the other. Use PixelCNNPlusPlus or PixelSNAIL; or a likelihood of single numbers, such as "
            "MixtureOfDiscretisedLogistics."
        )
    outputs = context.part(each, shape, name="each")
    context.declared.shapes[f"{context.prefix}each.head"] = outputs  # `P.scope("each.head").shape`
    inner = context.scope("net")
    for name, (size, init) in net.causal_params(shape, condition, outputs).items():
        inner.param(name, size, started(init, start) if start and name == net.last_bias else init)


def autoregressive(
    P: Vocabulary,
    net: CausalNet,
    each: Likelihood,
    event: tuple[int, ...],
    condition: Array | None,
    batch: tuple[int, ...],
) -> Dist:
    """Π_j p(x_j | x_<j, h) of the declared net and part.

    Args:
        P: in the scope in which they were declared.
        net, each: as they were declared.
        event: the shape of x.
        condition: h, [*batch, *condition], or None.
        batch: the leading dimensions of h; () without one.
    """
    inner, outputs = P.scope("each"), P.scope("each.head").shape
    encoded = lambda x: each.encoded(P, x)

    def heads(x: Array) -> Array:
        return net.causal(P.scope("net"), encoded(x), condition, event, outputs)

    def ancestral(value: Callable[[Array], Array], leading: tuple[int, ...]) -> Array:
        """Each x_j in order; `value` gives all numbers from the heads of the numbers before them."""
        return net.ancestral(P.scope("net"), Places(value, encoded, event, outputs, leading), condition)

    def sample(random: Random, leading: tuple[int, ...]) -> tuple[Array, None]:
        kept = Kept(random)
        each.draw(inner, kept, (*leading, *event), P.full((*leading, *outputs), 0.0))  # which noise it takes
        draw = lambda head: each.draw(inner, kept.again(), (*leading, *event), head)
        return ancestral(draw, leading), None

    return P.distribution(
        sample,
        lambda x: each.distribution(inner, heads(x)).log_prob(x),
        event,
        batch,
        support=each.support,
        mean=lambda: ancestral(lambda head: each.distribution(inner, head).mean, batch),
        pathwise=False,
    )


class Kept:
    """Noise that is drawn once, and given again in the same order: x_j is drawn from its own noise in every pass."""

    def __init__(self, random: Random | None, arrays: list[Array] | None = None):
        self._random, self._arrays, self._given = random, arrays if arrays is not None else [], 0

    def again(self) -> Kept:
        """The same noise, from its beginning."""
        return Kept(None, self._arrays)

    def normal(self, shape: tuple[int, ...]) -> Array:
        return self._next("normal", shape)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        return self._next("uniform", shape)

    def gumbel(self, shape: tuple[int, ...]) -> Array:
        return self._next("gumbel", shape)

    def gamma(self, concentration: Array, shape: tuple[int, ...]) -> Array:
        raise _depends("gamma")

    def poisson(self, rate: Array, shape: tuple[int, ...]) -> Array:
        raise _depends("poisson")

    def permutation(self, n: int) -> Array:
        raise _depends("permutation")

    def draw(self, d: Dist, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
        raise _depends("draw")

    def _next(self, kind: str, shape: tuple[int, ...]) -> Array:
        if self._random is not None:
            self._arrays.append(getattr(self._random, kind)(shape))
        self._given += 1
        return self._arrays[self._given - 1]


def _depends(kind: str) -> ProgramError:
    return ProgramError(
        f"draw(self, P, random, shape, head): got random.{kind}, expected normal, uniform or gumbel, which do not "
        "depend on the head."
    )
