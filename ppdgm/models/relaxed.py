"""Discrete latents and their relaxations, as values in which nothing underflows: log-simplices and log-odds.

A discrete value is the logarithm of a one-hot vector, or the log-odds ±∞ of a bit; `CERTAIN` is used for ∞.
Densities depend only on the value, so that a copy of a draw has the same density.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import expm1, lgamma, log, prod
from typing import Literal, Protocol, cast

import numpy as np

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.program import Context, Part, constant
from ppdgm.specs import PositiveFloat
from ppdgm.specs.schedules import Schedule

CERTAIN = 1000.0  # finite, because infinity times zero is NaN; exp(−1000) is 0 in every floating type

Sample = Callable[[Random, tuple[int, ...]], tuple[Array, None]]
Temperature = PositiveFloat | Schedule | Literal["learned"]


class Relaxed(Protocol):
    """A posterior that can be enumerated."""

    @property
    def enumerate(self) -> bool: ...


def check_enumerated(part: Relaxed) -> None:
    """Refuse settings of draws if the part is enumerated, because then nothing is drawn."""
    fields = cast(type[Part], type(part)).model_fields  # it is a posterior, whose file imports this one
    drawn = [n for n in ("straight_through", "temperature", "kl") if getattr(part, n) != fields[n].default]
    if part.enumerate and drawn:
        raise ValueError(f"enumerate=True draws nothing, so {drawn[0]} would have no effect. Give only one of them.")


# --- categorical: log-simplices [*latent, C] --------------------------------------------------------------------------


def categorical(P: Vocabulary, logits: Array) -> Dist:
    """Π Cat(softmax(logits)) over log one-hot vectors, for logits [..., *latent, C]; P is scoped to the part."""
    shape, log_probs = P.shape, log_softmax(P, logits)
    *latents, classes = shape

    def log_one_hot(index: Array) -> Array:
        return CERTAIN * (P.one_hot(index, classes) - 1.0)

    def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
        return log_one_hot(P.xp.argmax(log_probs + random.gumbel((*batch, *shape)), axis=-1)), None

    def kl(p: Dist) -> Array | None:
        """KL(Cat(q)‖Cat(p)) of each latent."""
        if "log_probs" not in getattr(p, "about", {}):
            return None
        return _flat(P, P.xp.sum(P.xp.exp(log_probs) * (log_probs - p.about["log_probs"]), axis=-1), len(latents))

    return P.distribution(
        sample,
        lambda y: P.xp.sum(P.xp.exp(y) * log_probs, axis=_last(len(shape))),
        shape,
        _lead(log_probs, shape),
        mean=lambda: log_probs,
        mode=lambda: log_one_hot(P.xp.argmax(log_probs, axis=-1)),
        pathwise=False,
        kl=kl,
        about={"log_probs": log_probs, "count": classes ** prod(latents)},
        values=lambda: log_one_hot(_counted(P, latents, classes)),
    )


def relaxed_categorical(P: Vocabulary, logits: Array, temperature: Array, closed_form: bool) -> Dist:
    """ExpConcrete(logits, τ): y = log softmax((logits + g) / τ), Maddison et al. 2016, arXiv:1611.00712.

    p(y) = Γ(C) τ^(C−1) Π_k softmax(logits − τ y)_k for each latent, a density of y's log-ratios to any class.

    Args:
        P: scoped to the part.
        logits: [..., *latent, C].
        temperature: τ, a scalar.
        closed_form: whether its closed-form KL is that of the discrete distributions; otherwise it has none.
    """
    shape, discrete, xp = P.shape, categorical(P, logits), P.xp
    *latents, classes = shape

    def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
        return log_softmax(P, (logits + random.gumbel((*batch, *shape))) / temperature), None

    def log_prob(y: Array) -> Array:
        volume = lgamma(classes) + (classes - 1) * xp.log(temperature)
        return prod(latents) * volume + xp.sum(log_softmax(P, logits - temperature * y), axis=_last(len(shape)))

    return _relaxation(P, sample, log_prob, discrete, closed_form)


# --- binary: log-odds [*latent] ---------------------------------------------------------------------------------------


def bernoulli(P: Vocabulary, log_odds: Array) -> Dist:
    """Π Bern(σ(log_odds)) over the log-odds ±∞ of bits; P is scoped to the part."""
    shape, xp = P.shape, P.xp

    def certain(bits: Array) -> Array:
        return xp.where(bits, P.full((), CERTAIN), P.full((), -CERTAIN))

    def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
        return certain(log_odds + _logistic(random, (*batch, *shape)) > 0.0), None

    def kl(p: Dist) -> Array | None:
        """KL(Bern(q)‖Bern(p)) of each latent."""
        if "log_odds" not in getattr(p, "about", {}):
            return None
        other = p.about["log_odds"]
        one = _sigmoid(P, log_odds) * (P.softplus(-other) - P.softplus(-log_odds))
        zero = _sigmoid(P, -log_odds) * (P.softplus(other) - P.softplus(log_odds))
        return _flat(P, one + zero, len(shape))

    return P.distribution(
        sample,
        lambda y: -xp.sum(P.softplus((1.0 - 2.0 * _sigmoid(P, y)) * log_odds), axis=_last(len(shape))),
        shape,
        _lead(log_odds, shape),
        mean=lambda: log_odds,
        mode=lambda: certain(log_odds > 0.0),
        pathwise=False,
        kl=kl,
        about={"log_odds": log_odds, "count": 2 ** prod(shape)},
        values=lambda: certain(P.one_hot(_counted(P, shape, 2), 2)[..., 1] > 0.5),
    )


def relaxed_bernoulli(P: Vocabulary, log_odds: Array, temperature: Array, closed_form: bool) -> Dist:
    """BinConcrete(log_odds, τ) as log-odds: y = (log_odds + l) / τ with l ~ Logistic.

    Maddison et al. 2016, arXiv:1611.00712. Arguments as for `relaxed_categorical`.
    """
    shape = P.shape

    def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
        return (log_odds + _logistic(random, (*batch, *shape))) / temperature, None

    def log_prob(y: Array) -> Array:
        noise = temperature * y - log_odds
        return P.xp.sum(P.xp.log(temperature) - P.softplus(noise) - P.softplus(-noise), axis=_last(len(shape)))

    return _relaxation(P, sample, log_prob, bernoulli(P, log_odds), closed_form)


def _logistic(random: Random, shape: tuple[int, ...]) -> Array:
    return random.gumbel(shape) - random.gumbel(shape)


def _sigmoid(P: Vocabulary, x: Array) -> Array:
    return P.activation("sigmoid", x)


# --- shared -----------------------------------------------------------------------------------------------------------


def log_softmax(P: Vocabulary, x: Array) -> Array:
    """log (exp x_k / Σ exp x), over the last axis."""
    return x - P.logsumexp(x, -1)[..., None]


def hardened(P: Vocabulary, hard: Array, soft: Array) -> Array:
    """Straight through: `hard`, with the gradient of `soft`. Bengio et al. 2013, arXiv:1308.3432."""
    return hard + (soft - P.stop_gradient(soft))


def declare_temperature(context: Context, temperature: float | str | Schedule, floor: float) -> None:
    """Declare the schedule or the parameter of τ, if it has one."""
    if isinstance(temperature, Schedule):
        context.schedule("temperature", temperature)
    elif isinstance(temperature, str):
        context.param("raw_temperature", (), constant(log(expm1(max(1.0 - floor, 1e-3)))))  # softplus⁻¹


def temperature_of(P: Vocabulary, temperature: float | str | Schedule, floor: float) -> Array:
    """τ, as declared."""
    if isinstance(temperature, Schedule):
        return P.xp.maximum(P.param("temperature"), P.full((), floor))
    if isinstance(temperature, str):
        return floor + P.softplus(P.param("raw_temperature"))
    return P.full((), temperature)


def _relaxation(
    P: Vocabulary, sample: Sample, log_prob: Callable[[Array], Array], discrete: Dist, closed_form: bool
) -> Dist:
    return P.distribution(
        sample,
        log_prob,
        tuple(discrete.event_shape),
        tuple(discrete.batch_shape),
        mean=lambda: discrete.mean,
        kl=discrete.closed_form if closed_form else None,
        about=discrete.about,
        discrete=discrete,
    )


def _counted(P: Vocabulary, latents: Sequence[int], classes: int) -> Array:
    """All joint values of the latents, as whole numbers [S, *latents]."""
    n = prod(latents)
    digits = np.arange(classes**n)[:, None] // classes ** np.arange(n) % classes
    return P.xp.astype(P.constant(np.reshape(digits, (classes**n, *latents))), P.xp.int32)  # on the program's device


def _flat(P: Vocabulary, x: Array, events: int) -> Array:
    """[..., *latent] -> [..., D]."""
    return P.xp.reshape(x, (*x.shape[: x.ndim - events], -1))


def _last(events: int) -> tuple[int, ...]:
    return tuple(range(-events, 0))


def _lead(x: Array, event: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x.shape[: x.ndim - len(event)])
