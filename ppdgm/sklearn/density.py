"""The density of a program as a score of rows."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from sklearn.base import DensityMixin

from ppdgm.inference import Engine
from ppdgm.models import CDFFlow, FlowModel, Program, RQSpline
from ppdgm.sklearn.base import ProgramEstimator


class DensityEstimator(DensityMixin, ProgramEstimator):
    """log p(x) of each row, in nats: exact for a flow or another program without latents.

    Args:
        program: a program; None: a flow of rational-quadratic splines, whose density is exact (Durkan et al. 2019,
            arXiv:1906.04032); for one feature, a mixture of logistics.
        k: for a program with latents, the draws per row of the importance-sampled log p(x), which are a lower bound in
            expectation; a program without latents needs none.
        engine: how to train; None: `SVI()`.
        epochs, learning_rate, batch_size, backend, device, seed: as for `ppdgm.fit`.
    """

    def __init__(
        self,
        program: Program | None = None,
        *,
        k: int = 1000,
        engine: Engine | None = None,
        epochs: int = 100,
        learning_rate: float = 1e-3,
        batch_size: int | None = None,
        backend: str = "numpyro",
        device: str = "auto",
        seed: int = 0,
    ):
        self.program, self.k, self.engine = program, k, engine
        self.epochs, self.learning_rate, self.batch_size = epochs, learning_rate, batch_size
        self.backend, self.device, self.seed = backend, device, seed

    def _make(self, event_shape: tuple[int, ...]) -> Program:
        if self.program is not None:
            return self.program
        flow = RQSpline() if prod(event_shape) > 1 else CDFFlow()  # a coupling needs two numbers
        return FlowModel(event_shape=event_shape, flow=flow)

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) of each row, [N]."""
        rows = self._checked(X)
        return self._by_batches(rows, lambda x: np.asarray(self.fit_.log_likelihood(x, k=self.k).values))

    def score(self, X: Any, y: object = None) -> float:
        """The mean of log p(x) of the rows, in nats."""
        return float(self.score_samples(X).mean())
