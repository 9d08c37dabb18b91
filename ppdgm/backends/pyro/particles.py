"""Ways of reading a plain pair for K particles if a plate of particles does not work."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ppdgm.errors import ProgramError
from ppdgm.language.vocabulary import Array, Batch, Trace

Values = Mapping[str, Array]
Read = Callable[[Batch, Array, Values], Trace]  #: one particle: (batch, index, given) -> its terms
TOLERANCE = 1e-4  #: relative; two ways of reading the same draws must agree up to this
STIR = 0.05  #: for parameters whose numbers are all equal, such as zeros, with which any two ways may agree


def one_at_a_time(read: Read, k: int, batch: Batch, index: Array, given: Values) -> Trace:
    """K runs."""
    runs = [read(batch, index, {n: v[i : i + 1] for n, v in given.items()}) for i in range(k)]
    if k == 1:
        return runs[0]
    parts = zip(*(run[:5] for run in runs), strict=True)  # a plain pair has only these, and those below
    values, log_p, log_q, kl, shared = ({n: torch.cat([part[n] for part in same]) for n in same[0]} for same in parts)
    marginals = [run.marginal for run in runs if run.marginal is not None]
    marginal = torch.cat(marginals) if marginals else None
    return Trace(values, log_p, log_q, kl, shared, marginal, points=runs[0].points)


def as_more_data(read: Read, k: int, batch: Batch, index: Array, given: Values) -> Trace:
    """One run with each row K times: nets see no more dimensions than usual."""
    b = len(index)
    rows = {n: a.repeat(k, *(1,) * (a.ndim - 1)) for n, a in batch.items()}
    trace = read(rows, index.repeat(k), {n: v.reshape(1, k * b, *v.shape[2:]) for n, v in given.items()})
    if trace.shared:
        raise ProgramError(
            "A latent that all data share is drawn once for each particle, so particles can't be read as more rows."
        )
    apart = lambda t: t if t.shape[1] == 1 < k * b else t.reshape(k, b, *t.shape[2:])  # values of an enumerated site
    values, log_p, log_q, kl, shared = ({n: apart(t) for n, t in part.items()} for part in trace[:5])
    marginal = None if trace.marginal is None else apart(trace.marginal)
    return Trace(values, log_p, log_q, kl, shared, marginal, points=trace.points)


def stir_equal(params: Values) -> dict[str, Array]:
    """Parameters whose numbers are all equal, with a little noise, which does not use the user's generators."""
    noise, found = torch.Generator().manual_seed(0), {}
    for name, v in params.items():
        if v.is_floating_point() and v.numel() and bool((v == v.flatten()[0]).all()):
            by = torch.randn(v.shape, generator=noise, dtype=v.dtype).to(v.device)
            found[name] = v + STIR * by * torch.where(v == 0, torch.ones_like(v), v)
    return found


def agree(one: Trace, other: Trace) -> bool:
    """Whether two readings of the same draws give the same terms."""
    same = ((one.log_p, other.log_p), (one.log_q, other.log_q), (one.shared, other.shared))
    pairs = [(a[n], b[n]) for a, b in same for n in a]
    return all(bool(((a - b).abs() <= TOLERANCE * (1.0 + a.abs())).all()) for a, b in pairs)
