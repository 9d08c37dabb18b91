"""Shared by PPCA and factor analysis: a linear map of a normal latent, with normal noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import log, pi
from typing import Literal

import numpy as np

from ppdgm.errors import DataError
from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.likelihoods import Gaussian, Likelihood
from ppdgm.program import Context, Program, normal, zeros
from ppdgm.specs import PositiveInt, Shape

Params = Mapping[str, np.ndarray]
_LEAST_VARIANCE = 1e-12


class LinearGaussian(Program):
    """z ~ N(0, I), x ~ N(Wz + μ, Ψ), with Ψ = exp(2 log_scale) on the diagonal. A subclass gives log_scale's shape.

    Args:
        event_shape: (X,), the width of a row.
        latent: D.
        posterior: "exact" or "linear".
    """

    event_shape: Shape
    latent: PositiveInt = 2
    posterior: Literal["exact", "linear"] = "exact"

    @abstractmethod
    def _scale_shape(self) -> tuple[int, ...]:
        """The shape of `log_scale`."""

    def independent(self) -> Likelihood:
        return Gaussian(scale="per_dimension")

    def build(self, context: Context) -> None:
        x, d = self._width, self.latent
        context.param("weight", (x, d), normal(d**-0.5))
        context.param("loc", (x,), zeros)
        context.param("log_scale", self._scale_shape(), zeros)
        if self.posterior == "linear":
            guide = context.scope("guide", label="guide")
            guide.param("weight", (d, x), normal(x**-0.5))
            guide.param("bias", (d,), zeros)
            guide.param("log_scale", (d,), zeros)

    @property
    def _width(self) -> int:
        return int(np.prod(self.event_shape))

    def _flat(self, P: Vocabulary, x: Array) -> Array:
        return P.xp.reshape(x, (x.shape[0], self._width)) if len(self.event_shape) != 1 else x

    def model(self, P: Vocabulary, x: Array) -> None:
        d = self.latent
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((d,), 0.0), P.full((d,), 1.0)).to_event(1))
            mean = P.linear(z, P.param("weight").T, P.param("loc"))
            mean = P.xp.reshape(mean, (*mean.shape[:-1], *self.event_shape))
            scale = P.xp.exp(P.param("log_scale"))
            scale = P.xp.reshape(scale, self.event_shape) if scale.ndim else scale
            P.sample("x", P.dist.Normal(mean, scale).to_event(len(self.event_shape)), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            P.sample("z", self._exact(P, x) if self.posterior == "exact" else self._linear(P.scope("guide"), x))

    def _exact(self, P: Vocabulary, x: Array) -> Dist:
        """N(M⁻¹WᵀΨ⁻¹(x − μ), M⁻¹) with M = WᵀΨ⁻¹W + I."""
        weight, precision = P.param("weight"), P.xp.exp(-2.0 * P.param("log_scale"))
        scaled = (precision[:, None] if precision.ndim else precision) * weight
        identity = P.constant(np.arange(self.latent)[:, None] == np.arange(self.latent))
        inverse = P.xp.linalg.inv(weight.T @ scaled + identity)
        mean = (self._flat(P, x) - P.param("loc")) @ scaled @ inverse
        return P.dist.MultivariateNormal(mean, scale_tril=P.xp.linalg.cholesky(inverse))

    def _linear(self, P: Vocabulary, x: Array) -> Dist:
        mean = P.linear(self._flat(P, x), P.param("weight").T, P.param("bias"))
        return P.dist.Normal(mean, P.xp.exp(P.param("log_scale"))).to_event(1)

    def check(self, data: Mapping[str, np.ndarray]) -> None:
        if not np.isfinite(data["x"]).all():
            row = int(np.argwhere(~np.isfinite(data["x"]))[0][0])
            raise DataError(f"Data 'x': row {row} has NaN or infinite entries, expected finite numbers.")

    # The closed forms below are float64 NumPy. Every bound and engine is tested against them.

    def exact_log_likelihood(self, params: Params, x: np.ndarray) -> np.ndarray:
        """log p(x) of each row [N], in nats, for x [N, *event_shape]."""
        weight, loc, variance = self._float64(params)
        centred = np.asarray(x, float).reshape(len(x), -1) - loc
        covariance = weight @ weight.T + np.diag(variance)
        whitened = np.linalg.solve(np.linalg.cholesky(covariance), centred.T)
        log_det = np.linalg.slogdet(covariance)[1]
        return -0.5 * ((whitened**2).sum(0) + log_det + len(loc) * log(2 * pi))

    def exact_posterior(self, params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean [N, D] and covariance [D, D] of p(z|x)."""
        weight, loc, variance = self._float64(params)
        scaled = weight / variance[:, None]
        covariance = np.linalg.inv(weight.T @ scaled + np.eye(self.latent))
        return (np.asarray(x, float).reshape(len(x), -1) - loc) @ scaled @ covariance, covariance

    def e_step(self, params: Params, x: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics of p(z|x), summed over data. With r = x − μ − Wz and z̃ = (z, 1), both at `params`:

        `count` N, `log_likelihood` Σ log p(x), `residual` Σ E[r²] [X], `cross` Σ E[r z̃ᵀ] [X, D + 1] and `second`
        Σ E[z̃z̃ᵀ] [D + 1, D + 1]. Each costs O(N X D): with Woodbury's identity no array is [X, X].
        """
        weight, loc, variance = self._float64(params)
        count, scale = len(x), np.sqrt(variance)
        # M = V(I + s²)Vᵀ from this SVD stays precise if the noise is small; the inverse of M does not.
        u, s, v = np.linalg.svd(weight / scale[:, None], full_matrices=False)
        gain, explained = s / (1.0 + s**2), s**2 / (1.0 + s**2)
        white = (np.asarray(x, float).reshape(count, -1) - loc) / scale
        inner = white @ u
        mean, left = inner * gain @ v, white - inner * explained @ u.T
        lifted = np.hstack([mean, np.ones((count, 1))])
        cross, second, squares = left.T @ lifted, lifted.T @ lifted, (left**2).sum(0)
        cross[:, :-1] -= count * (u * gain) @ v
        second[:-1, :-1] += count * (np.eye(self.latent) - v.T * explained @ v)
        log_det = np.log(2 * pi * variance).sum() + np.log1p(s**2).sum()
        return {
            "count": np.asarray(float(count)),
            "log_likelihood": np.asarray(-0.5 * (count * log_det + squares.sum() + (mean**2).sum())),
            "residual": variance * (squares + count * u**2 @ explained),
            "cross": scale[:, None] * cross,
            "second": second,
        }

    def m_step(self, params: Params, statistics: Params) -> dict[str, np.ndarray]:
        """`weight`, `loc` and `log_scale`, jointly the maximum of Σ E[log p(x, z)]: Rubin & Thayer 1982.

        (W, μ) change by Δ = Σ E[r z̃ᵀ] (Σ E[z̃z̃ᵀ])⁻¹, and NΨ = Σ E[r²] − diag(Δ Σ E[z̃rᵀ]), of which PPCA takes the
        mean. Ψ is at least 1e-12. The log-likelihood never falls if the Ψ of the start is not below that.

        Args:
            params: the parameters of the E-step; the statistics are relative to them.
            statistics: sums of what `e_step` gives.
        """
        weight, loc, _ = self._float64(params)
        cross = statistics["cross"]
        step = np.linalg.solve(statistics["second"], cross.T).T
        variance = (statistics["residual"] - (step * cross).sum(1)) / statistics["count"]
        variance = np.maximum(variance if self._scale_shape() else variance.mean(), _LEAST_VARIANCE)
        return {
            "weight": weight + step[:, :-1],
            "loc": loc + step[:, -1],
            "log_scale": np.asarray(0.5 * np.log(variance)),
        }

    def _float64(self, params: Params) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W [X, D], μ [X] and the diagonal of Ψ [X]."""
        weight, loc = (np.asarray(params[n], float) for n in ("weight", "loc"))
        return weight, loc, np.broadcast_to(np.exp(2.0 * np.asarray(params["log_scale"], float)), loc.shape)
