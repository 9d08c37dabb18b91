"""Invariants of one density: it integrates to 1, its draws agree with it, and nothing breaks at extreme values."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from scipy.stats import chi2, norm

from ppdgm.errors import ProgramError
from ppdgm.models import Likelihood, Posterior, Prior
from ppdgm.testing.bench import against_standard, guide_log_density, objective
from ppdgm.testing.broken import Broken, NotHere
from ppdgm.testing.mass import Mass, limits, measure
from ppdgm.testing.part_case import DATA, HEADS, PARTICLES, PartCase
from ppdgm.testing.wrappers import Mixed

INTEGRAL = 2e-3  #: by how much an integral or a sum may differ from 1
LEVEL = 1e-4  #: level of the tests on draws
ERRORS = 4.0  #: number of Monte Carlo errors that is still accepted
FEW = 25.0  #: cells with fewer expected draws are joined
EXTREME = 50.0


def density(case: PartCase, backend: str) -> str:
    """It integrates, or sums, to 1 for each head."""
    mass = case.once(("mass", backend), lambda: measure(case, backend))
    off = np.abs(mass.total - 1)
    allowed = np.where(mass.error > 0, ERRORS * mass.error, INTEGRAL)
    told = f"{mass.how} = {mass.total[np.argmax(off - allowed)]:.5f}" + (
        f" ± {mass.error.max():.4f}" if mass.error.any() else ""
    )
    if (off > allowed).any() or (mass.error > 0.2).any():
        raise Broken(f"{told}, expected 1. Look at the density's normalising constant and its log-determinants.")
    return told


def draws_follow_density(case: PartCase, backend: str) -> str:
    """Draws follow the density, and the log-density that comes with a draw is that of its value."""
    mass = case.once(("mass", backend), lambda: measure(case, backend))
    told = _draws(mass)
    if case.one_way:
        return told
    assert case.alone is not None
    bench = case.bench(case.alone, backend)
    z, own = (a[:1000] for a in case.draws(backend))
    again = bench.score({"x": case.heads}, z)
    off = np.abs(again - own).max() / (1 + np.abs(own).max())
    if not off <= 1e-6:
        raise Broken(f"a draw's log-density and that of its value differ by {off:.1e}, relative; expected rounding.")
    return told


def _draws(mass: Mass) -> str:
    if mass.scores is not None:
        worst, allowed = mass.scores.max(), norm.isf(LEVEL / 2 / len(mass.scores))
        told = f"weighed cells: {worst:.1f} errors at most, of {allowed:.1f}"
        bad = not worst <= allowed
    else:
        assert mass.found is not None
        statistic, freedom = np.sum([_chi_square(e, f) for e, f in zip(mass.expected, mass.found, strict=True)], axis=0)
        p = chi2.sf(statistic, freedom)
        told = f"χ² = {statistic:.0f} with {freedom:.0f} degrees of freedom, p = {p:.2g}"
        bad = not p >= LEVEL
    if bad:
        raise Broken(f"{told}: draws are not distributed as log_prob says. sample() and log_prob() must agree.")
    return told


def _chi_square(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Pearson's statistic and its degrees of freedom; cells with few expected draws are joined."""
    expected = expected * found.sum() / max(expected.sum(), 1e-300)
    order = np.argsort(-expected)
    expected, found = expected[order], found[order]
    first = int((expected >= FEW).sum())
    rest = np.cumsum(expected[first:]) // FEW
    group = np.concatenate([np.arange(first), first + rest]).astype(int)
    e, f = np.bincount(group, expected), np.bincount(group, found)
    if len(e) > 1 and e[-1] < FEW:
        e, f = np.append(e[:-2], e[-2:].sum()), np.append(f[:-2], f[-2:].sum())
    return float(((f - e) ** 2 / np.maximum(e, 1e-12)).sum()), float(max(len(e) - 1, 0))


def finite_at_extremes(case: PartCase, backend: str) -> str:
    """At heads and values of ±50, or at such inputs of a net, all terms and gradients are finite, in float32."""
    if case.alone is None:
        return _net_extremes(case, backend)
    bench = case.bench(case.alone, backend)
    shape, part = case.alone.shape, case.part
    rng, heads = case.rng(4), case.heads
    signs = rng.choice([-EXTREME, EXTREME], size=heads.shape)
    cases = {"heads of 50": heads * 0 + EXTREME, "heads of −50": heads * 0 - EXTREME, "heads of ±50": signs}
    given = [np.full((1, HEADS, *shape), v) for v in _values(case, backend)]
    if isinstance(part, Prior):
        cases = {"values of ±50": heads}
    run = bench.differentiable(guide_log_density, 1, dtype="float32")
    own = bench.differentiable(against_standard, 1, dtype="float32")
    looked = 0
    for where, x in cases.items():
        outcomes = [(f"{where}, value {z.ravel()[0]:.4g}", run({"x": x}, {"z": z})) for z in given]
        if isinstance(part, Posterior):
            outcomes += [(f"{where}, its own draws", own({"x": x}))] if _pathwise(own, x) else []
        for place, (value, gradients) in outcomes:
            _check_finite(place, value, {n: g for group in gradients.values() for n, g in group.items()})
            looked += 1
    if not looked:
        raise NotHere("its draws have no gradient, and no other values can be scored")
    return f"finite in {looked} cases"


def _net_extremes(case: PartCase, backend: str) -> str:
    run = case.bench(case.program, backend).differentiable(objective, 1, kl=True, dtype="float32")
    signs = case.rng(4).choice([-EXTREME, EXTREME], size=(1, DATA, *case.inputs))
    for where, z in (("50", 0 * signs + EXTREME), ("−50", 0 * signs - EXTREME), ("±50", signs)):
        value, gradients = run(case.data, {"z": z})
        _check_finite(f"inputs of {where}", value, {**gradients["params"], **gradients["given"]})
    return "finite in 3 cases"


def _pathwise(run: object, x: np.ndarray) -> bool:
    try:
        run({"x": x})  # type: ignore[operator]
    except ProgramError:
        return False
    return True


def _values(case: PartCase, backend: str) -> list[float]:
    """Numbers with which a whole value is filled: ±50 and 0, or numbers that a likelihood accepts."""
    part = case.part
    if case.one_way or getattr(part, "family", "real") != "real":
        return []
    if not isinstance(part, Likelihood):
        return [-EXTREME, 0.0, EXTREME]
    z, _ = case.draws(backend)
    low, high = limits(case, z)
    inside = [v for v in (-EXTREME, EXTREME) if low <= v <= high]
    return [*(v for v in (low, high) if np.isfinite(v)), *inside, float(z.ravel()[0])]


def _check_finite(place: str, value: float, gradients: dict[str, np.ndarray]) -> None:
    if not np.isfinite(value):
        raise Broken(
            f"{place}: the log-density is {value}, expected a finite number. Bound scales and exponents; refuse data "
            "that can't be in check(name, x)."
        )
    for name, gradient in gradients.items():
        if not np.isfinite(gradient).all():
            raise Broken(
                f"{place}: the gradient of {name!r} is not finite. Look for where(…) over what overflows, and 0·∞."
            )


def leading_dimensions(case: PartCase, backend: str) -> str:
    """Heads [B, …], [K, B, …] and [M, …] give the same numbers."""
    alone = case.alone
    assert alone is not None
    if "particles" not in type(alone).model_fields:
        raise NotHere("a prior reads no head")
    bench, wide = (case.bench(a, backend) for a in (alone, alone.replace(particles=True)))
    heads = case.rng(5).normal(size=(HEADS, PARTICLES, *case.head_shape))
    if case.one_way:
        wide.draws({"x": heads}, PARTICLES)
        return "heads [K, B, …] are drawn from"
    z = case.elsewhere[:PARTICLES]
    expected = [bench.score({"x": heads[:, k]}, z[k : k + 1])[0] for k in range(PARTICLES)]
    _same("heads [K, B, …]", wide.trace({"x": heads}, PARTICLES, {"z": z}).log_q["z"], np.stack(expected))
    if not isinstance(case.part, Posterior) or case.part.family != "real":
        return "heads [K, B, …] as [B, …]"
    _same("heads [M, …] at values [K, B, 1, …]", *_mixed(case, backend, z))
    return "heads [K, B, …] and [M, …] as [B, …]"


def _mixed(case: PartCase, backend: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert case.alone is not None and isinstance(case.part, Posterior)
    bench, heads = case.bench(case.alone, backend), case.heads
    mixed = case.bench(Mixed(part=case.part, shape=case.alone.shape), backend)
    found = mixed.trace({"x": heads}, PARTICLES, {"z": z}).log_p["z"]
    each = [bench.score({"x": np.roll(heads, i, axis=0)}, z) for i in range(HEADS)]
    return found, logsumexp(each, axis=0)


def _same(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    off = np.abs(found - expected).max() / (1 + np.abs(expected).max())
    if not off <= 1e-9:
        raise Broken(
            f"{what}: log-densities differ by {off:.1e}, relative, from those of heads [B, …]; expected rounding. "
            "Index from the right: head[..., 0, :]."
        )
