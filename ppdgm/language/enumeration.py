"""Enumerated sites: all values of a discrete latent at once, along its own axis to the left of [K, B].

Axis i of the sites, in order, is at position −(3 + i). The guide's sites are averaged over with their probabilities;
sites that only the model has are summed out of the joint density.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import log, prod

from ppdgm.errors import ProgramError
from ppdgm.language.vocabulary import Array, Dist, Namespace

LIMIT = 10_000  #: joint values of all enumerated sites
ROUNDING = 1e-5  #: relative to 1 + |term|

Terms = dict[str, Array]
LogSumExp = Callable[[Array, int], Array]


def wanted(name: str, infer: Mapping[str, object] | None) -> bool:
    """Whether a site asks to be enumerated: at once ("parallel"); "sequential" is done in parallel too.

    Raises:
        ProgramError: it asks for something that is not supported.
    """
    how = (infer or {}).get("enumerate")
    if how not in (None, False, True, "parallel", "sequential"):
        raise ProgramError(f'Site {name!r}: got infer={{"enumerate": {how!r}}}, expected "parallel" or "sequential".')
    if how and (infer or {}).get("num_samples"):
        raise ProgramError(
            f'Site {name!r}: infer["num_samples"] draws some of its values, but enumeration in ppdgm sums over all of '
            'them. Leave num_samples out; or draw the site: leave "enumerate" out, and train with '
            "estimator='score'."
        )
    return bool(how)


def all_values(name: str, dist: Dist, sizes: Mapping[str, int], reshape: Callable[..., Array], width: int = 2) -> Array:
    """Every value of a site, [S, 1, …, 1, 1, *event], for the axes so far, which are to the left of `width` others.

    Raises:
        ProgramError: the distribution has infinitely many values, or there are too many joint values.
    """
    least = getattr(dist, "about", {}).get("count") or prod(dist.event_shape)  # the least number, known in advance
    values = _support(name, dist) if least <= LIMIT else None
    count = least if values is None else len(values)
    if (total := count * prod([*sizes.values()])) > LIMIT:
        raise ProgramError(
            f"Site {name!r}: enumeration would sum over {total} joint values; at most {LIMIT} are allowed. Use fewer "
            "latents or classes, or a relaxation, such as GumbelSoftmax."
        )
    return reshape(values, (count, *(1,) * (len(sizes) + width), *dist.event_shape))


def _support(name: str, dist: Dist) -> Array:
    try:
        if getattr(dist, "has_enumerate_support", False):
            return dist.enumerate_support(expand=False)
    except NotImplementedError:  # NumPyro's Independent says that it can
        pass
    while type(dist).__name__ in ("ExpandedDistribution", "MaskedDistribution"):
        dist = dist.base_dist
    raise ProgramError(
        f"Site {name!r}: {type(dist).__name__} can't be enumerated: it has infinitely many values, or the library does "
        "not list them. Use a Bernoulli or Categorical, or a site for each number; or remove infer={'enumerate': …}."
    )


def values_listed(dist: Dist) -> Array | None:
    """The values of a discrete distribution, or of one of its independent numbers, [S, *event]; None: not listed."""
    while hasattr(dist, "reinterpreted_batch_ndims"):
        dist = dist.base_dist
    try:
        values = dist.enumerate_support(expand=False) if getattr(dist, "has_enumerate_support", False) else None
    except NotImplementedError:
        return None
    return None if values is None else values.reshape((len(values), *dist.event_shape))


def leading(shape: tuple[int, ...], sizes: Mapping[str, int], width: int = 2) -> tuple[int, ...]:
    """The axes of enumerated sites in a batch shape, to the left of `width` others; empty if they don't fit."""
    lead = shape[: max(0, len(shape) - width)]
    fits = len(lead) <= len(sizes) and all(n in (1, s) for n, s in zip(lead[::-1], sizes.values(), strict=False))
    return lead if fits else ()


def clamped(log_prob: Array, axis: int, xp: Namespace) -> Array:
    """A site's log-probabilities over its values; masked ones, 0 for all values, become those of its first value.

    Its probabilities must sum to 1: with 0 for all S values, a masked row would gain log S.
    """
    if log_prob.ndim < -axis or log_prob.shape[axis] == 1:
        return log_prob
    before = (slice(None),) * (log_prob.ndim + axis)
    first, others = log_prob[(*before, slice(0, 1))], log_prob[(*before, slice(1, None))]
    masked = xp.all(log_prob == 0.0, axis=axis, keepdims=True)
    return xp.concat([first, xp.where(masked, -float("inf"), others)], axis=axis)


def log_sum(total: Array, own: Array, axis: int, xp: Namespace, logsumexp: LogSumExp) -> Array:
    """log Σ over the values of a site that only the model has; masked rows are as if all values had weight 1.

    A masked row to which the value makes no difference, such as one with a known label, gains nothing, not log S.

    Args:
        total: the site's log-probabilities and all that depends on it, [..., S, ..., K, B].
        own: the site's log-probabilities.
        axis: of its values.
        xp, logsumexp: the array operations.
    """
    found = logsumexp(total, axis)
    if own.ndim < -axis or own.shape[axis] == 1:
        return found
    most, least = xp.max(total, axis=axis), xp.min(total, axis=axis)
    without_effect = xp.all(own == 0.0, axis=axis) & (most - least <= ROUNDING * (1 + xp.abs(most)))
    return xp.where(without_effect, found - log(own.shape[axis]), found)


def sum_out(
    log_p: Mapping[str, Array],
    observed: Iterable[str],
    names: list[str],
    first: int,
    xp: Namespace,
    logsumexp: LogSumExp,
) -> Terms:
    """The model's terms with its own enumerated sites summed out: log Σ_c p(c) Π p(site|c).

    The terms that depend on c become one: that of the observed site among them, or of the last latent. Others become 0.

    Args:
        log_p: of all sites of the model, in its order.
        observed: sites.
        names: of the sites to sum out, in the order of their axes.
        first: the number of axes to the right of theirs, between them and K.
        xp, logsumexp: the array operations.
    """
    terms = dict(log_p)
    for i, name in reversed(list(enumerate(names))):
        axis = -(3 + first + i)
        inside = [n for n, t in terms.items() if t.ndim >= -axis and n != name]
        own = terms.pop(name)
        total = log_sum(sum((terms[n] for n in inside), start=own), own, axis, xp, logsumexp)
        if not inside:
            continue  # nothing depends on it: its probabilities sum to 1
        home = next((n for n in inside if n in set(observed)), inside[-1])
        for n in inside:
            terms[n] = total if n == home else xp.zeros_like(total)
    return terms


def most_probable(log_p: Array, sizes: list[int], xp: Namespace, logsumexp: LogSumExp) -> list[Array]:
    """For each enumerated site, the index of its most probable value, [K, B].

    Args:
        log_p: of all joint values, [Sₙ, …, S₁, K, B].
        sizes: S₁, …, Sₙ.
        xp, logsumexp: the array operations.
    """
    found = []
    for i in range(len(sizes)):
        alone = log_p
        for j in reversed(range(len(sizes))):  # the leftmost axis first
            if j != i:
                alone = logsumexp(alone, 0 if j > i else 1)
        found.append(xp.argmax(alone, axis=0))
    return found


def places(joint: Array, sizes: list[int]) -> list[Array]:
    """For each enumerated site, the index of its value in a joint one, counted in the order [Sₙ, …, S₁]."""
    found = []
    for size in sizes:
        found.append(joint % size)
        joint = joint // size
    return found


def average(
    log_p: Mapping[str, Array],
    log_q: Mapping[str, Array],
    kl: Mapping[str, Array],
    penalties: Mapping[str, Array],
    names: list[str],
    xp: Namespace,
    logsumexp: LogSumExp,
) -> tuple[Terms, Terms, Terms, Terms, Array]:
    """Expectations of all terms under the guide's enumerated sites, and log w with these summed out.

    A value to which the guide gives probability 0 is left out of both: this is how a known label is clamped.

    Returns:
        log_p, log_q, kl, penalties: [K, B], and [K or 1, B, D].
        log Σ_y p(x, z, y) / q(z|x, y): [K, B].
    """
    log_probs = sum(clamped(log_q[n], -(3 + i), xp) for i, n in enumerate(names))
    possible = log_probs > -float("inf")
    probs = xp.exp(log_probs)
    axes = tuple(range(-2 - len(names), -2))

    def expect(term: Array) -> Array:
        if term.ndim <= 2:
            return term
        return xp.sum(xp.where(possible, probs * xp.where(possible, term, 0.0), 0.0), axis=axes)

    def expect_each(form: Array) -> Array:
        if form.ndim <= 3:
            return form
        return xp.sum(probs[..., None] * form, axis=tuple(a - 1 for a in axes))

    total = sum(log_p.values()) - sum(t for n, t in log_q.items() if n not in names)
    total = xp.where(possible, total, -float("inf"))
    for _ in names:
        total = logsumexp(total, 0)
    return (
        {n: expect(t) for n, t in log_p.items()},
        {n: expect(t) for n, t in log_q.items()},
        {n: expect_each(f) for n, f in kl.items()},
        {n: expect(p) for n, p in penalties.items()},
        total,
    )
