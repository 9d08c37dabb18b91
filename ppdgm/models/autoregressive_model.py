"""The autoregressive density of data."""

from __future__ import annotations

import numpy as np

from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.conditions import DataDensity
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.likelihoods.autoregressive import autoregressive, declare_autoregressive
from ppdgm.models.likelihoods.columns import first_output
from ppdgm.nets import MADE
from ppdgm.nets.causal import CausalNet
from ppdgm.program import Context


class AutoregressiveModel(DataDensity):
    """Autoregressive density: p(x) = Π_j p(x_j | x_<j), each given by a causal net. No latents: log p(x) is exact.

    Germain et al. 2015, arXiv:1502.03509; van den Oord et al. 2016, arXiv:1606.05328. With `classes` or `covariates`,
    it is p(x | label, y), and every conditional sees them. Training and log p(x) take one pass of the net; for a draw,
    see `CausalNet.ancestral`.

    Args:
        event_shape: shape of one row of the data.
        net: the causal net: MADE for vectors; GatedPixelCNN, PixelCNNPlusPlus or PixelSNAIL for images.
        likelihood: the distribution of each number, given the net's output.
        classes: for p(x | label): the number of classes of the field `label`, whole numbers from 0.
        covariates: for p(x | y): the shape of one row of the field `y`, real numbers.
    """

    net: CausalNet = MADE()
    likelihood: Likelihood = Bernoulli()

    def build(self, context: Context) -> None:
        seen = (self.condition_width,) if self.condition_width else ()
        declare_autoregressive(context, self.net, self.likelihood, self.event_shape, seen, start=self._columns)

    def _columns(self, data: Batch) -> np.ndarray | None:
        return first_output(self.likelihood, data["x"]) if "x" in data else None

    def model(self, P: Vocabulary, x: Array, label: Array | None = None, y: Array | None = None) -> None:
        seen = self.condition(P, label, y)
        batch = () if seen is None else tuple(seen.shape[:-1])
        with P.plate("data", x):
            P.sample("x", autoregressive(P, self.net, self.likelihood, self.event_shape, seen, batch), obs=x)

    def check(self, data: Batch) -> None:
        self.check_condition(data)
        self.likelihood.check("x", data["x"])
