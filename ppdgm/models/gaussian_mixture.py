"""The Gaussian mixture, as a program with one discrete latent."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, pi, prod
from typing import Literal

import numpy as np

from ppdgm.language.vocabulary import Array, Batch, Dist, Random, Vocabulary
from ppdgm.models.classes import one_hot_categorical
from ppdgm.models.covariances import of_root, regressions, second_moments
from ppdgm.models.likelihoods import Gaussian, Likelihood, refuse
from ppdgm.models.relaxed import log_softmax
from ppdgm.program import Context, Program, zeros
from ppdgm.specs import NonNegativeFloat, PositiveInt, Shape

Params = Mapping[str, np.ndarray]
_ENUMERATE = {"enumerate": "parallel"}
_LEAST_COUNT = 10 * float(np.finfo(float).eps)


class GaussianMixture(Program):
    """Mixture of Gaussians: c ~ Cat(π), x ~ N(μ_c, Σ_c). Its ELBO is exactly log p(x).

    The site c, a one-hot vector, is enumerated. Covariances are stored as regressions of each dimension on those before
    it, (I − A) Σ (I − A)ᵀ = diag(s²) (Pourahmadi 1999). Parameters: `weight_logits` [C], `loc` μ [C, X], `raw_scale`
    with s = min_scale + softplus, and `regression` A, of which only the part below the diagonal is used.
    Closed forms on arrays: `exact_log_likelihood`, `exact_posterior`, `parameters`, `e_step`, `m_step`. Training finds
    a local optimum: take the best of several seeds.

    Args:
        event_shape: (X,), the width of a row, or its shape.
        components: C.
        covariance: Σ_c: "full", "diagonal" or "spherical" for each component, or "tied", one full covariance for all.
        assignment: "exact" has c in the guide, with its exact probabilities p(c|x), which `fit.encode` gives; "summed"
            has an empty guide, and c is summed out of the model. The bound is the same.
        min_scale: a floor under s. Without it, a component that shrinks to one row has an infinite density.
    """

    event_shape: Shape
    components: PositiveInt = 10
    covariance: Literal["full", "diagonal", "spherical", "tied"] = "full"
    assignment: Literal["exact", "summed"] = "exact"
    min_scale: NonNegativeFloat = 1e-3

    def independent(self) -> Likelihood:
        return Gaussian(scale="per_dimension")

    def build(self, context: Context) -> None:
        x, c = prod(self.event_shape), self.components
        context.param("weight_logits", (c,), zeros)
        context.param("loc", (c, x), _spread_rows)
        context.param(
            "raw_scale", {"spherical": (c, 1), "tied": (1, x)}.get(self.covariance, (c, x)), self._first_scale
        )
        if self.covariance in ("full", "tied"):
            context.param("regression", (c if self.covariance == "full" else 1, x, x), zeros)

    def model(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            log_weights = log_softmax(P, P.param("weight_logits"))
            c = P.sample("c", one_hot_categorical(P, log_weights), infer=_ENUMERATE)
            P.sample("x", self._component(P, c), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> None:
        if self.assignment == "exact":
            with P.plate("data", x):
                joint = log_softmax(P, P.param("weight_logits")) + self._log_densities(P, x)
                P.sample("c", one_hot_categorical(P, log_softmax(P, joint)), infer=_ENUMERATE)

    def _component(self, P: Vocabulary, c: Array) -> Dist:
        """N(μ_c, Σ_c) over x [..., *event], for one-hot c [..., C]."""
        xp, loc, width = P.xp, P.param("loc"), prod(self.event_shape)
        shaped = lambda x: xp.reshape(x, (*x.shape[:-1], *self.event_shape))

        def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
            noise = xp.reshape(random.normal((*batch, width)), (-1, width)) * self._scale(P)[:, None]  # [C, N, X]
            if (regression := self._regression(P)) is not None:
                noise = noise @ xp.linalg.matrix_transpose(xp.linalg.inv(P.constant(np.eye(width)) - regression))
            each = xp.reshape(xp.permute_dims(noise + loc[:, None], (1, 0, 2)), (*batch, *loc.shape))
            return shaped(xp.sum(c[..., None] * each, axis=-2)), None

        return P.distribution(
            sample,
            lambda x: xp.sum(c * self._log_densities(P, x), axis=-1),
            self.event_shape,
            tuple(c.shape[:-1]),
            mean=lambda: shaped(c @ loc),
        )

    def _log_densities(self, P: Vocabulary, x: Array) -> Array:
        """log N(x; μ_c, Σ_c) of every component, [..., C], for x [..., *event]."""
        xp, width = P.xp, prod(self.event_shape)
        lead, scale = x.shape[: x.ndim - len(self.event_shape)], self._scale(P)[:, None]
        off = xp.reshape(x, (-1, width)) - P.param("loc")[:, None]  # [C, N, X]
        if (regression := self._regression(P)) is not None:
            off = off - off @ xp.linalg.matrix_transpose(regression)
        each = -0.5 * (off / scale) ** 2 - xp.log(scale) - 0.5 * log(2 * pi)
        return xp.reshape(xp.sum(each, axis=-1).T, (*lead, self.components))

    def _scale(self, P: Vocabulary) -> Array:
        """s, [C or 1, X or 1]."""
        return self.min_scale + P.softplus(P.param("raw_scale"))

    def _regression(self, P: Vocabulary) -> Array | None:
        """A [C or 1, X, X], zero on and above the diagonal; None if all of it is zero."""
        if self.covariance not in ("full", "tied"):
            return None
        return P.param("regression") * P.constant(np.tri(prod(self.event_shape), k=-1))

    def _first_scale(self, rng: np.random.Generator, shape: tuple[int, ...], data: Params | None) -> np.ndarray:
        """The standard deviation of the data for every component and dimension."""
        scale = 1.0 if data is None else np.sqrt(np.var(_flat(data["x"]), axis=0).mean())
        return np.full(shape, self._raw(np.asarray(scale)))

    def _raw(self, scale: np.ndarray) -> np.ndarray:
        """softplus⁻¹(s − min_scale)."""
        above = np.maximum(np.asarray(scale, float) - self.min_scale, 1e-6)
        return above + np.log(-np.expm1(-above))

    def check(self, data: Batch) -> None:
        refuse("x", data["x"], ~np.isfinite(data["x"]), "finite numbers")

    # The closed forms below are float64 NumPy.

    def parameters(self, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> dict[str, np.ndarray]:
        """The parameters of a mixture whose weights, means and covariances are known.

        Args:
            weights: π [C].
            means: [C, X].
            covariances: [C, X, X], or "tied" [X, X], "diagonal" [C, X], "spherical" [C]: as in scikit-learn.
        """
        found = {"weight_logits": np.log(np.asarray(weights, float)), "loc": np.asarray(means, float)}
        if self.covariance in ("diagonal", "spherical"):
            scale = np.sqrt(np.asarray(covariances, float)).reshape(self.components, -1)
            return found | {"raw_scale": self._raw(scale)}
        root = np.linalg.cholesky(np.asarray(covariances, float).reshape(-1, *found["loc"].shape[1:] * 2))
        regression, scale = of_root(root)
        return found | {"raw_scale": self._raw(scale), "regression": regression}

    def exact_log_likelihood(self, params: Params, x: np.ndarray) -> np.ndarray:
        """log p(x) of each row [N], in nats, for x [N, *event_shape]."""
        return np.asarray(np.logaddexp.reduce(self._log_joint(params, x), axis=1))

    def exact_posterior(self, params: Params, x: np.ndarray) -> np.ndarray:
        """p(c|x), the responsibilities [N, C]."""
        joint = self._log_joint(params, x)
        return np.asarray(np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)))

    def e_step(self, params: Params, x: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics of p(c|x), summed over data. With r = p(c|x) and d = x − μ_c, both at `params`:

        `count` N, `log_likelihood` Σ log p(x), `taken` Σ r [C], `first` Σ r d [C, X] and `second` Σ r ddᵀ [C, X, X].
        `second` is for "tied" the sum over c [1, X, X], for "diagonal" the diagonal [C, X], for "spherical" the mean of
        the diagonal [C, 1].
        """
        joint = self._log_joint(params, x)
        each = np.logaddexp.reduce(joint, axis=1)
        taken = np.exp(joint - each[:, None]).T
        off = _flat(x) - np.asarray(params["loc"], float)[:, None]
        return {
            "count": np.asarray(float(len(x))),
            "log_likelihood": np.asarray(each.sum()),
            "taken": taken.sum(1),
            "first": (taken[:, None] @ off)[:, 0],
            "second": second_moments(self.covariance, taken, off),
        }

    def m_step(self, params: Params, statistics: Params) -> dict[str, np.ndarray]:
        """All parameters, jointly the maximum of Σ E[log p(x, c)]: Dempster, Laird & Rubin 1977.

        s is at least min_scale + 1e-6, and the other parameters are the maximum under that floor. So the log-likelihood
        never falls if the start is not below the floor, but it may end lower than that of a mixture without a floor. A
        component that has less than 2e-15 of a row keeps its mean and covariance, and gets the weight of that share.

        Args:
            params: the parameters of the E-step; the statistics are relative to them.
            statistics: sums of what `e_step` gives.
        """
        lost, taken = statistics["taken"] < _LEAST_COUNT, np.maximum(statistics["taken"], _LEAST_COUNT)
        shift = np.where(lost[:, None], 0.0, statistics["first"] / taken[:, None])
        found = {"weight_logits": np.log(taken / statistics["count"]), "loc": params["loc"] + shift}
        scatter = statistics["second"] - second_moments(self.covariance, taken[:, None], shift[:, None])
        if self.covariance in ("full", "tied"):
            total = statistics["count"] if self.covariance == "tied" else taken[:, None, None]
            found["regression"], scale = regressions(scatter / total)
        else:
            scale = np.sqrt(np.maximum(scatter / taken[:, None], 0.0))
        found["raw_scale"] = self._raw(scale)
        if self.covariance != "tied":
            for name in found.keys() - {"weight_logits", "loc"}:
                found[name][lost] = params[name][lost]
        return found

    def _log_joint(self, params: Params, x: np.ndarray) -> np.ndarray:
        """log p(x, c), [N, C]."""
        p = {n: np.asarray(v, float) for n, v in params.items()}
        off = _flat(x) - p["loc"][:, None]
        scale = self.min_scale + np.logaddexp(0.0, p["raw_scale"])[:, None]
        if "regression" in p:
            off = off - off @ np.swapaxes(np.tril(p["regression"], -1), 1, 2)
        each = -0.5 * (off / scale) ** 2 - np.log(scale) - 0.5 * log(2 * pi)
        log_weights = p["weight_logits"] - np.logaddexp.reduce(p["weight_logits"])
        return np.asarray(each.sum(-1).T + log_weights)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, float).reshape(len(x), -1)


def _spread_rows(rng: np.random.Generator, shape: tuple[int, ...], data: Params | None) -> np.ndarray:
    """Rows that are far apart: each is chosen in proportion to its squared distance from the rows chosen before.

    Arthur & Vassilvitskii 2007 (k-means++). Standard normals if there are no data.
    """
    if data is None:
        return rng.normal(size=shape)
    x = _flat(data["x"])
    rows = [x[rng.integers(len(x))]]
    while len(rows) < shape[0]:
        distance = np.min([((x - row) ** 2).sum(1) for row in rows], axis=0)
        chance = distance / distance.sum() if distance.any() else None
        rows.append(x[rng.choice(len(x), p=chance)])
    return np.array(rows)
