"""Vector quantisation: the code nearest to the encoder's output."""

from __future__ import annotations

from math import prod
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.posteriors.base import Family, Posterior
from ppdgm.models.relaxed import CERTAIN
from ppdgm.program import Context, constant, normal
from ppdgm.specs import NonNegativeFloat, PositiveInt

REVIVED = 0.02  # a code is dead if it is used 50 times less than the codes are on average


class VectorQuantised(Posterior):
    """q(c|x) = 1 for c = argmin_k ‖h(x) − e_k‖² at each place: the nearest of K codes. The decoder sees e_c.

    van den Oord et al. 2017, arXiv:1711.00937. The latent is a log one-hot vector for each place, [*latent, K], of
    probability 1, so that the KL of a place is −log p(c): log K under a uniform prior, and the ELBO is a bound. The
    decoder's gradient at e_c goes straight to h. In training, a penalty keeps h near its code, β ‖h − sg(e_c)‖², summed
    over places. Parameters: `codebook` [K, E]; states `count` [K], the mean number of uses per row, and `total` [K, E].

    Args:
        classes: K, the number of codes.
        embedding: E, the width of a code, at most K: K codes span no more dimensions. The decoder sees [E, *latent],
            like an image's channels.
        codebook: "moving_average": e_k = m_k / N_k, with moving averages of the number N_k of outputs h of the code k,
            and of their sum m_k. "gradient": e_k is trained by the penalty ‖sg(h) − e_c‖².
        commitment: β; it weighs only the encoder's penalty.
        decay: γ of N_k ← γ N_k + (1 − γ) n_k, and of m_k.
        epsilon: ε in e_k = m_k / Ñ_k, Ñ_k = (N_k + ε) n / (n + K ε), n = Σ N_k.
        revive: a code whose N_k is below this part of the mean of all is dead: with N_k and m_k reset, it moves to a
            random h of the minibatch. 0: none is, as several processes need; None: 0.02 for moving averages.
    """

    family: ClassVar[Family] = "categorical"
    settles: ClassVar[bool] = True

    classes: Annotated[int, Field(ge=2)] = 512
    embedding: PositiveInt = 64
    codebook: Literal["moving_average", "gradient"] = "moving_average"
    commitment: NonNegativeFloat = 0.25
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    epsilon: NonNegativeFloat = 1e-5
    revive: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.embedding > self.classes:
            raise ValueError(
                f"embedding={self.embedding} is more than classes={self.classes}. K codes span no more than K "
                f"dimensions: give embedding={self.classes}, or more classes."
            )
        if self.codebook == "gradient" and self.revive:
            raise ValueError(
                f"revive={self.revive} would have no effect: codes that a gradient trains are not moved. Use "
                'codebook="moving_average".'
            )
        return self

    def variable(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        return (*latent, self.classes)

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        mean, size = prod(shape[:-1]) / self.classes, (self.classes, self.embedding)
        if self.codebook == "gradient":
            context.param("codebook", size, normal(1.0))
        else:
            context.state("total", size, normal(mean))
        context.state("count", (self.classes,), constant(mean))
        return (self.embedding, *shape[:-1])

    def settle(self, P: NumpyVocabulary, head: np.ndarray) -> None:
        """A codebook of outputs of the encoder, each far from those before it. Arthur & Vassilvitskii 2007."""
        P = P.scope(self.role)
        h = self._last(P, head).reshape(-1, self.embedding)
        rng, book = np.random.default_rng(0), np.empty((self.classes, self.embedding))
        far = np.ones(len(h))
        for k in range(self.classes):
            chance = far / far.sum() if far.sum() > 0 else np.full(len(h), 1 / len(h))
            book[k] = h[rng.choice(len(h), p=chance)]
            far = np.minimum(far if k else np.inf, ((h - book[k]) ** 2).sum(-1))
        book += 1e-3 * h.std(0).mean() * rng.normal(size=book.shape)  # two codes of equal outputs would be one
        if self.codebook == "gradient":
            P.set(codebook=book)
        else:
            P.set(total=book * self._smooth(P.param("count"))[:, None])

    def vectors(self, P: NumpyVocabulary, head: np.ndarray) -> np.ndarray:
        """The codes nearest to heads [N, *head], as the decoder sees them, [N, E, *latent]."""
        P = P.scope(self.role)
        h, book = self._last(P, head), self.book(P)
        e = book[(h @ book.T - 0.5 * (book**2).sum(-1)).argmax(-1)]
        return np.moveaxis(e, -1, -len(P.shape))

    def book(self, P: Vocabulary) -> Array:
        """e_k, [K, E]; P is scoped to the part."""
        if self.codebook == "gradient":
            return P.param("codebook")
        return P.param("total") / self._smooth(P.param("count"))[:, None]

    def _smooth(self, count: Array) -> Array:
        """Ñ_k."""
        every = count.sum()
        return (count + self.epsilon) * every / (every + self.classes * self.epsilon)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, shape = P.xp, P.shape
        h, book = self._last(P, head[0]), P.stop_gradient(self.book(P))
        index = xp.argmax(h @ book.T - 0.5 * xp.sum(book**2, axis=-1), axis=-1)
        chosen = P.one_hot(index, self.classes)
        code = chosen @ book
        self._train(P, h, chosen, code)
        certain = CERTAIN * (chosen - 1.0)
        through = h - P.stop_gradient(h)  # 0, with the gradient of h
        rest = P.xp.zeros_like(certain[..., self.embedding :])
        value = certain + P.concat([through, rest])

        def kl(p: Dist) -> Array | None:
            """−log p(c) of each place."""
            if "log_probs" not in getattr(p, "about", {}):
                return None
            log_p = xp.sum(chosen * p.about["log_probs"], axis=-1)
            return -xp.reshape(log_p, (*log_p.shape[: log_p.ndim - len(shape) + 1], -1))

        return P.distribution(
            lambda random, batch: (xp.broadcast_to(value, (*batch, *shape)), None),
            lambda y: xp.sum(xp.exp(P.stop_gradient(y)) * certain, axis=tuple(range(-len(shape), 0))),
            shape,
            tuple(value.shape[: value.ndim - len(shape)]),
            mean=lambda: certain,
            mode=lambda: certain,
            kl=kl,
            about={"log_probs": certain, "count": self.classes ** prod(shape[:-1])},
        )

    def counterpart(self, P: Vocabulary, prior: Dist) -> Dist:
        """The discrete prior; the gradient of a code's value belongs to the decoder alone."""
        p = getattr(prior, "discrete", None) or prior
        return P.distribution(
            lambda random, batch: random.draw(p, batch),
            lambda y: p.log_prob(P.stop_gradient(y)),
            tuple(p.event_shape),
            tuple(p.batch_shape),
            mean=lambda: p.mean,
            mode=lambda: p.mode,
            pathwise=False,
            about=p.about,
            values=getattr(p, "values", None),
        )

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.embedding, *shape[:-1])

    def code(self, P: Vocabulary, z: Array) -> Array:
        P, chosen = P.scope(self.role), P.one_hot(P.xp.argmax(z, axis=-1), self.classes)
        through = z[..., : self.embedding]
        e = chosen @ P.stop_gradient(self.book(P)) + (through - P.stop_gradient(through))
        return P.xp.moveaxis(e, -1, -len(P.shape))

    def _last(self, P: Vocabulary, head: Array) -> Array:
        """The encoder's output [..., E, *latent] as vectors [..., *latent, E]."""
        return P.xp.moveaxis(head, -len(P.shape), -1)

    def _train(self, P: Vocabulary, h: Array, chosen: Array, code: Array) -> None:
        """Penalties, and the next counts, sums and codes."""
        xp, axes = P.xp, tuple(range(-len(P.shape), 0))
        P.penalty(f"{P.prefix}commitment", self.commitment * xp.sum((h - code) ** 2, axis=axes))
        if self.codebook == "gradient":
            own = chosen @ P.param("codebook")
            P.penalty(f"{P.prefix}codebook", xp.sum((P.stop_gradient(h) - own) ** 2, axis=axes))
        flat = lambda a: P.stop_gradient(xp.reshape(a, (*a.shape[: a.ndim - len(axes)], -1, a.shape[-1])))
        used, outputs = flat(chosen), flat(h)
        moved = lambda name, new: self.decay * P.param(name) + (1.0 - self.decay) * new
        count = moved("count", P.batch_mean(xp.sum(used, axis=-2), 1))
        if self.codebook == "gradient":
            P.update("count", count)
            return
        total = moved("total", P.batch_mean(xp.matrix_transpose(used) @ outputs, 2))
        threshold, mean = REVIVED if self.revive is None else self.revive, xp.sum(count) / self.classes
        random = P.training_random if threshold else None
        if random is not None:
            dead = count < threshold * mean
            total = xp.where(dead[:, None], mean * self._any(P, random, outputs), total)
            count = xp.where(dead, mean, count)
        unused = count == 0.0  # without a memory, γ = 0: the code stays where it is
        P.update("count", xp.where(unused, P.param("count"), count))
        P.update("total", xp.where(unused[:, None], P.param("total"), total))

    def _any(self, P: Vocabulary, random: Random, outputs: Array) -> Array:
        """For each code the output of a random row and place of the minibatch, [K, E].

        With several processes training is refused, as each has only its rows; it needs revive=0 there.

        Args:
            P: scoped to the part.
            random: noise.
            outputs: [B, places, E], or [K, B, places, E].
        """
        xp, (size, places) = P.xp, outputs.shape[-3:-1]
        rows = xp.reshape(outputs, (-1, *outputs.shape[-3:]))[0]
        share = P.batch_mean(P.constant(np.eye(size)), 1)  # of each row: 0 if it only fills the minibatch
        row = xp.argmax(random.gumbel((self.classes, size)) + xp.log(xp.maximum(share, P.full((), 1e-30))), axis=-1)
        place = xp.argmax(random.gumbel((self.classes, places)), axis=-1)
        here = P.one_hot(row, size)[:, :, None] * P.one_hot(place, places)[:, None, :]
        return xp.reshape(here, (self.classes, -1)) @ xp.reshape(rows, (size * places, -1))
