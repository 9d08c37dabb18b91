"""Invariants of gradients: they reach everything, and agree with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ppdgm.models import Likelihood
from ppdgm.models.posteriors.base import CONTINUOUS
from ppdgm.testing.bench import guide_log_density, objective
from ppdgm.testing.broken import Broken, NotHere
from ppdgm.testing.part_case import PARTICLES, PartCase

TOLERANCE, STEPS = 1e-6, (1e-5, 1e-6, 1e-7)
NOTHING = 1e-10  #: a gradient up to this counts as zero

Groups = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Slope:
    """A function with its gradient.

    Attributes:
        place: where the function comes from, in words.
        run: ({"params", "data", "given"}: arrays by name) -> (value, gradients in the same form).
        arrays: the arrays at which it is checked.
        moved: the groups of arrays of which it is a smooth function.
    """

    place: str
    run: Callable[[Groups], tuple[float, Groups]]
    arrays: Groups
    moved: tuple[str, ...]


def gradient(case: PartCase, backend: str) -> str:
    """Everything that is trained gets a gradient: every parameter, and every number of a head."""
    count, declared = 0, case.program.declarations()
    still = {*case.still, *declared.schedules, *declared.states}
    for slope in _slopes(case, backend):
        _, gradients = slope.run(slope.arrays)
        for name, g in ((n, g) for group in slope.moved for n, g in gradients[group].items()):
            if not np.isfinite(g).all():
                raise Broken(f"{slope.place}: the gradient of {name!r} is not finite.")
        reached = _reached(slope, gradients)
        cut = [n for n, size in reached.items() if size <= NOTHING and n not in still]
        if cut:
            what = "some number of the head" if cut == ["head"] else ", ".join(map(repr, cut))
            raise Broken(
                f"{slope.place}: no gradient reaches {what}. Is it used, and not behind stop_gradient? If it is known "
                f"not to matter, say so: check(part, still={cut!r})."
            )
        if moving := [n for n in case.still if reached.get(n, 0.0) > NOTHING]:
            raise Broken(f"{moving[0]!r} is said to be still, but gets a gradient of {reached[moving[0]]:.1e}.")
        count += len(reached)
    return f"reaches {count} arrays"


def slopes(case: PartCase, backend: str) -> str:
    """Gradients agree with finite differences, in float64, along a random direction of each array.

    Draws by rejection jump as parameters move, so their own gradients are of another kind: only log-densities are
    looked at.
    """
    worst, rng = 0.0, case.rng(7)
    states = {("params", n) for n in case.program.declarations().states}  # they carry no gradient
    looked = [s for s in _slopes(case, backend) if s.place != "training" or not case.by_rejection]
    if not looked:
        raise NotHere("its draws are by rejection")
    for slope in looked:
        _, gradients = slope.run(slope.arrays)
        arrays = ((g, n) for g in slope.moved for n in slope.arrays[g] if slope.arrays[g][n].size)
        for group, name in ((g, n) for g, n in arrays if (g, n) not in states):
            off, got, expected = _compare(slope, gradients[group][name], group, name, rng)
            worst = max(worst, off)
            if not off <= TOLERANCE:
                raise Broken(
                    f"{slope.place}: the gradient of {name!r} is {got:.6g} in a direction in which finite differences "
                    f"give {expected:.6g}. Something cuts it, or counts it twice."
                )
    return f"within {worst:.0e} of finite differences"


def _compare(
    slope: Slope, gradient: np.ndarray, group: str, name: str, rng: np.random.Generator
) -> tuple[float, float, float]:
    """The relative error of the derivative along a random direction, the derivative, and the finite difference."""
    value = slope.arrays[group][name]
    direction = rng.normal(size=value.shape)
    direction /= np.linalg.norm(direction)
    got, found = float((gradient * direction).sum()), []

    def at(step: float) -> float:
        return slope.run({**slope.arrays, group: {**slope.arrays[group], name: value + step * direction}})[0]

    for step in STEPS:  # a kink, such as that of a ReLU, may lie within one step, but not within all
        expected = (at(step) - at(-step)) / (2 * step)
        found.append((abs(got - expected) / max(1.0, abs(expected)), got, expected))
        if found[-1][0] <= TOLERANCE:
            break
    return min(found)


def _reached(slope: Slope, gradients: Groups) -> dict[str, float]:
    """The largest gradient of each array that should have one; for a head, the least of its numbers' gradients."""
    if slope.place == "training":
        return {n: float(np.abs(g).max(initial=0.0)) for n, g in gradients["params"].items()}
    if "data" in slope.moved:
        return {"head": float(np.abs(gradients["data"]["x"]).max(0).min(initial=np.inf))}
    return {}


def _slopes(case: PartCase, backend: str) -> Iterator[Slope]:
    """The objective of SVI, and log-densities at given values."""
    bench = case.bench(case.program, backend)
    run = case.once(("objective", backend), lambda: bench.differentiable(objective, PARTICLES, kl=True))
    arrays = {"params": dict(bench.params), "data": case.data, "given": {}}
    yield Slope("training", lambda a: run(a["data"], a["given"], a["params"]), arrays, ("params",))
    if case.alone is None or case.one_way or getattr(case.part, "family", "real") not in CONTINUOUS:
        return
    alone, z = case.bench(case.alone, backend), case.elsewhere
    score = case.once(("log-density", backend), lambda: alone.differentiable(guide_log_density, len(z)))
    arrays = {"params": dict(alone.params), "data": {"x": case.heads}, "given": {"z": z}}
    moved = ["params"] if case.reads_no_head else ["params", "data"]
    if not isinstance(case.part, Likelihood) and getattr(case.part, "family", "real") != "simplex":  # a step leaves it
        moved.append("given")
    yield Slope("log-density", lambda a: score(a["data"], a["given"], a["params"]), arrays, tuple(moved))
