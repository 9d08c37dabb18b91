"""The normalising constant of a target, by importance sampling from a density that was fitted to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppdgm.diagnostics import weight_quality
from ppdgm.diagnostics.log_mean import log_mean
from ppdgm.errors import ProgramError
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.engines.reverse import ReverseKL

MOST_K = 0.7  # above it, draws do not cover the target
HEAVY_K = 0.5  # above it, weights have no variance, so that the error estimated from draws is too small


@dataclass(frozen=True)
class Normaliser:
    """What draws x of q say about π = π̃/Z, with w = π̃(x)/q(x).

    Attributes:
        log_z: log Z = log E_q[w], nats; in expectation, it is too low.
        error: its Monte Carlo error, which is too small if k̂ is above 0.5: then w has no variance.
        kl: KL(q ‖ π) = log Z − E_q[log w], nats.
        kl_error: its Monte Carlo error.
        effective_sample_size: (Σ w)² / Σ w².
        pareto_k: k̂: above 0.7, q does not cover π, and log Z is only a lower bound. Vehtari et al. 2024,
            arXiv:1507.02646.
        draws: their number.
        log_weights: log w, [draws].
    """

    log_z: float
    error: float
    kl: float
    kl_error: float
    effective_sample_size: float
    pareto_k: float
    draws: int
    log_weights: np.ndarray

    @property
    def covered(self) -> bool:
        """Whether k̂ shows no sign that q leaves out a part of π. A mode that no draw has found shows no sign."""
        return not self.pareto_k > MOST_K

    def __str__(self) -> str:
        rest = "" if not self.pareto_k > HEAVY_K else ": log Z may be too low by many errors, as tails of w are heavy"
        rest = rest if self.covered else ": only a lower bound, because q does not cover the target"
        return (
            f"log Z = {self.log_z:.4f} ± {self.error:.4f} nats, KL(q ‖ π) = {self.kl:.4f} ± {self.kl_error:.4f} nats "
            f"(K = {self.draws}, effective sample size {self.effective_sample_size:.0f}, k̂ = {self.pareto_k:.2f}{rest})"
        )


def reverse_of(engine: object) -> ReverseKL:
    """The engine of a run's last phase.

    Raises:
        ProgramError: the engine was fitted to data, and to no target.
    """
    phases = engine.phases() if isinstance(engine, Engine) else ()
    last = phases[-1].engine if phases else None
    if not isinstance(last, ReverseKL):
        raise ProgramError(
            "normaliser: is for a program that ReverseKL(target=…) fitted, because there is a log Z only of a target. "
            "Use log_likelihood(data)."
        )
    return last


def normaliser_of(log_weights: np.ndarray) -> Normaliser:
    """The numbers of log-weights [K].

    Raises:
        ProgramError: some are NaN or +∞.
    """
    log_w = np.asarray(log_weights, np.float64)[:, None]
    if wrong := int((np.isnan(log_w) | (log_w == np.inf)).sum()):
        raise ProgramError(
            f"target: at {wrong} of {len(log_w)} draws, log π̃(x) − log q(x) is NaN or +∞. A log-density is finite, or "
            "−∞ where x is impossible."
        )
    (log_z,), (error,), _ = log_mean(log_w)
    quality, count = weight_quality(log_w), len(log_w)
    finite = bool(np.isfinite(log_w).all())  # where q draws what π has not, the KL is infinite
    mean, spread = float(log_w.mean()), float(log_w.std()) if finite else np.inf
    return Normaliser(
        float(log_z), float(error), float(log_z) - mean, spread / count**0.5,
        float(quality.effective_sample_size[0]), float(quality.pareto_k[0]), count, log_w[:, 0],
    )  # fmt: skip
