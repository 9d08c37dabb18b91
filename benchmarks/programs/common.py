"""What the tables share: the choices of a run, races, and how their figures are written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.seconds_per_step.problem import Unavailable
from benchmarks.seconds_per_step.race import Entry, Race, run_rounds

Found = dict[str, Any]  # of a table, as in the JSON file
Seconds = Mapping[str, Sequence[float]]  # of each contestant, in every round


@dataclass(frozen=True)
class Options:
    """What the command line chose; None is the table's own choice.

    Attributes:
        quick: a trial of the code: few programs and points, small sizes, one round; its figures mean nothing.
    """

    programs: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    rounds: int | None = None
    stretch: float = 0.3
    threads: int = 2
    device: str = "cpu"
    quick: bool = False
    force: bool = False
    say: Callable[[str], object] = print

    def rounds_of(self, usual: int) -> int:
        """The number of rounds."""
        return self.rounds or (1 if self.quick else usual)

    def programs_of(self, known: Iterable[str], quick: Iterable[str]) -> list[str]:
        """The programs of a table: those that were chosen and that it has."""
        known = list(known)
        return [n for n in self.programs or (quick if self.quick else known) if n in known]

    def contestants_of(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The contestants of a table."""
        return {n: v for n, v in known.items() if self.only is None or n in self.only}


def race(
    title: str, makers: Mapping[str, Callable[[], tuple[Callable[[], object], int]]], rounds: int, options: Options
) -> Found:
    """Turns in shuffled order.

    Args:
        title: of what is raced.
        makers: of each contestant: its stretch of work, and the number of units in it.
        rounds: the number of turns of each.
        options: of the run.
    """
    found = Race(title)
    for name, make in makers.items():
        options.say(f"{title}: preparing {name}")
        try:
            work, units = make()
        except Unavailable as reason:
            found.unavailable[name] = str(reason)
            continue
        found.entries.append(Entry(name, work, units, np.zeros(0, np.float32)))  # type: ignore[arg-type]
    run_rounds(found, rounds, lambda line: None, force=options.force)
    return as_found(found)


def as_found(race: Race) -> Found:
    """What the JSON file keeps of a race."""
    return {
        "others": race.others,
        "repeated": race.repeated,
        "seconds": {entry.name: entry.seconds_per_step for entry in race.entries},
        "unavailable": race.unavailable,
    }


def ratio(seconds: Seconds, name: str, other: str) -> float | None:
    """Median over the rounds of the time relative to another contestant's in the same round."""
    if name not in seconds or other not in seconds:
        return None
    return float(np.median(np.array(seconds[name]) / np.array(seconds[other])))


def ranked(
    found: Found,
    references: Iterable[str],
    unit: str,
    scale: float,
    more: Mapping[str, Mapping[str, str]] | None = None,
) -> list[str]:
    """A row for each contestant: median, interquartile range, and ratios; `more` has further columns, by name."""
    seconds: Seconds = found["seconds"]
    others = [n for n in references if n in seconds]
    further = more or {}
    head = ("contestant", *further, unit, "IQR", *(f"÷ {n}" for n in others))
    lines = ["", *heads(head)]
    for name, values in seconds.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]) * scale
        cells = [column.get(name, "–") for column in further.values()]
        cells += [number(median), number(high - low), *(f"{ratio(seconds, name, n):.2f}" for n in others)]
        lines.append(row(name, *cells))
    return [*lines, *(f"\n{name} is left out: {reason}." for name, reason in found["unavailable"].items())]


def heads(names: Sequence[str]) -> list[str]:
    """The first lines of a Markdown table."""
    return [row(*names), "|---" + "|---:" * (len(names) - 1) + "|"]


def row(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(what: str, reached: float | None, most: float) -> list[str]:
    """A line that shows whether a target is met; none without a figure."""
    if reached is None:
        return []
    return [f"- {'Met' if reached <= most else 'MISSED'}: {what}: {reached:.2f}, at most {most:.2f}."]


def verdicts(lines: Iterable[str]) -> list[str]:
    """The lines as a list after a table."""
    return ["", *found] if (found := list(lines)) else []


def best(seconds: Seconds, names: Iterable[str]) -> str | None:
    """The fastest of these contestants."""
    there = [n for n in names if n in seconds]
    return min(there, key=lambda n: float(np.median(seconds[n]))) if there else None
