"""log p(x) of a few rows by importance sampling from the guide and more, and by annealing if that isn't enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, logsumexp

from ppdgm.diagnostics import weight_quality
from ppdgm.diagnostics.log_mean import log_mean
from ppdgm.inference.evaluation.annealing import anneal, inverse_temperatures
from ppdgm.inference.evaluation.gaussian import LOG_2_PI, RowGaussians
from ppdgm.inference.evaluation.joint import Joint
from ppdgm.inference.evaluation.refit import TOGETHER

FREEDOM, WIDER = 5.0, 1.2  # of the Student t, and how much wider than the Gaussian the t and the annealed start are
MOST_K, MOST_ERROR = 0.7, 0.3  # k̂ and nats of error: above one of them log p(x) is only a lower bound


@dataclass(frozen=True)
class Evidence:
    """log p(x) of B rows.

    Attributes:
        values: [B], nats.
        errors: its Monte Carlo errors, [B].
        known: [B]; if False, the value is only a lower bound, because the draws don't cover the posterior.
    """

    values: np.ndarray
    errors: np.ndarray
    known: np.ndarray


def evidence(
    joint: Joint,
    posterior: RowGaussians,
    drawn: np.ndarray | None,
    dreamt: np.ndarray | None,
    log_guide: Callable[[np.ndarray], np.ndarray],
    draws: int = 2000,
    temperatures: int = 100,
    num_leapfrog: int = 10,
    seed: int = 0,
) -> Evidence:
    """log 1/S Σ_s p(x, z_s) / m(z_s), z_s from the mixture m of a Gaussian, a Student t around it, guide and prior.

    The t is wider than the posterior in every direction. Guide and prior may cover other modes. With the mixture in the
    denominator none of them can do harm: multiple importance sampling with the balance heuristic, Veach & Guibas 1995;
    Owen & Zhou 2000. If k̂ shows that the mixture doesn't cover the posterior, annealed importance sampling is used,
    from the Gaussian, widened: Neal 2001, arXiv:physics/9803008.

    Args:
        joint: of the program at B rows.
        posterior: fitted to each row; of full covariance if that is possible.
        drawn: draws of the guide, [S, B, D]; None if the guide can't score other draws.
        dreamt: draws of the prior, [S, B, D]; None if it can't be drawn from.
        log_guide: log q(z|x) at [K, B, D], K = 50, of which all numbers of draws are multiples.
        draws: of the Gaussian and of the t together, at least 100.
        temperatures: of annealing.
        num_leapfrog: leapfrog steps at each.
        seed: of the draws.
    """
    rng, (size, width) = np.random.default_rng(seed), posterior.mean.shape
    half = max(1, draws // (2 * TOGETHER)) * TOGETHER
    given = [p for p in (drawn, dreamt) if p is not None]
    log_shares = np.log(np.array([half, half, *map(len, given)], float) / (2 * half + sum(map(len, given))))

    def drawings() -> Iterator[np.ndarray]:
        for _ in range(half // TOGETHER):
            yield posterior.at(rng.normal(size=(TOGETHER, size, width)))
        for _ in range(half // TOGETHER):
            scale = WIDER / np.sqrt(rng.chisquare(FREEDOM, size=(TOGETHER, size, 1)) / FREEDOM)
            yield posterior.at(scale * rng.normal(size=(TOGETHER, size, width)))
        for part in given:
            yield from np.split(part, len(part) // TOGETHER)

    weights = []
    for z in drawings():
        prior, seen, _ = joint(z)
        noise = posterior.noise(z)
        each = [posterior.log_density(noise), _log_student(noise / WIDER) - width * np.log(WIDER) - posterior.log_det]
        each += [] if drawn is None else [log_guide(z)]
        each += [] if dreamt is None else [prior]
        mixed = logsumexp(np.stack(each) + log_shares[:, None, None], axis=0)
        weights.append(prior + seen - mixed)
    log_weights = np.nan_to_num(np.concatenate(weights), nan=-np.inf, neginf=-np.inf)
    values, errors, _ = log_mean(log_weights)
    known = _known(errors, weight_quality(log_weights).pareto_k)
    if known.all():
        return Evidence(values, errors, known)
    chains, its_errors, _ = log_mean(_annealed(joint, posterior, temperatures, num_leapfrog, seed))
    missed = values > chains + 3.0 * np.hypot(errors, its_errors)  # say, a mode: both are too low rather than too high
    keep = known | missed
    found = np.where(keep, values, chains), np.where(keep, errors, its_errors)
    return Evidence(*found, known | (~missed & _known(its_errors, its_errors)))


def _known(errors: np.ndarray, k: np.ndarray) -> np.ndarray:
    return (errors < MOST_ERROR) & ~(k > MOST_K)


def _log_student(noise: np.ndarray) -> np.ndarray:
    """log t of D dimensions and FREEDOM degrees of freedom, of scale 1, [S, B]."""
    width, v = noise.shape[2], FREEDOM
    constant = gammaln(0.5 * (v + width)) - gammaln(0.5 * v) - 0.5 * width * np.log(v * np.pi)
    found: np.ndarray = constant - 0.5 * (v + width) * np.log1p((noise**2).sum(2) / v)
    return found


def _annealed(joint: Joint, posterior: RowGaussians, temperatures: int, num_leapfrog: int, seed: int) -> np.ndarray:
    """Log-weights of chains from the Gaussian, widened, to the posterior, [C, B]; in its own coordinates ε."""

    def density(noise: np.ndarray, beta: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        prior, seen, slope = joint(posterior.at(noise))
        start = -0.5 * (noise**2).sum(2) / WIDER**2 - noise.shape[2] * (0.5 * LOG_2_PI + np.log(WIDER))
        rise = prior + seen + posterior.log_det - start
        return start, rise, beta * posterior.pulled(slope) - (1.0 - beta) * noise / WIDER**2

    start = WIDER * np.random.default_rng(seed + 1).normal(size=(TOGETHER, *posterior.mean.shape))
    beta = inverse_temperatures(temperatures)
    _, steps = anneal(density, start, beta, num_leapfrog, seed + 2)  # a pilot, for the step sizes
    return anneal(density, start, beta, num_leapfrog, seed + 3, steps)[0]
