"""Annealed importance sampling: chains of Hamiltonian Monte Carlo from the prior to the posterior, and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Density = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray, np.ndarray]]
ACCEPT, GAIN = 0.65, 0.1  # the acceptance that step sizes are adapted to, and how fast their logarithms move


def inverse_temperatures(count: int) -> np.ndarray:
    """β_0 = 0 < … < β_T = 1, close together at both ends: a sigmoid, as in Wu et al."""
    s = 1.0 / (1.0 + np.exp(-4.0 * np.linspace(-1.0, 1.0, count + 1)))
    return (s - s[0]) / (s[-1] - s[0])


def anneal(
    joint: Density,
    start: np.ndarray,
    beta: np.ndarray,
    num_leapfrog: int = 10,
    seed: int = 0,
    steps: np.ndarray | None = None,
    reverse: bool = False,
    told: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-weights of chains through p(z) p(x|z)^β: E[e^f] = p(x) forward, E[e^r] = 1/p(x) in reverse.

    Neal 2001, arXiv:physics/9803008; Wu et al. 2017, arXiv:1611.04273; Grosse et al. 2015, arXiv:1511.02543.

    Args:
        joint: of the program at B rows: log p(z), log p(x|z) and the slope of log p(z) + β log p(x|z); or the same for
            any two densities: the logarithm of one, and the logarithm of their ratio.
        start: draws of the prior, or in reverse of the posterior, [C, B, D].
        beta: [T + 1], from 0 to 1.
        num_leapfrog: leapfrog steps of a move, one move for each β.
        seed: of the draws.
        steps: ε for each β and row, [T + 1, B]. Without it they are adapted on the way, and the weights are only
            roughly right: this is a pilot run, and the real run uses its step sizes.
        reverse: from β = 1 to 0.
        told: called with the share that is done.

    Returns:
        Log-weights [C, B], and the step sizes [T + 1, B].
    """
    rng, z, width = np.random.default_rng(seed), start, start.shape[2]
    used = np.full((len(beta), start.shape[1]), 0.5 / width**0.25) if steps is None else steps
    weights, order = np.zeros(start.shape[:2]), range(len(beta) - 1, 0, -1) if reverse else range(1, len(beta))
    _, seen, _ = joint(z, 1.0)
    for count, t in enumerate(order):
        change = (beta[t - 1] - beta[t]) if reverse else (beta[t] - beta[t - 1])
        if not reverse:
            weights += change * seen
        if reverse or t < len(beta) - 1:  # a last move would change nothing
            z, seen, accepted = _move(joint, z, float(beta[t]), used[t], num_leapfrog, rng)
            if steps is None and t + 1 < len(beta):
                used[t + 1] = used[t] * np.exp(GAIN * (accepted.mean(0) - ACCEPT))
        if reverse:
            weights += change * seen
        if told is not None:
            told((count + 1) / (len(beta) - 1))
    return weights, used


def _move(
    joint: Density, z: np.ndarray, beta: float, step: np.ndarray, num_leapfrog: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One move of each chain, accepted or not for each chain: its end, log p(x|z) there, and the acceptance [C, B]."""
    epsilon = step[None, :, None]
    prior, seen, slope = joint(z, beta)
    before = prior + beta * seen
    momentum = rng.normal(size=z.shape)
    kinetic = 0.5 * (momentum**2).sum(2)
    new, p, new_slope, at = z, momentum, slope, (prior, seen)
    with np.errstate(over="ignore", invalid="ignore"):  # a trajectory that diverges is not accepted
        for _ in range(num_leapfrog):
            p = p + 0.5 * epsilon * new_slope
            new = new + epsilon * p
            first, second, new_slope = joint(new, beta)
            at = first, second
            p = p + 0.5 * epsilon * new_slope
        change = at[0] + beta * at[1] - before - 0.5 * (p**2).sum(2) + kinetic
        probability = np.exp(np.minimum(np.nan_to_num(change, nan=-np.inf), 0.0))
    taken = rng.random(probability.shape) < probability
    return np.where(taken[..., None], new, z), np.where(taken, at[1], seen), probability
