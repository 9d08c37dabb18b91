"""A density of real numbers as a model of whole numbers."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.flows import RealNVP
from ppdgm.models.likelihoods.rounding import Rounding
from ppdgm.models.posteriors import Posterior
from ppdgm.models.posteriors.dequantiser import Dequantiser
from ppdgm.models.priors import FlowPrior, Prior
from ppdgm.nets import MLP, Net
from ppdgm.program import Context, Program
from ppdgm.specs import Shape

SETTLED = 1_000  #: the largest number of rows from which norms start


class Dequantised(Program):
    """Whole numbers by a density of real ones: z ~ prior, x = ⌊levels · z⌋, so that P(x) is the density's integral.

    A VAE with z = (x + u) / levels and a noise u in [0, 1) for each number: the ELBO is E[log p(z) − log q(z|x)], IWAE
    tightens it, and all are bounds on log P(x). Uniform noise: Theis et al. 2016, arXiv:1511.01844; a flow: Ho et al.
    2019, arXiv:1902.00275; IWAE: Hoogeboom et al. 2020, arXiv:2001.11235. The density's mass outside [0, 1] is drawn as
    the lowest or the highest level, and no bound counts it.

    Args:
        event_shape: shape of one row of the data.
        levels: how many values a number of x can take: 0, 1, …, levels − 1.
        prior: the density of z: a flow, or any prior over real numbers; x / levels lies in [0, 1).
        noise: None: u is uniform. A posterior over real numbers s, such as DiagonalLogistic() or FlowPosterior(flow=…),
            is variational dequantisation: u = σ(s), given x.
        net: the net that the noise sees x through.
    """

    event_shape: Shape
    levels: Annotated[int, Field(ge=2, le=65536)] = 256
    prior: Prior = FlowPrior(flow=RealNVP())
    noise: Posterior | None = None
    net: Net = MLP(hidden=(64,))

    @field_validator("prior", "noise")
    @classmethod
    def _is_real(cls, part: Prior | Posterior | None) -> Prior | Posterior | None:
        if part is not None and part.family != "real":
            raise ValueError(f"a distribution of real numbers, not of {part.family} ones")
        return part

    @cached_property  # made once, because torch.compile can't look into the making of a part
    def likelihood(self) -> Rounding:
        """p(x|z), which has no parameters."""
        return Rounding(levels=self.levels)

    @cached_property
    def posterior(self) -> Dequantiser:
        """q(z|x)."""
        return Dequantiser(levels=self.levels, noise=self.noise, net=self.net)

    def build(self, context: Context) -> None:
        context.part(self.prior, self.event_shape)
        context.part(self.posterior, self.event_shape, label="guide")
        context.part(self.likelihood, self.event_shape)
        context.settle(self._settle)

    def _settle(self, P: NumpyVocabulary, data: Batch) -> None:
        """First values of norms, from the data with uniform noise."""
        if "x" not in data:
            return
        x, rng = np.asarray(data["x"], np.float64), np.random.default_rng(0)
        rows = x[np.sort(rng.permutation(len(x))[:SETTLED])]
        self.prior.settle(P.scope("prior"), (rows + rng.random(rows.shape)) / self.levels)

    def model(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", self.likelihood(P, z), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            P.sample("z", self.posterior(P, self.likelihood.encoded(P, x)))

    def check(self, data: Batch) -> None:
        self.likelihood.check("x", data["x"])
