"""Covariances of the components of a mixture: from weighted data, and as regressions."""

from __future__ import annotations

import numpy as np

_DETERMINED = 1e-12  # share of a dimension's variance
_CONSTANT = 1e-12  # share of the largest dimension's variance: less is rounding


def second_moments(kind: str, weights: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Σ r ddᵀ over data for weights r [C, N] and off d [C, N, X]: [C, X, X].

    "tied" gives its sum over components [1, X, X], "diagonal" its diagonal [C, X], "spherical" the mean of that [C, 1].
    """
    if kind in ("full", "tied"):
        each = np.swapaxes(weights[:, :, None] * off, 1, 2) @ off
        return each.sum(0, keepdims=True) if kind == "tied" else each
    each = np.einsum("cn,cnx,cnx->cx", weights, off, off)
    return each.mean(1, keepdims=True) if kind == "spherical" else each


def regressions(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A [C, X, X] and s [C, X] with (I − A) Σ (I − A)ᵀ = diag(s²), for Σ [C, X, X]: Pourahmadi 1999.

    Σ may be singular: a dimension that is determined by the ones before it has s = 0 and no effect on those after it.
    """
    found = [_regression(each) for each in covariance]
    return np.array([regression for regression, _ in found]), np.array([scale for _, scale in found])


def of_root(root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, from the Cholesky factor of Σ [..., X, X]."""
    scale = np.diagonal(root, axis1=-2, axis2=-1)
    return np.eye(root.shape[-1]) - scale[..., None] * np.linalg.inv(root), scale


def _regression(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    least = _least(covariance)
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        root = np.zeros_like(covariance)
    if (np.diagonal(root) ** 2 > least).all():
        return of_root(root)
    lower, variance = _eliminate(covariance, least)
    identity = np.eye(len(covariance))
    return identity - np.linalg.inv(identity + lower), np.sqrt(variance)


def _least(covariance: np.ndarray) -> np.ndarray:
    """The limit of each dimension's variance, given those before it, up to which it counts as 0, [X]."""
    variance = np.maximum(np.diagonal(covariance), 0.0)
    return _DETERMINED * np.maximum(variance, _CONSTANT * variance.max(initial=0.0))


def _eliminate(covariance: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of L below its diagonal of ones [X, X], and d [X], with Σ = L diag(d) Lᵀ."""
    lower, variance, left = np.zeros_like(covariance), np.zeros(len(covariance)), covariance.copy()
    for j in range(len(left)):
        if left[j, j] > least[j]:
            variance[j], lower[j + 1 :, j] = left[j, j], left[j + 1 :, j] / left[j, j]
            left[j + 1 :, j + 1 :] -= np.outer(lower[j + 1 :, j], left[j, j + 1 :])
    return lower, variance
