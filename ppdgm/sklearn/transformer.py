"""Latents of a variational autoencoder as features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from ppdgm.errors import DataError, SpecError
from ppdgm.inference import Engine
from ppdgm.models import MLP, VAE, Gaussian, Program
from ppdgm.sklearn.base import ProgramEstimator, _flat

LATENT, HIDDEN = 2, (64,)  # of the default program


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ProgramEstimator):
    """Means of the latents of each row, by a variational autoencoder. Kingma & Welling 2014, arXiv:1312.6114.

    Scale the data first (StandardScaler): the default program has a Gaussian likelihood with one learned scale.

    Args:
        program: a program with latents, such as `VAE(event_shape=(D,), …)`; None: a VAE with a Gaussian likelihood.
        latent: size of the latent: of the default program 2; of one that is given, in place of its own.
        hidden: widths of encoder and decoder of the default program, (64,); a program that is given has its own nets.
        engine: how to train; None: `SVI()`.
        epochs, learning_rate, batch_size, backend, device, seed: as for `ppdgm.fit`.
    """

    def __init__(
        self,
        program: Program | None = None,
        *,
        latent: int | None = None,
        hidden: tuple[int, ...] | None = None,
        engine: Engine | None = None,
        epochs: int = 100,
        learning_rate: float = 1e-3,
        batch_size: int | None = None,
        backend: str = "numpyro",
        device: str = "auto",
        seed: int = 0,
    ):
        self.program, self.latent, self.hidden, self.engine = program, latent, hidden, engine
        self.epochs, self.learning_rate, self.batch_size = epochs, learning_rate, batch_size
        self.backend, self.device, self.seed = backend, device, seed

    def _make(self, event_shape: tuple[int, ...]) -> Program:
        if self.program is None:
            net = MLP(hidden=HIDDEN if self.hidden is None else self.hidden)
            latent = LATENT if self.latent is None else self.latent
            return VAE(event_shape=event_shape, latent=latent, likelihood=Gaussian(), encoder=net, decoder=net)
        if self.hidden is not None:
            raise SpecError("hidden: the program that is given has its own nets. Leave hidden out, or program.")
        return self.program if self.latent is None else self.program.replace(latent=self.latent)

    def transform(self, X: Any) -> np.ndarray:
        """Means of the latents given each row, [N, L]; several latents are joined, in the order of their names."""
        return self._by_batches(self._checked(X), lambda x: _flat(self.fit_.encode(x)))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """E[x | z] of latents, [N, D]."""
        check_is_fitted(self)
        codes = check_array(X, dtype=[np.float64, np.float32])
        shapes = self._latents()
        width = sum(size for size, _ in shapes.values())
        if codes.shape[1] != width:
            raise DataError(f"X: got {codes.shape[1]} columns, expected {width}, as transform(X) returns them.")
        ends = np.cumsum([size for size, _ in shapes.values()])[:-1]
        parts = np.split(codes, ends, axis=1)
        given = {n: p.reshape(len(p), *s) for (n, (_, s)), p in zip(shapes.items(), parts, strict=True)}
        found = _flat(self.fit_.decode(given))
        return found.astype(codes.dtype, copy=False)

    def score(self, X: Any, y: object = None) -> float:
        """The mean ELBO of the rows, in nats, of 10 draws of the guide for each."""
        return float(self.fit_.elbo(self._shaped(self._checked(X), self._event)).mean)

    def _latents(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """By latent: the number of its columns, and its shape."""
        shapes = dict(sorted(self.fit_._latents({}).items()))
        return {n: (int(np.prod(s, dtype=int)), s) for n, s in shapes.items()}

    @property
    def _n_features_out(self) -> int:
        return sum(size for size, _ in self._latents().values())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
