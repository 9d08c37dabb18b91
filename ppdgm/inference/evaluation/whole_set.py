"""One log-weight for a whole set of data: for programs with latents that all rows share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppdgm.diagnostics import pareto_k
from ppdgm.diagnostics.log_mean import log_mean
from ppdgm.errors import ProgramError
from ppdgm.inference.evaluation.estimates import check_density
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites

CHUNK_DRAWS = 20_000  #: rows times particles of a chunk
RELIED = 0.7  #: k̂ above which no error is reliable (Vehtari et al. 2024, arXiv:1507.02646)


@dataclass(frozen=True)
class LogEvidence:
    """log 1/K Σ_k p(X, θ_k, Z_k) / q(θ_k, Z_k): a lower bound on log p(X) of all rows together, in expectation.

    Attributes:
        value: in nats.
        monte_carlo_error: its standard error over particles, by the jackknife.
        bias: its error in expectation, at least.
        pareto_k: k̂ of the K weights.
        k: K.
        size: N, rows of the set.
    """

    value: float
    monte_carlo_error: float
    bias: float
    pareto_k: float
    k: int
    size: int

    def __str__(self) -> str:
        doubt = "" if self.pareto_k < RELIED else f"; k̂ is {self.pareto_k:.2f}, so it may be much too low"
        return (
            f"{self.value:.3f} nats for all N = {self.size} rows together (k = {self.k}, Monte Carlo error "
            f"{self.monte_carlo_error:.3f}, too low by {max(-self.bias, 0.0):.3f} or more{doubt})"
        )


@dataclass(frozen=True)
class Whole:
    """K draws of the latents that all rows share, with their log-weights.

    Attributes:
        latents: by site, [K, 1, *event], and [K, N, *event] for latents of each row, given these.
        seen: log p(x|z) of each row, [K, N].
        log_weight: log p(X, θ, Z) − log q(θ, Z), of all rows, [K].
    """

    latents: Sites
    seen: np.ndarray
    log_weight: np.ndarray


def draw_whole_set(evaluator: Evaluator, k: int, name: str) -> Whole:
    """Draws of the guide for all rows: shared latents are drawn once, and each row's latents given those.

    Args:
        evaluator: program and data.
        k: K.
        name: the use of the draws.

    Raises:
        ProgramError: no latent is shared.
    """
    given: Sites = {}
    local: list[Sites] = []
    seen: list[np.ndarray] = []
    weight, ratio = np.zeros(k), np.zeros(k)  # for rows, and for the latents that they share
    for i, data, index, keep in evaluator.chunks(max(2, CHUNK_DRAWS // k)):
        trace = evaluator.runtime.trace(evaluator.params, data, index, k, evaluator.stream(name, i), given, False)
        check_density(trace)
        if not trace.shared:
            raise ProgramError(
                "This needs latents that all rows share, but there are none. Each row has its own bound: use "
                "log_likelihood(data)."
            )
        given = {n: trace.values[n] for n in trace.shared if n in trace.values}
        log_p, log_q = _total(trace.log_p, keep), _total(trace.log_q, keep)
        own = trace.marginal
        weight += log_p - log_q if own is None else np.asarray(own, np.float64)[:, :keep].sum(1)
        if i == 0:  # later the guide draws u of an autoguide's θ = f(u) again, which has no density at this θ
            ratio = np.asarray(sum(trace.shared.values()), np.float64)
        local.append({n: trace.values[n][:, :keep] for n in trace.log_q if n in trace.values})
        observed = [v for n, v in trace.log_p.items() if n not in trace.log_q]
        seen.append(sum(observed, np.zeros((k, len(index))))[:, :keep])
    each = {n: np.concatenate([part[n] for part in local], axis=1) for n in local[0]}
    return Whole(given | each, np.concatenate(seen, axis=1), weight + ratio)


def log_evidence(evaluator: Evaluator, k: int) -> LogEvidence:
    """The importance-weighted bound of all rows together; see `LogEvidence`."""
    terms = draw_whole_set(evaluator, k, "evidence").log_weight[:, None]
    value, error, bias = (float(v[0]) for v in log_mean(terms))
    return LogEvidence(value, error, bias, float(pareto_k(terms)[0]), k, evaluator.size)


def _total(terms: dict[str, np.ndarray], keep: int) -> np.ndarray | float:
    return sum(np.asarray(v, np.float64)[:, :keep].sum(1) for v in terms.values())
