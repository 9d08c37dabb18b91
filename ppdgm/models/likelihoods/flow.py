"""A flow as a decoder's likelihood."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.flows import Flow, RealNVP
from ppdgm.models.flows.densities import flow_density
from ppdgm.models.flows.direction import check_direction
from ppdgm.models.likelihoods.base import Likelihood
from ppdgm.program import Context


class FlowLikelihood(Likelihood):
    """p(x|h): x = f(u; h), u ~ N(0, I), for real data; the decoder's output h is the flow's context.

    Its `mean` is f(0; h), a point that is used for the expectation. Winkler et al. 2019, arXiv:1912.00042.

    Args:
        flow: f, over a row of x as one vector. Its `context_size` is the size of the decoder's output.
        allow_slow: permits a flow that takes D passes for the density of given data, in every training step; then it
            only warns.
    """

    mean_is_a_point: ClassVar[bool] = True

    flow: Flow = RealNVP()
    allow_slow: bool = False

    def __init__(self, *positional: object, **fields: object) -> None:
        super().__init__(*positional, **fields)
        check_direction(self, self.flow, "inverse", self.allow_slow)

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        needed = self.flow.build(context.scope("flow"), prod(shape), conditional=True)
        if not needed:
            raise SpecError(
                f"FlowLikelihood.flow: {type(self.flow).__name__} reads no context, so p(x|z) would not depend on z. "
                "Use a flow that reads one, such as RealNVP(context_size=64), also in a Chain."
            )
        return (needed,)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return flow_density(P.scope("flow"), self.flow, P.shape, head[0], tuple(head[0].shape[:-1]))
