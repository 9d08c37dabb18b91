"""Gradient estimators: the score function with its baselines, and readings whose guide's densities are stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.engine import State
from ppdgm.language.reader import Gradients
from ppdgm.language.step import OWN, Step
from ppdgm.language.vocabulary import Array, Trace

Baseline = Literal["auto", "none", "running", "leave_one_out", "learned"]
Bound = Callable[[Array], Array]  #: terms [K, …, B] -> [..., B], over the first axis

HIDDEN = 64  #: units of a learned baseline
DECAY = 0.9  #: of a running baseline
_RUNNING = f"{OWN}baseline"
_LEARNED = [f"{OWN}baseline.{n}" for n in ("w1", "b1", "w2", "b2")]


def gradients_of(estimator: str) -> Gradients:
    """How gradients pass through draws, for an estimator by name."""
    if estimator == "enumerate":
        return Gradients(relaxed=False, enumerate=True)
    if estimator in ("score", "vimco"):
        return Gradients(relaxed=False, scored=[])
    return Gradients(scored=[] if estimator == "auto" else None, loose=[] if estimator == "relaxed" else None)


def check_estimator(step: Step, trace: Trace, estimator: str) -> None:
    """Refuse, after a reading, an estimator that has no effect."""
    if estimator == "enumerate" and trace.marginal is None:
        raise ProgramError(
            "estimator='enumerate' is for discrete latents in the guide, but this program has none. Use 'reparam', "
            "or leave estimator out."
        )
    if estimator == "relaxed" and not (step.gradients and step.gradients.loose):
        raise ProgramError(
            "estimator='relaxed' is for discrete latents that are relaxed in training (GumbelSoftmax, "
            "RelaxedBernoulli), but this program has none. Use 'reparam', or leave estimator out."
        )
    if estimator in ("score", "vimco") and not step.scored:
        raise ProgramError(
            f"estimator={estimator!r} is for latents that are not reparameterised, but every latent of this program "
            "is reparameterised. Use 'reparam', which has a much smaller variance, or leave estimator out."
        )


def check_exact(step: Step, engine: str) -> None:
    """Refuse, after a reading, terms that are only estimated: log w is not unbiased then, and no bound follows."""
    if step.minibatch.estimated:
        raise ProgramError(
            f"{engine} weighs draws by p(x, z) / q(z|x), which needs exact log-densities, but training estimates "
            f"{step.minibatch.estimated[0]}. Or use SVI."
        )


def total(terms: Mapping[str, Array], names: list[str]) -> Array:
    """Σ of the named sites' terms."""
    return sum((terms[n] for n in names[1:]), start=terms[names[0]])


def held(step: Step, trace: Trace) -> dict[str, Array]:
    """A reading's latents, without their gradient."""
    return {n: step.stop_gradient(v) for n, v in trace.values.items() if n in trace.log_q}


def stopped(step: Step, trace: Trace) -> Trace:
    """The same draws, scored by a guide whose densities carry no gradient to its parameters.

    This leaves out ∇ log q(z; φ), whose mean is zero (sticking the landing, Roeder et al. 2017, arXiv:1703.09194).
    """
    drawn = {n: v for n, v in trace.values.items() if n in trace.log_q or n in trace.shared}  # shared ones too
    return step.trace(given=drawn, stopped=True)


def with_scaled_draws(step: Step, trace: Trace, factor: Array) -> Trace:
    """The same, with gradients through the draws times `factor` [K, B]: doubly reparameterised (Tucker et al. 2019).

    arXiv:1810.04152; for Rényi bounds Daudel et al. 2023, arXiv:2210.06226.
    """

    def rescale(z: Array) -> Array:
        return step.scale_gradient(z, step.xp.reshape(factor, (*factor.shape, *(1,) * (z.ndim - 2))))

    drawn = [n for n in trace.log_q if n in trace.values]  # other values come from the reading
    return step.trace(given={n: rescale(trace.values[n]) for n in drawn}, stopped=True)


def score(step: Step, trace: Trace, signal: Array) -> Array:
    """Σ_k signal_k log q(z_k) of the scored sites, [K, B]; its value is 0, and its gradient is the estimator's."""
    log_q = total(trace.log_q, step.scored)
    stop = step.stop_gradient
    return stop(signal) * (log_q - stop(log_q))


def score_of_penalties(step: Step, trace: Trace, weights: Array) -> Array | float:
    """−Σ_k 1/K (r_k − r̄ without k) ∇ log q(z_k) for penalties r of draws without a gradient; its value is 0.

    Args:
        step, trace: of K draws.
        weights: [B].
    """
    found: Array = bounds.penalties(trace, step.xp)
    k = next(iter(trace.log_q.values())).shape[0]
    if found.ndim < 2 or found.shape[0] != k:
        return 0.0  # the same for all draws
    others = (step.xp.sum(found, axis=0) - found) / (k - 1) if k > 1 else 0.0
    return -bounds.mean(score(step, trace, found - others), weights, step.xp)


def without(step: Step, terms: Array, bound: Bound, replace: bool) -> Array:
    """`bound` of K terms without the k-th, or with the mean of the others in its place (VIMCO), [K, …, B].

    Mnih & Rezende 2016, arXiv:1602.06725.
    """
    xp, k = step.xp, terms.shape[0]
    if k < 2:
        raise ProgramError(
            "baseline='leave_one_out' needs at least two particles. Give k=2 or more, or baseline='running'."
        )
    if not replace:
        return xp.stack([bound(xp.concat([terms[:i], terms[i + 1 :]], axis=0)) for i in range(k)])
    others = (xp.sum(terms, axis=0) - terms) / (k - 1)
    number = xp.cumulative_sum(xp.ones_like(terms[..., :1]), axis=0)  # of each particle, on the terms' device

    def some(of: Array, others: Array) -> Array:
        return bound(xp.where(number[:, None] == of, others[None], terms[:, None]))  # [K (terms), K (replaced), …]

    if step.chunk is None or k <= step.chunk:
        return some(number, others)
    return step.by_chunks(some, (number, others), step.chunk)  # [K, K, …] would not be flat in K


def baseline(step: Step, kind: str, like: Array) -> Array:
    """The baseline [B] or [] of a row's objective, with its gradient if it is learned."""
    if kind == "running":
        return step.params[_RUNNING] if _RUNNING in step.params else 0.0 * like[0, 0]
    if kind != "learned":
        return 0.0 * like[0]
    rows = step.rows()
    x = rows[first_field(rows)]
    w1, b1, w2, b2 = (step.params[n] for n in _LEARNED)
    flat = step.xp.reshape(x, (x.shape[0], -1))
    flat = step.xp.astype(flat, w1.dtype) if hasattr(step.xp, "astype") else flat
    return (step.xp.tanh(flat @ w1 + b1) @ w2 + b2)[:, 0]


def first_field(fields: Mapping[str, Array]) -> str:
    """The field that a learned baseline reads: x, or the first by name, because JAX sorts dictionaries by name."""
    return "x" if "x" in fields else min(fields)


def first_state(kind: str, width: int) -> dict[str, State]:
    """First values of a baseline's own parameters, which move with the guide's, or number."""
    if kind == "running":
        return {_RUNNING: State(np.zeros((), np.float32))}
    if kind != "learned":
        return {}
    rng = np.random.default_rng(0)
    shapes = (width, HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,)
    values = [rng.normal(size=s) * s[0] ** -0.5 * (len(s) > 1) for s in shapes]  # biases start at 0
    return {n: State(v.astype(np.float32), label="guide") for n, v in zip(_LEARNED, values, strict=True)}


def moved(step: Step, value: Array) -> dict[str, Array]:
    """The running baseline's new value: c ← c + (1 − d)(value − c)."""
    if _RUNNING not in step.params:
        return {}
    now = step.params[_RUNNING]
    moved = now + (1.0 - DECAY) * (step.stop_gradient(value) - now)
    return {_RUNNING: step.xp.astype(moved, now.dtype)}
