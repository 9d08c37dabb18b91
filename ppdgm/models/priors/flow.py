"""Priors made of a flow."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.flows import Flow
from ppdgm.models.flows.densities import flow_density
from ppdgm.models.flows.direction import check_direction
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
        check_direction(self, self.flow, "inverse", self.allow_slow, "a prior has to score the posterior's draws")

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.flow.build(context.scope("flow"), prod(shape), conditional=False)
        return ()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        return flow_density(P.scope("flow"), self.flow, P.shape)

    def settle(self, P: NumpyVocabulary, z: np.ndarray) -> None:
        self.flow.settle(P.scope("flow"), z.reshape(len(z), -1), None)
