"""Posteriors made of a flow."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from ppdgm.errors import ProgramError, SpecError
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.flows import Flow
from ppdgm.models.flows.direction import check_direction
from ppdgm.models.posteriors.base import Posterior
from ppdgm.models.posteriors.normal import DiagonalNormal
from ppdgm.program import Context


class FlowPosterior(Posterior):
    """q(z|x): z = f(z₀; c(x)), z₀ ~ q₀(z₀|x), log q(z|x) = log q₀(z₀|x) − log|det ∂f/∂z₀|.

    Rezende & Mohamed 2015, arXiv:1505.05770. The head is one vector: the numbers for q₀, then the flow's context c. The
    `mean` is the image f(E z₀) of q₀'s mean, a point that is used for the expectation. Priors made of posteriors, such
    as VampPrior, mix q₀.

    Args:
        flow: f, over the latent as one vector of width D.
        initial: q₀, over latents of the same shape.
        allow_slow: permits a flow that takes D passes for a draw, in every training step; then it only warns.
    """

    mean_is_a_point: ClassVar[bool] = True

    flow: Flow
    initial: Posterior = DiagonalNormal()
    allow_slow: bool = False

    def __init__(self, *positional: object, **fields: object) -> None:
        super().__init__(*positional, **fields)
        if self.initial.family != "real":
            raise SpecError(
                f"FlowPosterior.initial: got {type(self.initial).__name__}, which is for {self.initial.family} "
                "latents, expected one for real latents, such as DiagonalNormal()."
            )
        check_direction(self, self.flow, "forward", self.allow_slow)

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        head = context.part(self.initial, shape, name="initial")
        context.declared.shapes[f"{context.prefix}initial.head"] = head  # `P.scope("initial.head").shape`
        return (prod(head) + self.flow.build(context.scope("flow"), prod(shape), conditional=True),)

    def base(self, P: Vocabulary, *head: Array) -> Dist:
        return self._initial(P.scope(self.role), head[0])

    def _initial(self, P: Vocabulary, head: Array) -> Dist:
        shape = P.scope("initial.head").shape
        own = P.xp.reshape(head[..., : prod(shape)], (*head.shape[:-1], *shape))
        return self.initial.distribution(P.scope("initial"), own)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        initial, inner, event = self._initial(P, head[0]), P.scope("flow"), P.shape
        rest = head[0][..., prod(P.scope("initial.head").shape) :]
        context = rest if rest.shape[-1] else None

        def flat(z: Array) -> Array:
            return P.xp.reshape(z, (*z.shape[: len(z.shape) - len(event)], prod(event)))

        def unflat(z: Array) -> Array:
            return P.xp.reshape(z, (*z.shape[:-1], *event))

        def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, Array]:
            first, log_q = random.draw(initial, batch_shape)
            z, log_det = self.flow.forward(inner, flat(first), context)
            return unflat(z), log_q - log_det

        def log_prob(z: Array) -> Array:
            if self.flow.one_way:
                raise ProgramError(
                    f"q(z|x) of a FlowPosterior with {type(self.flow).__name__} is known only at its own draws, "
                    "because the flow has no known inverse. To score other values, use a flow that has one, such as "
                    "IAF or RQSpline."
                )
            first, log_det = self.flow.inverse(inner, flat(z), context)
            return initial.log_prob(unflat(first)) + log_det

        def mean() -> Array:
            return unflat(self.flow.forward(inner, flat(initial.mean), context)[0])

        return P.distribution(
            sample, log_prob, event, tuple(initial.batch_shape), mean=mean, pathwise=bool(initial.has_rsample)
        )
