"""The rounds: every contestant in turn, in shuffled order, while the machine is watched."""

import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .machine import BUSY, Watch, refuse_if_busy
from .problem import Contestant, Floats, Problem, Stretch, Unavailable

WARM_UP_STEPS = 100
SETTLED = slice(50, 100)
CHECKED = {"the first 5 steps": slice(5), "steps 51 to 100": SETTLED}
"""Where mean losses are compared: before training has changed the common weights by much, and after it has
settled. In between the loss falls by 30 nats a step, and small differences of the noise become large ones."""
NATS = 5.0
"""How far such a mean may be from the median contestant's. Between seeds it moves by 0.6 to 0.9 (one standard
deviation, batch 20, one particle)."""


class DifferentObjective(Exception):
    """Contestants whose losses are too far apart for the same objective and optimiser."""


@dataclass
class Entry:
    """A contestant in the race, and what was measured for it."""

    name: str
    stretch: Stretch
    steps: int
    warm_up: Floats
    """Losses of the first steps."""
    seconds_per_step: list[float] = field(default_factory=list)


@dataclass
class Race:
    """One size: who takes part, and how it went."""

    problem: object
    """What is raced, with a name as its text."""
    entries: list[Entry] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    """Contestants that cannot run here, with the reason."""
    others: list[float] = field(default_factory=list)
    """Cores in the hands of other processes, per round."""
    repeated: int = 0
    """Rounds that were run again because the machine was busy meanwhile."""


Say = Callable[[str], object]
"""Shows a line of progress."""


def line_up(
    problem: Problem, makers: Mapping[str, Callable[[Problem], Contestant]], stretch_seconds: float, say: Say
) -> Race:
    """Compile and warm up all contestants, and check that they train the same objective.

    Raises:
        DifferentObjective: the losses of the warm-up disagree.
    """
    race = Race(problem)
    for name, make in makers.items():
        say(f"{problem}: preparing {name}")
        try:
            race.entries.append(_prepare(name, make(problem), problem, stretch_seconds))
        except Unavailable as reason:
            race.unavailable[name] = str(reason)
    if race.entries:
        _check_same_objective(race.entries)
    return race


def run_rounds(race: Race, rounds: int, say: Say, *, force: bool) -> None:
    """Time a number of rounds; a round that other processes disturbed is run again.

    Raises:
        BusyMachine: the number of disturbed rounds reached the number of wanted ones (never with `force`, which keeps
            all).
    """
    shuffle = random.Random(0)
    watch = Watch()
    while len(race.others) < rounds:
        say(f"{race.problem}: round {len(race.others) + 1} of {rounds}")
        seconds = _round(shuffle.sample(race.entries, len(race.entries)))
        others = watch.others()
        if others > BUSY and not force:
            race.repeated += 1
            if race.repeated == rounds:
                refuse_if_busy(others, f"in the last of {rounds} disturbed rounds at {race.problem}")
            continue
        race.others.append(others)
        for entry in race.entries:
            entry.seconds_per_step.append(seconds[entry.name])


def _prepare(name: str, contestant: Contestant, problem: Problem, stretch_seconds: float) -> Entry:
    """Compile and warm up, and find the number of steps of a stretch."""
    warm_up = contestant(problem.rows(WARM_UP_STEPS, seed=2))
    losses = warm_up()
    start = time.perf_counter()
    warm_up()
    steps = max(4, round(stretch_seconds * WARM_UP_STEPS / (time.perf_counter() - start)))
    stretch = contestant(problem.rows(steps, seed=3))
    stretch()  # for JAX, another number of steps is another program
    return Entry(name, stretch, steps, losses)


def _check_same_objective(entries: list[Entry]) -> None:
    for when, steps in CHECKED.items():
        means = {entry.name: float(entry.warm_up[steps].mean()) for entry in entries}
        median = float(np.median(list(means.values())))
        # Written so that a NaN counts as too far off.
        astray = [f"{name} has {mean:.1f}" for name, mean in means.items() if not abs(mean - median) <= NATS]
        if astray:
            raise DifferentObjective(
                f"Mean loss of {when}, in nats per row: the median contestant has {median:.1f}, but "
                f"{', '.join(astray)} (allowed: {NATS} apart). They do not train the same objective, so "
                "their speed is not compared."
            )


def _round(entries: list[Entry]) -> dict[str, float]:
    """One stretch of each, in seconds per step."""
    seconds = {}
    for entry in entries:
        gc.collect()  # otherwise one contestant pays for another's garbage
        start = time.perf_counter()
        entry.stretch()
        seconds[entry.name] = (time.perf_counter() - start) / entry.steps
    return seconds
