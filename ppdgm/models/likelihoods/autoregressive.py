"""Densities by the chain rule: a causal net gives the distribution of each number from the numbers before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import ClassVar

import numpy as np

from ppdgm.errors import ProgramError, SpecError
from ppdgm.language.quiet import undropped
from ppdgm.language.vocabulary import Array, Dist, Random, Support, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood
from ppdgm.models.likelihoods.bernoulli import Bernoulli
from ppdgm.nets import MADE
from ppdgm.nets.base import lead
from ppdgm.nets.causal import CausalNet, Order, Places, without_overflow
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
            "after the other. Use PixelCNNPlusPlus, PixelSNAIL, GatedPixelCNN(colours='together') or, for sequences, "
            "Transformer; or a likelihood of single numbers, such as MixtureOfDiscretisedLogistics."
        )
    outputs = context.part(each, shape, name="each")
    context.declared.shapes[f"{context.prefix}each.head"] = outputs  # `P.scope("each.head").shape`
    context.declared.shapes[f"{context.prefix}net.condition"] = tuple(condition)
    inner = context.scope("net")
    for name, (size, init) in net.causal_states(shape, condition).items():
        inner.state(name, size, init)
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
    """Π_j p(x_j | x_<j, h) of the declared net and part; of several orders the mean, or one of them in training.

    Args:
        P: in the scope in which they were declared.
        net, each: as they were declared.
        event: the shape of x.
        condition: h, [*batch, *condition], or None.
        batch: the leading dimensions of h; () without one.
    """
    factors, (orders, averaged) = Factors(P, net, each, event, condition), net.counts
    random = P.training_random if orders > 1 else None
    if random is not None:
        return factors.in_order(factors.at(P.xp.floor(random.uniform(()) * orders)), batch)
    if averaged == 1:
        return factors.in_order(factors.at(P.full((), 0.0)), batch)
    return factors.ensemble(averaged, batch)


class Factors:
    """Π_j p(x_j | x_<j, h) in any of a net's orders; the arguments are those of `autoregressive`."""

    def __init__(
        self, P: Vocabulary, net: CausalNet, each: Likelihood, event: tuple[int, ...], condition: Array | None
    ):
        self.P, self.net, self.each, self.event, self.condition = P, net, each, event, condition
        self.inner, self.outputs = P.scope("each"), P.scope("each.head").shape

    def at(self, number: Array) -> Order:
        """The order of this number."""
        return self.net.order_at(self.P.scope("net"), number, self.event)

    def in_order(self, order: Order, batch: tuple[int, ...]) -> Dist:
        """The density of one order."""
        return self.P.distribution(
            lambda random, leading: (self.ancestral(self.drawn(random, leading), order, leading), None),
            lambda x: self.log_prob(x, order),
            self.event,
            batch,
            support=self.each.support,
            mean=lambda: self.ancestral(self.expected, order, batch),
            pathwise=False,
        )

    def ensemble(self, count: int, batch: tuple[int, ...]) -> Dist:
        """1/R Σ_r p_r(x) of the first R orders. Germain et al. 2015, section 4.2."""
        P, xp = self.P, self.P.xp

        def over_orders(first: Array, body: Callable[[Array, Array], Array], start: int) -> Array:
            """body(so far, r) for r = start, …, R − 1, from what is first."""
            more = lambda state: (body(*state), state[1] + 1.0)
            found: Array = P.repeat(count - start, more, (first, P.full((), float(start))))[0]
            return found

        def log_prob(x: Array) -> Array:
            first = self.log_prob(x, self.at(P.full((), 0.0)))
            add = lambda total, r: xp.logaddexp(total, self.log_prob(x, self.at(r)))
            return over_orders(first, add, 1) - log(count)

        def sample(random: Random, leading: tuple[int, ...]) -> tuple[Array, None]:
            ones = (1,) * len(self.event)
            which = xp.reshape(xp.floor(random.uniform(leading) * count), (*leading, *ones))
            draw = self.drawn(random, leading)
            own = lambda x, r: xp.where(which == r, self.ancestral(draw, self.at(r), leading), x)
            return over_orders(P.full((*leading, *self.event), 0.0), own, 0), None

        def mean() -> Array:
            add = lambda total, r: total + self.ancestral(self.expected, self.at(r), batch) / count
            return over_orders(P.full((*batch, *self.event), 0.0), add, 0)

        return P.distribution(sample, log_prob, self.event, batch, support=self.each.support, mean=mean, pathwise=False)

    def heads(self, x: Array, order: Order) -> Array:
        """What `each` needs for every number, [..., *outputs]."""
        x, P = self.each.encoded(self.P, x), self.P.scope("net")
        return self.net.ordered(P, x, self.condition, self.event, self.outputs, order)

    def log_prob(self, x: Array, order: Order) -> Array:
        """log p of x in one order."""
        return self.each.distribution(self.inner, self.heads(x, order)).log_prob(x)

    def expected(self, head: Array) -> Array:
        """The mean of each number."""
        return self.each.distribution(self.inner, head).mean

    def drawn(self, random: Random, leading: tuple[int, ...]) -> Callable[[Array], Array]:
        """head -> a draw of each number, from the same noise for every head."""
        kept, shape = Kept(random), (*leading, *self.event)
        empty = self.P.full((*leading, *self.outputs), 0.0)
        self.each.draw(self.inner, kept, shape, empty)  # which noise it takes
        return lambda head: self.each.draw(self.inner, kept.again(), shape, head)

    def ancestral(
        self,
        value: Callable[[Array], Array],
        order: Order,
        leading: tuple[int, ...],
        start: Array | None = None,
        free: Array | None = None,
    ) -> Array:
        """Each x_j in order; `value` gives all numbers from the heads of the numbers before them.

        Args:
            value: head -> numbers.
            order: of the numbers.
            leading: dimensions before the event.
            start: x at first, [*leading, *event].
            free: the numbers that are set, [*event], booleans; the others stay as they are at first. By default all.
        """
        P, xp, encoded = self.P, self.P.xp, lambda x: self.each.encoded(self.P, x)
        if order.places is None and free is None:
            places = Places(value, encoded, self.event, self.outputs, leading)
            return self.net.ancestral(P.scope("net"), places, self.condition)
        quiet = P.told_to(undropped(P.interpreter)).scope("net")

        def passed(x: Array) -> Array:
            seen = encoded(without_overflow(xp, x))
            new = value(self.net.ordered(quiet, seen, self.condition, self.event, self.outputs, order))
            return new if free is None else xp.where(free, new, x)

        first = P.full((*leading, *self.event), 0.0) if start is None else start
        found: Array = quiet.repeat(self.net.length(self.event), passed, first, early=True)
        return found


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

    def multinomial(self, total: Array, share: Array, shape: tuple[int, ...]) -> Array:
        raise _depends("multinomial")

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
