"""Probabilistic PCA: its likelihood and posterior are known exactly."""

from __future__ import annotations

import numpy as np

from ppdgm.errors import DataError
from ppdgm.models.linear_gaussian import LinearGaussian


class PPCA(LinearGaussian):
    """Probabilistic PCA: z ~ N(0, I), x ~ N(Wz + μ, σ²I), so that p(x) = N(μ, WWᵀ + σ²I). Tipping & Bishop 1999.

    The posterior is N(M⁻¹Wᵀ(x − μ), σ²M⁻¹) with M = WᵀW + σ²I. Parameters: `weight` W [X, D], `loc` μ [X],
    `log_scale` log σ; with the linear guide also `guide.weight` A [D, X], `guide.bias`, `guide.log_scale` [D].
    Closed forms on arrays: `exact_log_likelihood`, `exact_posterior`, `maximum_likelihood`, `e_step`, `m_step`.

    Args:
        event_shape: (X,), the width of a row.
        latent: D.
        posterior: "exact" is the full-covariance posterior above, without its own parameters; "linear" is
            N(Ax + b, diag s²).
    """

    def _scale_shape(self) -> tuple[int, ...]:
        return ()

    def maximum_likelihood(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The model parameters that maximise Σ log p(x): W = U(Λ − σ²I)^½, σ² the mean of the discarded eigenvalues.

        Args:
            x: [N, *event_shape], with X > D.
        """
        flat = np.asarray(x, float).reshape(len(x), -1)
        if flat.shape[1] <= self.latent:
            raise DataError(
                f"Data 'x': got width {flat.shape[1]}, expected more than the latent width {self.latent}. Use a "
                "smaller latent."
            )
        values, vectors = np.linalg.eigh(np.cov(flat.T, bias=True))
        kept, variance = values[::-1][: self.latent], values[::-1][self.latent :].mean()
        weight = vectors[:, ::-1][:, : self.latent] * np.sqrt(np.maximum(kept - variance, 0.0))
        return {"weight": weight, "loc": flat.mean(0), "log_scale": np.asarray(0.5 * np.log(variance))}
