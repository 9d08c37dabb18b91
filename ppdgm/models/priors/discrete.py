"""Priors of discrete latents."""

from __future__ import annotations

from math import log, log1p
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.posteriors import Family
from ppdgm.models.priors.base import Prior
from ppdgm.models.relaxed import relaxed_bernoulli, relaxed_categorical
from ppdgm.program import Context, zeros
from ppdgm.specs import PositiveFloat


class CategoricalPrior(Prior):
    """p(c) = Π Cat(π), for posteriors such as GumbelSoftmax. Its parameter is `logits` [*latent, C], if π is learned.

    Args:
        weights: π. "uniform", or "learned", separately for each latent.
        temperature: τ of the prior's relaxation, which training uses if the posterior has kl="relaxed". Maddison et
            al. 2016, arXiv:1611.00712.
    """

    family: ClassVar[Family] = "categorical"

    weights: Literal["uniform", "learned"] = "uniform"
    temperature: PositiveFloat = 0.5

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.weights == "learned":
            context.param("logits", shape, zeros)
        return ()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        logits = P.param("logits") if self.weights == "learned" else P.full(P.shape, 0.0)
        return relaxed_categorical(P, logits, P.full((), self.temperature), closed_form=False)


class BernoulliPrior(Prior):
    """p(b) = Π Bern(π), for posteriors such as RelaxedBernoulli. Its parameter is `logits` [*latent], if π is learned.

    Args:
        probs: π. A number between 0 and 1, or "learned", separately for each latent, ½ at the start.
        temperature: τ of the prior's relaxation, which training uses if the posterior has kl="relaxed". Maddison et
            al. 2016, arXiv:1611.00712.
    """

    family: ClassVar[Family] = "binary"

    probs: Annotated[Annotated[float, Field(gt=0, lt=1)] | Literal["learned"], Field()] = 0.5
    temperature: PositiveFloat = 0.5

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.probs == "learned":
            context.param("logits", shape, zeros)
        return ()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        if isinstance(self.probs, str):
            log_odds = P.param("logits")
        else:
            log_odds = P.full(P.shape, log(self.probs) - log1p(-self.probs))
        return relaxed_bernoulli(P, log_odds, P.full((), self.temperature), closed_form=False)
