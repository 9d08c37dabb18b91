"""Topic models of counts of words: ProdLDA, and LDA with the same guide."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

import numpy as np
from scipy.special import gammaln, logsumexp

from ppdgm.errors import DataError
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.likelihoods import Likelihood
from ppdgm.models.likelihoods.multinomial import Multinomial
from ppdgm.models.posteriors import DiagonalNormal
from ppdgm.models.relaxed import log_softmax
from ppdgm.nets import MLP, Net
from ppdgm.nets.base import Dropout, ones, zeros
from ppdgm.nets.norms import NORM_EPSILON, batch_norm
from ppdgm.program import Context, Program, normal
from ppdgm.specs import PositiveFloat, PositiveInt, Shape


class ProdLDA(Program):
    """Topic model: z ~ N(0, σ² I), θ = softmax(z), x ~ Multinomial(n, π(θ)); q(z|x) = N(encoder(x)).

    Srivastava & Sutton 2017, arXiv:1703.01488. N(0, σ² I) with σ² = (1 − 1/K) / α is the Laplace approximation of a
    symmetric Dirichlet(α) over the shares θ of K topics. π(θ) = softmax(norm(θ β) + b), a product of experts; the norm
    is batch norm, and b starts at the words' log-frequencies. Parameters: `topics` β [K, V], `background` b [V].
    `probabilities(fit.params)` gives the topics, `top_words` their words, `perplexity` the perplexity of a bound.

    Args:
        event_shape: (V,), the number of words; x are counts of words, from arrays or sparse matrices.
        topics: K.
        alpha: α. The smaller it is, the fewer topics a row has.
        decoder: "product" for ProdLDA, or "mixture" for LDA: π(θ) = Σ_k θ_k softmax(β_k + b).
        encoder: the net from log(1 + x) to the mean and the scale of z.
        dropout: the probability with which the share of a topic is set to 0, in training only.
    """

    event_shape: Shape
    topics: PositiveInt = 20
    alpha: PositiveFloat = 1.0
    decoder: Literal["product", "mixture"] = "product"
    encoder: Net = MLP(hidden=(100, 100), activation="softplus", norm="batch", dropout=0.2)
    dropout: Dropout = 0.0

    def build(self, context: Context) -> None:
        k, v = self.topics, prod(self.event_shape)
        context.part(Multinomial(), self.event_shape)
        context.param("topics", (k, v), normal(0.1))
        context.param("background", (v,), _log_frequencies)
        if self.decoder == "product":
            norm = context.scope("norm")
            norm.state("mean", (v,), zeros)
            norm.state("variance", (v,), ones)
        head = context.part(DiagonalNormal(), (k,), label="guide")
        context.net("encoder", self.encoder, self.event_shape, head, label="guide")

    def model(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        k = self.topics
        scale = ((1 - 1 / k) / self.alpha) ** 0.5
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((k,), 0.0), P.full((k,), max(scale, 1e-3))).to_event(1))
            shares = P.dropout(P.xp.exp(log_softmax(P, z)), self.dropout)
            logits = P.xp.reshape(self._logits(P, shares), (*z.shape[:-1], *self.event_shape))
            P.sample("x", Multinomial()(P, logits, exposure=exposure), obs=x)

    def _logits(self, P: Vocabulary, shares: Array) -> Array:
        """log π(θ), up to a constant, [..., V]."""
        topics, background = P.param("topics"), P.param("background")
        if self.decoder == "product":
            return batch_norm(P, "norm", shares @ topics, scaled=False) + background
        return P.xp.log(shares @ P.xp.exp(log_softmax(P, topics + background)) + 1e-20)

    def guide(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        with P.plate("data", x):
            P.sample("z", DiagonalNormal()(P, P.net("encoder")(Multinomial().encoded(P, x))))

    def check(self, data: Batch) -> None:
        Multinomial().check_rows(data)

    def independent(self) -> Likelihood:
        return Multinomial()

    def probabilities(self, params: Batch) -> np.ndarray:
        """The probabilities of words in a row of one topic only, [K, V].

        Args:
            params: of a fit, `fit.params`.
        """
        logits = np.asarray(params["topics"], np.float64)
        if self.decoder == "product":
            logits = (logits - params["norm.mean"]) / np.sqrt(params["norm.variance"] + NORM_EPSILON)
        logits = logits + params["background"]
        return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))

    def top_words(self, params: Batch, words: Sequence[str], n: int = 10) -> list[list[str]]:
        """The n most probable words of each topic.

        Args:
            params: of a fit, `fit.params`.
            words: the V words, in the order of the columns of x.
            n: the number of words.

        Raises:
            DataError: another number of words.
        """
        topics = self.probabilities(params)
        if len(words) != topics.shape[1]:
            raise DataError(f"words: got {len(words)} of them, expected {topics.shape[1]}, one for each column of x.")
        return [[str(words[i]) for i in np.argsort(-topic)[:n]] for topic in topics]

    def perplexity(self, bound: np.ndarray, x: np.ndarray) -> float:
        """exp(−Σ log p / Σ n), for the words of all rows one after the other: V if all words are equally probable.

        Args:
            bound: log p(x) of each row or a bound on it, [N], such as `fit.elbo(x).values`. It includes the multinomial
                coefficient, which is taken off here.
            x: the counts, [N, V].
        """
        x = np.asarray(x.toarray() if hasattr(x, "toarray") else x, np.float64).reshape(len(bound), -1)
        orders = gammaln(x.sum(1) + 1) - gammaln(x + 1).sum(1)
        return float(np.exp(-(np.sum(bound) - orders.sum()) / x.sum()))


def _log_frequencies(rng: np.random.Generator, shape: tuple[int, ...], data: Batch | None = None) -> np.ndarray:
    if data is None or "x" not in data:
        return np.zeros(shape)
    counts = np.asarray(data["x"], np.float64).reshape(len(data["x"]), -1).sum(0) + 0.5
    return np.log(counts / counts.mean())
