"""Probabilistic PCA: the program whose likelihood and posterior are known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, pi
from typing import Any, Literal

import numpy as np

from ppdgm.errors import DataError
from ppdgm.language import Array, Vocabulary
from ppdgm.program import Context, Program, normal, zeros
from ppdgm.spec import PositiveInt, Shape

Params = Mapping[str, np.ndarray]


class PPCA(Program):
    """Probabilistic PCA: z ~ N(0, I), x ~ N(Wz + μ, σ²I), so that p(x) = N(μ, WWᵀ + σ²I). Tipping & Bishop 1999.

    The posterior is N(M⁻¹Wᵀ(x − μ), σ²M⁻¹) with M = WᵀW + σ²I. Parameters: `weight` W [X, D], `loc` μ [X],
    `log_scale` log σ; with the linear guide also `guide.weight` A [D, X], `guide.bias`, `guide.log_scale` [D].

    Args:
        event_shape: (X,), the width of a datum.
        latent: D.
        posterior: "exact" is the full-covariance posterior above, with no parameters of its own; "linear" is
            N(Ax + b, diag s²).
    """

    event_shape: Shape
    latent: PositiveInt = 2
    posterior: Literal["exact", "linear"] = "exact"

    def build(self, context: Context) -> None:
        x, d = self._width, self.latent
        context.param("weight", (x, d), normal(d**-0.5))
        context.param("loc", (x,), zeros)
        context.param("log_scale", (), zeros)
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

    def model(self, P: Vocabulary, x: Array) -> Any:
        d = self.latent
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((d,), 0.0), P.full((d,), 1.0)).to_event(1))
            mean = P.linear(z, P.param("weight").T, P.param("loc"))
            mean = P.xp.reshape(mean, (*mean.shape[:-1], *self.event_shape))
            scale = P.xp.exp(P.param("log_scale"))
            P.sample("x", P.dist.Normal(mean, scale).to_event(len(self.event_shape)), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            P.sample("z", self._exact(P, x) if self.posterior == "exact" else self._linear(P.scope("guide"), x))

    def _exact(self, P: Vocabulary, x: Array) -> Any:
        weight, variance = P.param("weight"), P.xp.exp(2.0 * P.param("log_scale"))
        identity = P.constant(np.eye(self.latent))
        inverse = P.xp.linalg.inv(weight.T @ weight + variance * identity)
        mean = (self._flat(P, x) - P.param("loc")) @ weight @ inverse
        return P.dist.MultivariateNormal(mean, scale_tril=P.xp.linalg.cholesky(variance * inverse))

    def _linear(self, P: Vocabulary, x: Array) -> Any:
        mean = P.linear(self._flat(P, x), P.param("weight").T, P.param("bias"))
        return P.dist.Normal(mean, P.xp.exp(P.param("log_scale"))).to_event(1)

    def check(self, data: Mapping[str, np.ndarray]) -> None:
        if not np.isfinite(data["x"]).all():
            row = int(np.argwhere(~np.isfinite(data["x"]))[0][0])
            raise DataError(f"Data 'x': datum {row} has NaN or infinite entries, expected finite numbers.")

    # The closed forms below are float64 NumPy: the oracle for every bound and engine.

    def exact_log_likelihood(self, params: Params, x: np.ndarray) -> np.ndarray:
        """log p(x) per datum [N], in nats, for x [N, *event_shape]."""
        weight, loc, variance = _float64(params)
        centred = np.asarray(x, float).reshape(len(x), -1) - loc
        covariance = weight @ weight.T + variance * np.eye(len(loc))
        whitened = np.linalg.solve(np.linalg.cholesky(covariance), centred.T)
        log_det = np.linalg.slogdet(covariance)[1]
        return -0.5 * ((whitened**2).sum(0) + log_det + len(loc) * log(2 * pi))

    def exact_posterior(self, params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean [N, D] and covariance [D, D] of p(z|x)."""
        weight, loc, variance = _float64(params)
        inverse = np.linalg.inv(weight.T @ weight + variance * np.eye(self.latent))
        return (np.asarray(x, float).reshape(len(x), -1) - loc) @ weight @ inverse, variance * inverse

    def maximum_likelihood(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The model parameters that maximise Σ log p(x): W = U(Λ − σ²I)^½, σ² the mean of the discarded eigenvalues.

        Args:
            x: [N, *event_shape], with X > D.
        """
        flat = np.asarray(x, float).reshape(len(x), -1)
        if flat.shape[1] <= self.latent:
            raise DataError(f"Got data of width {flat.shape[1]}, expected more than the latent width {self.latent}.")
        values, vectors = np.linalg.eigh(np.cov(flat.T, bias=True))
        kept, variance = values[::-1][: self.latent], values[::-1][self.latent :].mean()
        weight = vectors[:, ::-1][:, : self.latent] * np.sqrt(np.maximum(kept - variance, 0.0))
        return {"weight": weight, "loc": flat.mean(0), "log_scale": np.asarray(0.5 * np.log(variance))}


def _float64(params: Params) -> tuple[np.ndarray, np.ndarray, float]:
    weight, loc = (np.asarray(params[n], float) for n in ("weight", "loc"))
    return weight, loc, float(np.exp(2.0 * np.asarray(params["log_scale"], float)))
