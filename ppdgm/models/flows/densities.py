"""The density of what a flow makes of normal noise: of data, of a latent, or given a context."""

from __future__ import annotations

from math import log, pi, prod

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.flows.base import Flow


def flow_density(
    P: Vocabulary, flow: Flow, event: tuple[int, ...], context: Array | None = None, batch: tuple[int, ...] = ()
) -> Dist:
    """z = f(z₀; c), z₀ ~ N(0, I): log p(z) = log N(f⁻¹(z)) + log|det ∂f⁻¹/∂z|. Its `mean` is f(0; c), a point.

    Args:
        P: in the flow's own scope.
        flow: f.
        event: the shape of z.
        context: c [*batch, C], or None.
        batch: the leading dimensions of c.
    """
    width = prod(event)

    def log_normal(first: Array) -> Array:
        return -0.5 * (P.xp.sum(first**2, axis=-1) + width * log(2 * pi))

    def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
        first = random.normal((*batch_shape, width))
        z, log_det = flow.forward(P, first, context)
        return P.xp.reshape(z, (*batch_shape, *event)), log_normal(first) - log_det

    def log_prob(z: Array) -> Array:
        lead = tuple(z.shape[: len(z.shape) - len(event)])
        first, log_det = flow.inverse(P, P.xp.reshape(z, (*lead, width)), context)
        return log_normal(first) + log_det

    def mean() -> Array:
        return P.xp.reshape(flow.forward(P, P.full((*batch, width), 0.0), context)[0], (*batch, *event))

    return P.distribution(sample, log_prob, event, batch, mean=mean)
