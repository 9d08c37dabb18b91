"""Priors made of a flow."""

from __future__ import annotations

from math import log, pi, prod
from typing import ClassVar

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.flows import Flow
from ppdgm.models.flows.direction import check_direction, fast_flows
from ppdgm.models.priors.base import Prior
from ppdgm.program import Context


class FlowPrior(Prior):
    """p(z): z = f(z₀), z₀ ~ N(0, I), log p(z) = log N(f⁻¹(z)) + log|det ∂f⁻¹/∂z|. Dinh et al. 2017, arXiv:1605.08803.

    Its `mean` is f(0), a point that is used for the expectation.

    Args:
        flow: f, over the latent as one vector of width D; without a context.
        allow_slow: permits a flow that takes D passes for the density of a given z, in every training step; then it
            only warns.
    """

    mean_is_a_point: ClassVar[bool] = True

    flow: Flow
    allow_slow: bool = False

    def __init__(self, *positional: object, **fields: object) -> None:
        super().__init__(*positional, **fields)
        if self.flow.one_way:
            raise SpecError(
                f"FlowPrior.flow: {type(self.flow).__name__} has no known inverse, and a prior has to score the "
                f"posterior's draws. Expected one of {', '.join(fast_flows('inverse'))}."
            )
        check_direction(self, self.flow, "inverse", self.allow_slow)

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.flow.build(context.scope("flow"), prod(shape), conditional=False)
        return ()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        inner, event, width = P.scope("flow"), P.shape, prod(P.shape)

        def log_normal(first: Array) -> Array:
            return -0.5 * (P.xp.sum(first**2, axis=-1) + width * log(2 * pi))

        def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
            first = random.normal((*batch_shape, width))
            z, log_det = self.flow.forward(inner, first, None)
            return P.xp.reshape(z, (*batch_shape, *event)), log_normal(first) - log_det

        def log_prob(z: Array) -> Array:
            lead = tuple(z.shape[: len(z.shape) - len(event)])
            first, log_det = self.flow.inverse(inner, P.xp.reshape(z, (*lead, width)), None)
            return log_normal(first) + log_det

        def mean() -> Array:
            return P.xp.reshape(self.flow.forward(inner, P.full((width,), 0.0), None)[0], event)

        return P.distribution(sample, log_prob, event, mean=mean)
