"""Bounds as pure functions of a trace's terms per site and row, over any array namespace.

Particles are the first axis, rows the second; no plate scale N/B enters here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, prod
from typing import TYPE_CHECKING

from ppdgm.errors import ProgramError
from ppdgm.language.vocabulary import Array, Namespace, Trace

if TYPE_CHECKING:
    from ppdgm.language.enumeration import LogSumExp


def log_weights(trace: Trace, xp: Namespace) -> Array:
    """log w = Σ log p − Σ log q, [K, B], with enumerated sites summed out.

    Raises:
        ProgramError: a latent lies outside the data plate, so log w does not split over rows.
    """
    if trace.shared and not any(n in trace.values for n in trace.shared):
        raise ProgramError(
            f"Site {next(iter(trace.shared))!r} is a factor or an observation outside the data plate: a term of all "
            "data can't be divided among the log-weights of rows. Put it inside the plate, row by row, or use "
            "elbo(data)."
        )
    if trace.shared:
        first = next(n for n in trace.shared if n in trace.values)
        raise ProgramError(
            f"Site {first!r} is one latent for all data, so there is no log-weight per row. Train such a program "
            "with SVI, and evaluate it with elbo(data); log_evidence(data) bounds log p of all rows together."
        )
    if trace.marginal is not None:
        return trace.marginal
    return sum(trace.log_p.values()) - sum(trace.log_q.values())


def reconstruction(trace: Trace, xp: Namespace) -> Array:
    """log p of the observed sites, [K, B]."""
    observed = [v for n, v in trace.log_p.items() if n not in trace.log_q]
    if not observed:
        raise ProgramError("The model has no observed site inside the data plate. Give one of its sites obs=….")
    return sum(observed)


def kl(trace: Trace, xp: Namespace) -> Array:
    """The latent sites' KL(q‖p), [K, B]: closed forms if the trace has them, else log q − log p."""
    terms = [
        xp.sum(trace.kl[n], axis=-1) if n in trace.kl else log_q - trace.log_p[n] for n, log_q in trace.log_q.items()
    ]
    like = next(iter(trace.log_p.values()))
    return sum(terms, start=xp.zeros_like(like))  # not 0 · log p, which is NaN if log p is −∞


def mean(terms: Array, weights: Array, xp: Namespace) -> Array:
    """Mean over particles, and over the rows that count: terms [K, B], weights [B]."""
    return xp.sum(xp.mean(terms, axis=0) * weights) / xp.sum(weights)


def renyi(log_w: Array, alpha: float, logsumexp: LogSumExp) -> Array:
    """1/(1 − α) log 1/K Σ_k w_k^(1−α) over the first axis: the importance-weighted bound at α = 0, the ELBO at α = 1.

    Li & Turner 2016, arXiv:1602.02311; Burda et al. 2016, arXiv:1509.00519.
    """
    if alpha == 1.0:
        return log_w.mean(0)
    return (logsumexp((1.0 - alpha) * log_w, 0) - log(log_w.shape[0])) / (1.0 - alpha)


def kl_parts(trace: Trace, xp: Namespace, weights: Array, per: str, of: str) -> tuple[dict[str, Array], Array | float]:
    """The KL of each site or dimension, for each "datum" [B, D] or the mean over the "batch" [1, D]; and its weights.

    Raises:
        ProgramError: for dimensions, if a latent's closed form is not split into dimensions.
    """
    found = {}
    share = (weights / xp.sum(weights))[:, None]
    for name, log_q in trace.log_q.items():
        if per == "dimension":
            _check_dimensions(trace, name)
        term = trace.kl[name] if name in trace.kl else (log_q - trace.log_p[name])[..., None]
        if per == "site":
            term = xp.sum(term, axis=-1, keepdims=True)
        each = xp.mean(xp.broadcast_to(term, (*log_q.shape, term.shape[-1])), axis=0)
        found[name] = xp.sum(each * share, axis=0, keepdims=True) if of == "batch" else each
    return found, 1.0 if of == "batch" else share


def _check_dimensions(trace: Trace, name: str) -> None:
    if name not in trace.kl:
        raise ProgramError(
            f"Site {name!r} has no closed-form KL that is valid here, so there is no KL per dimension. Use "
            "free_bits_per='site', with λ for the whole site."
        )
    parts = trace.kl[name].shape[-1]
    size = 1 if trace.marginal is not None else prod(trace.values[name].shape[2:])
    if parts == 1 < size:
        raise ProgramError(
            f"Site {name!r} has {size} dimensions that depend on each other (for example through a full covariance), "
            "so its KL does not split into dimensions. Use free_bits_per='site', with λ for the whole site."
        )


def floored(parts: Mapping[str, Array], share: Array | float, xp: Namespace, floor: float) -> Array | float:
    """Σ max(λ, KL) over sites or dimensions; the mean over rows. See `kl_parts`."""
    return sum(xp.sum(xp.where(kl > floor, kl, 0.0 * kl + floor) * share) for kl in parts.values())


def elbo_terms(trace: Trace, xp: Namespace) -> tuple[Array, Array]:
    """Reconstruction and KL, [K, B]: the ELBO that training climbs and the reported one are both made of these."""
    return reconstruction(trace, xp), kl(trace, xp)


def elbo(trace: Trace, xp: Namespace, beta: Array | float = 1.0) -> Array:
    """Reconstruction − β KL, [K, B]. Its mean over K estimates the ELBO (β = 1)."""
    seen, latent = elbo_terms(trace, xp)
    return seen - beta * latent


def weighed(trace: Trace, scales: Mapping[str, float]) -> Trace:
    """Each site's terms times its scale: the objective of a plain pair that scales its sites, but not a bound."""
    by = lambda part: {n: v * scales.get(n.removesuffix(" (guide)"), 1.0) for n, v in part.items()}
    return trace._replace(log_p=by(trace.log_p), log_q=by(trace.log_q), kl=by(trace.kl), shared=by(trace.shared))


def shared(trace: Trace, xp: Namespace) -> Array | float:
    """Σ log p − log q of the sites outside the data plate, averaged over particles; 0 if there are none."""
    return sum(xp.mean(v) for v in trace.shared.values()) if trace.shared else 0.0


def shared_kl(trace: Trace, xp: Namespace) -> Array | float:
    """Σ log q − log p of the latents among them, averaged over particles; 0 if there are none."""
    return -sum(xp.mean(v) for n, v in trace.shared.items() if n in trace.values)


def penalties(trace: Trace, xp: Namespace) -> Array | float:
    """The terms that training minimises in addition to the bound, [B] or [K, B]; 0 if there are none."""
    return sum((trace.penalties or {}).values())
