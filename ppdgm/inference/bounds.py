"""Bounds as pure functions of a trace's per-site, per-datum terms, over any array namespace.

Particles are the first axis, data the second; a plate's scale N/B never enters here.
"""

from __future__ import annotations

from typing import Any

from ppdgm.errors import ProgramError
from ppdgm.language import Array, Trace


def log_weights(trace: Trace, xp: Any) -> Array:
    """log w = Σ log p − Σ log q, [K, B], with enumerated sites summed out.

    Raises:
        ProgramError: a latent lies outside the data plate, so that log w does not split over data.
    """
    if trace.shared:
        raise ProgramError(
            f"Site {next(iter(trace.shared))!r} is one latent for all data, so there is no log-weight per datum. Train "
            "such a program with SVI and judge it by elbo()."
        )
    if trace.marginal is not None:
        return trace.marginal
    return sum(trace.log_p.values()) - sum(trace.log_q.values())


def reconstruction(trace: Trace, xp: Any) -> Array:
    """log p of the observed sites, [K, B]."""
    observed = [v for n, v in trace.log_p.items() if n not in trace.log_q]
    if not observed:
        raise ProgramError("No observed site inside the data plate. Give one obs=… in the model.")
    return sum(observed)


def kl(trace: Trace, xp: Any) -> Array:
    """The latent sites' KL(q‖p), [K, B]: closed forms where the trace has them, else log q − log p."""
    terms = [
        xp.sum(trace.kl[n], axis=-1) if n in trace.kl else log_q - trace.log_p[n] for n, log_q in trace.log_q.items()
    ]
    like = next(iter(trace.log_p.values()))
    return sum(terms, start=0.0 * like)


def elbo(trace: Trace, xp: Any, beta: Any = 1.0) -> Array:
    """Reconstruction − β KL, [K, B]. Its mean over K estimates the ELBO (β = 1)."""
    return reconstruction(trace, xp) - beta * kl(trace, xp)


def shared(trace: Trace, xp: Any) -> Array | float:
    """Σ log p − log q of the sites outside the data plate, averaged over particles; 0 where there are none."""
    return sum(xp.mean(v) for v in trace.shared.values()) if trace.shared else 0.0


def shared_kl(trace: Trace, xp: Any) -> Array | float:
    """Σ log q − log p of the latents among them, averaged over particles; 0 where there are none."""
    return -sum(xp.mean(v) for n, v in trace.shared.items() if n in trace.values)


def penalties(trace: Trace, xp: Any) -> Array | float:
    """What training makes small beside the bound, [B] or [K, B]; 0 where there is nothing."""
    return sum((trace.penalties or {}).values())
