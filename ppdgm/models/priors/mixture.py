"""Mixture priors: their base class, and the mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Callable
from math import expm1, log, pi, prod
from typing import Literal

from pydantic import ValidationInfo, field_validator

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.priors.base import Prior
from ppdgm.program import Context, constant, normal, zeros
from ppdgm.specs import NonNegativeFloat, PositiveFloat, PositiveInt


class MixturePrior(Prior):
    """p(z) = Σ_m w_m p_m(z).

    Args:
        components: M.
        weights: "learned", w = softmax(logits), or "uniform", w_m = 1/M.
    """

    components: PositiveInt
    weights: Literal["learned", "uniform"]

    def declare_weights(self, context: Context) -> None:
        """Declare the weights' parameter, if they have one."""
        if self.weights == "learned":
            context.param("logits", (self.components,), zeros)

    def mixture(self, P: Vocabulary, components: Dist, draw: Callable[[Random, Array], Array]) -> Dist:
        """The mixture as a distribution.

        Args:
            P: the vocabulary.
            components: p_m, a distribution with batch [M, 1].
            draw: (random, m) -> a draw from the component of each index m [...].
        """
        log_weights = P.full((self.components,), -log(self.components))
        if self.weights == "learned":
            logits = P.param("logits")
            log_weights = logits - P.logsumexp(logits)

        def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, None]:
            noise = random.gumbel((*batch_shape, self.components))
            return draw(random, P.xp.argmax(log_weights + noise, axis=-1)), None

        def log_prob(z: Array) -> Array:
            terms = log_weights[:, None] + log_components(P, components, P.xp.reshape(z, (-1, *P.shape)))  # [M, data]
            return P.xp.reshape(P.logsumexp(terms, axis=0), z.shape[: len(z.shape) - len(P.shape)])

        def mean() -> Array:
            weights = P.xp.reshape(P.xp.exp(log_weights), (-1, 1, *(1,) * len(P.shape)))
            return P.xp.sum(weights * components.mean, axis=0)[0]

        # Not pathwise: the component that is drawn jumps as the weights change.
        return P.distribution(sample, log_prob, P.shape, mean=mean, pathwise=False)


def log_components(P: Vocabulary, components: Dist, z: Array) -> Array:
    """log p_m(z) [M, data] of components with batch [M, 1], for z [data, *event]."""
    if not (isinstance(components, P.dist.Independent) and isinstance(components.base_dist, P.dist.Normal)):
        return components.log_prob(z)
    # A matrix product of squared distances and precisions for each component. Its gradient is a matrix product too. The
    # gradient of Normal.log_prob is sums over [M, data, D], ten times slower on XLA's CPU inside a training loop.
    xp, d, normal = P.xp, prod(P.shape), components.base_dist
    loc, scale = (xp.reshape(a, (-1, 1, d)) for a in (normal.loc, normal.scale))
    away = xp.reshape(z, (-1, d)) - loc
    squares = xp.matmul(away * away, xp.reshape(1.0 / (scale * scale), (-1, d, 1)))[..., 0]
    return -0.5 * squares - xp.sum(xp.log(scale), axis=-1) - 0.5 * d * log(2 * pi)


class MixtureOfGaussians(MixturePrior):
    """p(z) = Σ_m w_m Π_d N(z_d; μ_md, σ_md²), σ = min_scale + softplus(s), with all of w, μ, s learned.

    Dilokthanakul et al. 2016, arXiv:1611.02648.

    Args:
        components: M.
        weights: "learned", w = softmax(logits), all 1/M at the start, or "uniform": w_m = 1/M.
        spread: the spread of the means at the start: μ_md ~ N(0, spread²).
        scale: σ at the start.
        min_scale: a floor under σ.
    """

    components: PositiveInt = 10
    weights: Literal["learned", "uniform"] = "learned"
    spread: PositiveFloat = 1.0
    scale: PositiveFloat = 1.0
    min_scale: NonNegativeFloat = 1e-3

    @field_validator("min_scale")
    @classmethod
    def _in_order(cls, low: float, info: ValidationInfo) -> float:
        if low >= info.data.get("scale", float("inf")):
            raise ValueError(f"a number less than scale, {info.data['scale']}")
        return low

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.declare_weights(context)
        context.param("loc", (self.components, *shape), normal(self.spread))
        raw = self.scale - self.min_scale + log(-expm1(self.min_scale - self.scale))  # softplus⁻¹(scale − min_scale)
        context.param("raw_scale", (self.components, *shape), constant(raw))
        return ()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        loc, scale = P.param("loc"), self.min_scale + P.softplus(P.param("raw_scale"))

        def draw(random: Random, m: Array) -> Array:
            return loc[m] + scale[m] * random.normal((*m.shape, *P.shape))

        return self.mixture(P, P.dist.Normal(loc[:, None], scale[:, None]).to_event(len(P.shape)), draw)
