"""The best Gaussian posterior of each row, fitted separately; an encoder is compared with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ppdgm.inference.evaluation.gaussian import RowGaussians
from ppdgm.inference.evaluation.joint import Joint

Family = Literal["diagonal", "full"]
TOGETHER = 50  # draws that are evaluated at once: one shape, which is compiled once


@dataclass(frozen=True)
class Refitted:
    """The result for each row's best posterior.

    Attributes:
        elbo: its ELBO, [B], nats.
        errors: the Monte Carlo errors of these, [B].
        posterior: the posterior itself.
    """

    elbo: np.ndarray
    errors: np.ndarray
    posterior: RowGaussians


def refit(
    joint: Joint,
    draws: np.ndarray,
    family: Family = "diagonal",
    steps: int = 400,
    particles: int = 8,
    judged: int = 1000,
    rate: float = 0.05,
    seed: int = 0,
    told: Callable[[float], None] | None = None,
) -> Refitted:
    """max over N(m, LLᵀ) of E[log p(x, z)] + entropy, for each row; Adam, started after one Newton step.

    Cremer et al. 2018, arXiv:1801.03558. Only the path's gradient is used; it has no noise if the family contains
    the posterior (Roeder et al. 2017, arXiv:1703.09194).

    Args:
        joint: of the program at B rows.
        draws: of the guide, from which it starts, [S, B, D].
        family: of covariances.
        steps: of Adam, with a rate that falls to 0; in units of the guide's standard deviations.
        particles: draws of a step, an even number: each comes with its mirror image.
        judged: number of draws that the result is evaluated with.
        rate: at first.
        seed: of the draws.
        told: called with the share that is done.
    """
    rng, (_, size, width) = np.random.default_rng(seed), draws.shape
    mean, unit = draws.mean(0), draws.std(0, ddof=1) + 1e-8  # [B, D]
    root, shift = _curved(joint, draws, mean, unit, family)
    full = family == "full"
    values = {"shift": shift, "log": np.log(np.diagonal(root, axis1=1, axis2=2) if full else root)}
    if full:
        values["below"], lower = np.tril(root, -1), np.tril(np.ones((width, width)), -1)
    moments = {n: (np.zeros_like(v), np.zeros_like(v)) for n, v in values.items()}
    for step in range(1, steps + 1):
        half, now_at = rng.normal(size=(particles // 2, size, width)), _gaussian(values)
        noise = np.concatenate([half, -half])
        slope = joint(mean + unit * now_at.at(noise))[2] * unit + now_at.falling(noise)
        gradients = {"shift": slope.mean(0), "log": (slope * noise).mean(0) * np.exp(values["log"])}
        if full:
            gradients["below"] = np.einsum("sbi,sbj->bij", slope, noise) / len(noise) * lower
        now = rate * (1.0 - (step - 1) / steps)
        for n, gradient in gradients.items():
            moments[n], change = _adam(moments[n], gradient, step)
            values[n] = values[n] + now * change
        if told is not None:
            told(step / steps)
    found = _gaussian(values)
    best = RowGaussians(mean + unit * found.mean, (unit[..., None] if full else unit) * found.root)
    return Refitted(*_judged(joint, best, judged, rng), best)


def _curved(
    joint: Joint, draws: np.ndarray, mean: np.ndarray, unit: np.ndarray, family: Family
) -> tuple[np.ndarray, np.ndarray]:
    """Where to start in the guide's units, L and m [B, D]: one Newton step from the guide.

    If the posterior is normal, the slope of log p(x, z) is a − P ε, so that its regression on the guide's draws gives
    mean and precision. If there is no positive P, or there are too few draws, the start is the guide itself.
    """
    count, size, width = draws.shape
    root, shift = np.ones((size, width)), np.zeros((size, width))
    if family == "full":
        root = np.broadcast_to(np.eye(width), (size, width, width)).copy()
    if count <= 2 * width:
        return root, shift
    scaled = (draws - mean) / unit
    slopes = np.concatenate([joint(draws[i : i + TOGETHER])[2] for i in range(0, count, TOGETHER)]) * unit
    level = slopes.mean(0)
    for n in np.flatnonzero(np.isfinite(slopes).all((0, 2))):
        rise = -np.linalg.lstsq(scaled[:, n], slopes[:, n] - level[n], rcond=None)[0]
        precision = 0.5 * (rise + rise.T)
        values, vectors = np.linalg.eigh(precision)
        if values[0] > 1e-4 * max(1.0, values[-1]):
            covariance = (vectors / values) @ vectors.T
            shift[n] = covariance @ level[n]
            root[n] = np.linalg.cholesky(covariance) if family == "full" else np.diag(precision) ** -0.5
    way = np.linspace(0.0, 1.0, TOGETHER)[:, None, None]  # as far as the density rises
    with np.errstate(invalid="ignore", over="ignore"):
        prior, seen, _ = joint(mean + unit * way * shift)
    far = np.argmax(np.nan_to_num(prior + seen, nan=-np.inf), axis=0)
    return root, shift * way[far, 0]


def _judged(
    joint: Joint, posterior: RowGaussians, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The ELBO and its error, from pairs of draws that mirror one another."""
    pairs, (size, width) = [], posterior.mean.shape
    for _ in range(max(1, draws // TOGETHER)):
        half = rng.normal(size=(TOGETHER // 2, size, width))
        noise = np.concatenate([half, -half])
        prior, seen, _ = joint(posterior.at(noise))
        weights = prior + seen - posterior.log_density(noise)  # constant if the posterior is the row's exact one
        pairs.append(0.5 * weights.reshape(2, -1, size).sum(0))
    found = np.concatenate(pairs)
    return found.mean(0), found.std(0, ddof=1) / np.sqrt(len(found))


def _gaussian(values: dict[str, np.ndarray]) -> RowGaussians:
    scale = np.exp(values["log"])
    if "below" not in values:
        return RowGaussians(values["shift"], scale)
    return RowGaussians(values["shift"], values["below"] + scale[..., None] * np.eye(scale.shape[1]))


def _adam(
    moments: tuple[np.ndarray, np.ndarray], gradient: np.ndarray, step: int
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    first, second = 0.9 * moments[0] + 0.1 * gradient, 0.99 * moments[1] + 0.01 * gradient**2
    change = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return (first, second), change
