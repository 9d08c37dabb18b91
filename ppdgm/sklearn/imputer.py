"""Missing numbers of a table, from a variational autoencoder that was trained on what is there."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin

from ppdgm.inference import IWAE, Engine
from ppdgm.models import MLP, VAE, Program, Table
from ppdgm.sklearn.base import ProgramEstimator

LATENT, HIDDEN = 4, (64,)  # of the default program


class Imputer(OneToOneFeatureMixin, TransformerMixin, ProgramEstimator):
    """Numbers that are NaN, given the others of their row. Mattei & Frellsen 2019, "MIWAE", arXiv:1812.02633.

    Args:
        program: a program that imputes: with the likelihood `Table`, or an `AutoregressiveModel` with a net of many
            orders; None: a VAE with `Table` of real columns, which scales them itself.
        mean: fill in the mean, the best guess; False: one draw, so that several seeds give multiple imputations.
        k: draws of the guide for each row.
        engine: how to train; None: `IWAE(k=10)`.
        seed: of training and of the draws.
        epochs, learning_rate, batch_size, backend, device: as for `ppdgm.fit`.
    """

    default_engine: ClassVar[Engine | None] = IWAE(k=10)
    missing: ClassVar[bool] = True

    def __init__(
        self,
        program: Program | None = None,
        *,
        mean: bool = True,
        k: int = 1000,
        engine: Engine | None = None,
        epochs: int = 100,
        learning_rate: float = 1e-3,
        batch_size: int | None = None,
        backend: str = "numpyro",
        device: str = "auto",
        seed: int = 0,
    ):
        self.program, self.mean, self.k, self.engine = program, mean, k, engine
        self.epochs, self.learning_rate, self.batch_size = epochs, learning_rate, batch_size
        self.backend, self.device, self.seed = backend, device, seed

    def _make(self, event_shape: tuple[int, ...]) -> Program:
        if self.program is not None:
            return self.program
        table, net = Table(columns=("real",) * event_shape[0]), MLP(hidden=HIDDEN)
        return VAE(event_shape=event_shape, latent=LATENT, likelihood=table, encoder=net, decoder=net)

    def transform(self, X: Any) -> np.ndarray:
        """X [N, D] with its NaN filled in; all other numbers stay as they are."""
        rows = self._checked(X)
        gaps = np.isnan(rows)
        if not (some := gaps.any(axis=1)).any():
            return rows
        shaped = self._shaped(rows[some], self._event)
        filled = np.asarray(self.fit_.impute(shaped, seed=self.seed, mean=self.mean, k=self.k))
        found = rows.copy()
        found[some] = np.where(gaps[some], filled.reshape(len(shaped), -1), rows[some])
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
