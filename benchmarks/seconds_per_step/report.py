"""All sizes' tables together: on the screen, as Markdown and as JSON."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from .machine import BUSY, describe
from .race import Race
from .table import lines, notes, rich_table

FOOTNOTES = (
    "Loss: negative ELBO in nats per row, mean over steps 51 to 100 of the warm-up. Columns ÷: median "
    "over the rounds of the time relative to jax-scan's, torch-eager's or pyro-svi's in the same round; "
    "below 1 is faster.",
    "numpyro-svi.run has no place for a minibatch per step: its loss picks one of the same index rows at "
    "random, once per step. numpyro-svi.update gives them in order to svi.update in a scan. "
    "numpyro-svi.run-plate draws the minibatch by plate(subsample_size=B) instead; with K particles that "
    "is K minibatches. All three run under jax.jit.",
)


@dataclass(frozen=True)
class Report:
    """What one run of the benchmark found."""

    races: list[Race]
    cores: list[int]
    others_before: float

    @property
    def busy(self) -> str:
        """The mark of a table from a busy machine; empty on a quiet one."""
        worst = max([self.others_before, *(others for race in self.races for others in race.others)])
        return f" — BUSY: other processes used up to {worst:.2f} of a core" if worst > BUSY else ""

    @property
    def header(self) -> list[str]:
        """What was measured, and on what."""
        one_thread = f"core {self.cores[0]}, one thread for either library"
        threads = f"cores {self.cores}, {len(self.cores)} threads for either library"
        pinned = one_thread if len(self.cores) == 1 else threads
        return [
            f"VAE 784-200-200-50, float32, Adam, validation off; pinned to {pinned}{self.busy}",
            ", ".join(f"{name} {value}" for name, value in describe().items()),
        ]

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(*self.header, sep="\n", highlight=False)
        for race in self.races:
            console.print(rich_table(race, _title(race) + self.busy))
            for note in notes(race):
                console.print(note, highlight=False)
        console.print(*FOOTNOTES, sep="\n", style="dim", highlight=False)

    def write_markdown(self, path: Path) -> None:
        """Write the tables for a page of documentation."""
        page = [*self.header]
        for race in self.races:
            drawn = io.StringIO()
            Console(file=drawn, width=200).print(rich_table(race, "", markdown=True))
            rows = (line.strip() for line in drawn.getvalue().splitlines())
            page += [f"## {_title(race)}{self.busy}", "\n".join(row for row in rows if row)]
            page += ["\n".join(f"- {note}" for note in notes(race))] if notes(race) else []
        path.write_text("\n\n".join([*page, *FOOTNOTES]) + "\n", encoding="utf-8")

    def write_json(self, path: Path) -> None:
        """Write everything that was measured, every round included."""
        report = {
            "machine": describe(),
            "cores": self.cores,
            "busy": bool(self.busy),
            "others_before": self.others_before,
            "sizes": [_as_json(race) for race in self.races],
        }
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _title(race: Race) -> str:
    return f"(B, K) = ({race.problem.batch}, {race.problem.particles}), {len(race.others)} rounds"


def _as_json(race: Race) -> dict[str, object]:
    rounds = {entry.name: entry.seconds_per_step for entry in race.entries}
    return {
        "batch": race.problem.batch,
        "particles": race.problem.particles,
        "contestants": [{**asdict(line), "rounds": rounds[line.name]} for line in lines(race)],
        "others": race.others,
        "repeated": race.repeated,
        "unavailable": race.unavailable,
    }
