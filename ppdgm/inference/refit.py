"""The best Gaussian posterior of each datum by itself, against which an encoder is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ppdgm.diagnostics import log_mean_exp
from ppdgm.inference.joint import Joint

Family = Literal["diagonal", "full"]


@dataclass(frozen=True)
class Refitted:
    """What each datum's best posterior gives.

    Attributes:
        elbo: its ELBO, [B], nats.
        errors: the Monte Carlo errors of these, [B].
        log_likelihood: log p(x) by importance sampling from it, [B].
        likelihood_errors: the Monte Carlo errors of these, [B].
    """

    elbo: np.ndarray
    errors: np.ndarray
    log_likelihood: np.ndarray
    likelihood_errors: np.ndarray


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
    """max over N(m, LLᵀ) of E[log p(x, z)] + entropy, for each datum; Adam from the guide's own moments.

    Cremer et al. 2018, arXiv:1801.03558.

    Args:
        joint: of the program at B data.
        draws: of the guide, where it starts, [S, B, D].
        family: of covariances.
        steps: of Adam, at a rate that falls to 0; in units of the guide's standard deviations.
        particles: draws of a step, an even number: each comes with its mirror image.
        judged: draws by which the result is judged.
        rate: at first.
        seed: of the draws.
        told: called with the share that is done.
    """
    rng, (_, size, width) = np.random.default_rng(seed), draws.shape
    mean, unit = draws.mean(0), draws.std(0, ddof=1) + 1e-8  # [B, D]
    scaled = (draws - mean) / unit
    root = np.broadcast_to(np.eye(width), (size, width, width)).copy()
    if family == "full":
        covariance = np.einsum("sbi,sbj->bij", scaled, scaled) / len(draws)
        root = np.linalg.cholesky(covariance + 1e-3 * np.eye(width))
    below = np.tril(np.ones((width, width)), -1) if family == "full" else np.zeros((width, width))
    logs = np.log(np.diagonal(root, axis1=1, axis2=2))
    values = {"shift": np.zeros((size, width)), "log": logs, "below": root * below}
    moments = {n: (np.zeros_like(v), np.zeros_like(v)) for n, v in values.items()}

    def at(noise: np.ndarray) -> np.ndarray:
        spread = np.einsum("bij,sbj->sbi", _root(values), noise)
        return mean + unit * (values["shift"] + spread)

    for step in range(1, steps + 1):
        half = rng.normal(size=(particles // 2, size, width))
        noise = np.concatenate([half, -half])
        _, _, slope = joint(at(noise))
        slope = slope * unit / len(noise)
        outer = np.einsum("sbi,sbj->bij", slope, noise)
        diagonal = np.diagonal(outer, axis1=1, axis2=2) * np.exp(values["log"]) + 1.0
        gradients = {"shift": slope.sum(0), "log": diagonal, "below": outer * below}
        now = rate * (1.0 - (step - 1) / steps)
        for n, gradient in gradients.items():
            moments[n], change = _adam(moments[n], gradient, step)
            values[n] = values[n] + now * change
        if told is not None:
            told(step / steps)
    entropy = (values["log"] + np.log(unit)).sum(1) + 0.5 * width * (1.0 + np.log(2.0 * np.pi))
    weights = []
    for _ in range(max(1, judged // (2 * particles))):
        half = rng.normal(size=(particles, size, width))
        noise = np.concatenate([half, -half])
        prior, seen, _ = joint(at(noise))
        weights.append(prior + seen + entropy + 0.5 * ((noise**2).sum(2) - width))  # log q* = −entropy + (D − |ε|²)/2
    found = np.concatenate(weights)  # constant where the posterior is the datum's own
    pairs = 0.5 * (found.reshape(-1, 2, particles, size).sum(1)).reshape(-1, size)
    return Refitted(pairs.mean(0), pairs.std(0, ddof=1) / np.sqrt(len(pairs)), *log_mean_exp(found))


def _root(values: dict[str, np.ndarray]) -> np.ndarray:
    width = values["log"].shape[1]
    return values["below"] + np.exp(values["log"])[..., None] * np.eye(width)


def _adam(
    moments: tuple[np.ndarray, np.ndarray], gradient: np.ndarray, step: int
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    first, second = 0.9 * moments[0] + 0.1 * gradient, 0.99 * moments[1] + 0.01 * gradient**2
    change = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return (first, second), change
