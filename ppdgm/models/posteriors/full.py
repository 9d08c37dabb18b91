"""The normal posterior with full covariance."""

from __future__ import annotations

from math import log, pi, prod

import numpy as np

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.posteriors.normal import ScaledPosterior
from ppdgm.program import Context


class FullCovarianceNormal(ScaledPosterior):
    """q(z|x) = N(μ(x), L(x) L(x)ᵀ), L lower triangular with a diagonal of min_scale + softplus(s(x)).

    Rezende et al. 2014, arXiv:1401.4082. The head is [1 + D, D]: μ, then the rows of L, whose upper part is not used.

    Args:
        min_scale: a floor under the diagonal of L, so that log q stays finite.
        max_scale: a ceiling over the diagonal; near it, the diagonal bends towards it.
    """

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1 + prod(shape), prod(shape))

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, shape, d = P.xp, P.shape, prod(P.shape)
        loc, raw = head[0][..., 0, :], head[0][..., 1:, :]
        scale = self.scale(P, xp.linalg.diagonal(raw))  # [..., D]
        tril = raw * P.constant(np.tril(np.ones((d, d)), -1)) + scale[..., None] * P.constant(np.eye(d))
        native = P.dist.MultivariateNormal(loc, scale_tril=tril)
        log_norm = xp.sum(xp.log(scale), axis=-1) + 0.5 * d * log(2 * pi)

        def unflat(z: Array) -> Array:
            return xp.reshape(z, (*z.shape[:-1], *shape))

        def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
            noise = random.normal((*batch_shape, d))
            z = loc + xp.sum(tril * noise[..., None, :], axis=-1)
            return unflat(z), -0.5 * xp.sum(noise * noise, axis=-1) - log_norm

        def log_prob(z: Array) -> Array:
            return native.log_prob(xp.reshape(z, (*z.shape[: len(z.shape) - len(shape)], d)))

        def kl(p: Dist) -> Array | None:
            """½ Σ_d [(Σ_j L_dj² + (μ_d − m_d)²)/s_d² − 1 + log s_d²] − Σ log L_dd, for p = N(m, diag s²)."""
            if not (isinstance(p, P.dist.Independent) and isinstance(p.base_dist, P.dist.Normal)):
                return None
            batch = tuple(p.base_dist.batch_shape)  # NumPyro's loc and scale may be narrower
            m, s = (
                xp.reshape(xp.broadcast_to(a, batch), (*batch[: len(batch) - len(shape)], d))
                for a in (p.base_dist.loc, p.base_dist.scale)
            )
            ratio = (xp.sum(tril * tril, axis=-1) + (loc - m) ** 2) / (s * s)
            terms = 0.5 * (ratio - 1.0) + xp.log(s) - xp.log(scale)
            return xp.sum(terms, axis=-1, keepdims=True)

        batch_shape = tuple(loc.shape[:-1])
        return P.distribution(sample, log_prob, shape, batch_shape, mean=lambda: unflat(loc), kl=kl)
