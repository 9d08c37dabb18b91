"""The figures of a race: medians, spreads and ratios, in a table."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from .race import SETTLED, Entry, Race

REFERENCES = {"jax-scan": "÷ jax", "torch-eager": "÷ torch", "pyro-svi": "÷ pyro"}
"""The contestants to which all others are compared, and the heads of their columns."""


@dataclass(frozen=True)
class Target:
    """A contestant must take at most `ratio` times as long per step as another."""

    size: str
    contestant: str
    reference: str
    ratio: float


TARGETS = (
    *(Target(size, "ppdgm-numpyro", "jax-scan", 1.1) for size in ("20x1", "128x1", "20x50")),
    Target("20x1", "ppdgm-numpyro", "pyro-svi", 1 / 4),
    Target("20x1", "ppdgm-pyro", "pyro-svi", 1 / 2.5),
    Target("20x1", "ppdgm-pyro", "torch-eager", 1.0),
)


@dataclass(frozen=True)
class Line:
    """One contestant's figures."""

    name: str
    loss: float
    """Mean over the settled part of the warm-up, nats per row."""
    steps: int
    """Steps in a stretch."""
    median: float
    spread: float
    """Interquartile range of seconds per step."""
    ratios: dict[str, float]
    """Median over the rounds of the time relative to each reference's in the same round."""


def lines(race: Race) -> list[Line]:
    """The figures of every contestant, in the order in which they were named."""
    references = {entry.name: entry for entry in race.entries if entry.name in REFERENCES}
    return [_line(entry, references) for entry in race.entries]


def _line(entry: Entry, references: dict[str, Entry]) -> Line:
    seconds = np.array(entry.seconds_per_step)
    low, median, high = (float(quantile) for quantile in np.quantile(seconds, [0.25, 0.5, 0.75]))
    ratios = {name: float(np.median(seconds / other.seconds_per_step)) for name, other in references.items()}
    loss = float(entry.warm_up[SETTLED].mean())
    return Line(entry.name, loss, entry.steps, median, high - low, ratios)


def rich_table(race: Race, title: str, *, markdown: bool = False) -> Table:
    """One size's table; with `markdown`, in the characters of a Markdown table and without its title."""
    layout: dict[str, Any] = {"box": box.MARKDOWN} if markdown else {"title": title}
    table = Table(**layout)
    table.add_column("contestant", no_wrap=True)
    for header in ("loss", "µs/step", "IQR", *REFERENCES.values()):
        table.add_column(header, justify="right", no_wrap=True)
    for line in lines(race):
        figures = f"{line.loss:.1f}", f"{1e6 * line.median:.0f}", f"{1e6 * line.spread:.0f}"
        ratios = (f"{line.ratios[name]:.2f}" if name in line.ratios else "–" for name in REFERENCES)
        table.add_row(line.name, *figures, *ratios)
    return table


def notes(race: Race) -> list[str]:
    """What a reader of one size's table must know, a sentence each; the targets included."""
    found = [f"{name} is left out: {reason}." for name, reason in race.unavailable.items()]
    if race.repeated:
        found.append(f"{race.repeated} rounds were run again because the machine was busy meanwhile.")
    ratios = {line.name: line.ratios for line in lines(race)}
    for target in TARGETS:
        ratio = ratios.get(target.contestant, {}).get(target.reference)
        if target.size == str(race.problem) and ratio is not None:
            verdict = "met" if ratio <= target.ratio else "MISSED"
            found.append(
                f"Target {verdict}: {target.contestant} takes {ratio:.3f} of {target.reference}'s time "
                f"(at most {target.ratio:.3f})."
            )
    return found
