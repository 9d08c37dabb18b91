"""The command line. It pins the process first, and only then imports libraries that would start threads."""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.seconds_per_step.machine import BUSY, BusyMachine, Watch, describe, pin, refuse_if_busy

REFERENCES = ("jax-by-hand", "torch-by-hand", "numpyro-svi", "pyro-svi")


def main() -> int:
    """Race, and return the exit code."""
    arguments = _parse()
    cores = pin(arguments.threads)
    watch = Watch()
    time.sleep(0.5)
    try:
        if not arguments.force:
            refuse_if_busy(watch.others(), "before the run")
        return _run(arguments, cores)
    except BusyMachine as busy:
        print(busy, file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace, cores: list[int]) -> int:
    """The part that needs the libraries."""
    import torch

    from benchmarks.seconds_per_step.race import DifferentObjective, line_up, run_rounds

    from .cases import CASES
    from .loops import CONTESTANTS

    for kind, asked, known in (("program", arguments.programs, CASES), ("contestant", arguments.only, CONTESTANTS)):
        if unknown := set(asked or ()) - set(known):
            raise SystemExit(f"No {kind} {', '.join(sorted(unknown))}. There are: {', '.join(known)}.")
    torch.set_num_threads(arguments.threads)
    makers = {n: make for n, make in CONTESTANTS.items() if not arguments.only or n in arguments.only}
    say = lambda line: print(line, file=sys.stderr, flush=True)
    races = []
    for name in arguments.programs or CASES:
        try:
            race = line_up(CASES[name], makers, arguments.stretch, say)
        except DifferentObjective as difference:
            say(str(difference))
            return 1
        run_rounds(race, arguments.rounds, lambda line: None, force=arguments.force)
        races.append(race)
        page = _page(races, cores)
        if arguments.markdown:
            arguments.markdown.write_text(page, encoding="utf-8")
        if arguments.json:
            arguments.json.write_text(json.dumps(_record(races, cores), indent=1) + "\n", encoding="utf-8")
    print(page)
    return 0


def _table(race) -> list[str]:
    """A row for each contestant."""
    import numpy as np

    by_name = {entry.name: np.array(entry.seconds_per_step) for entry in race.entries}
    rows = []
    for entry in race.entries:
        seconds = by_name[entry.name]
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]) * 1e6
        ratios = [f"{np.median(seconds / by_name[n]):.2f}" if n in by_name else "–" for n in REFERENCES]
        loss = entry.warm_up[50:].mean()
        rows.append(f"| {entry.name} | {loss:.1f} | {median:.0f} | {high - low:.0f} | {' | '.join(ratios)} |")
    return rows


def _page(races, cores) -> str:
    worst = max(others for race in races for others in race.others)
    busy = f" BUSY: other processes used up to {worst:.2f} of a core." if worst > BUSY else ""
    lines = [
        "# Seconds per training step",
        "",
        f"`python -m benchmarks.programs`; float32, Adam, validation off; pinned to cores {cores}.{busy}",
        "",
        ", ".join(f"{name} {value}" for name, value in describe().items()),
        "",
        "Loss: −bound in nats per row, mean over steps 51 to 100. Columns ÷: median over the rounds of the time "
        "relative to that contestant's in the same round; below 1 is faster.",
    ]
    for race in races:
        title = f"## {race.problem.name}: B = {race.problem.batch}, {len(race.others)} rounds"
        head = ("contestant", "loss", "µs/step", "IQR", *(f"÷ {n}" for n in REFERENCES))
        lines += ["", title, "", f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|", *_table(race)]
        lines += [f"\n{name} is left out: {reason}." for name, reason in race.unavailable.items()]
    return "\n".join(lines) + "\n"


def _record(races, cores) -> dict[str, object]:
    programs = {
        race.problem.name: {
            "batch": race.problem.batch,
            "others": race.others,
            "seconds_per_step": {entry.name: entry.seconds_per_step for entry in race.entries},
            "unavailable": race.unavailable,
        }
        for race in races
    }
    return {"machine": describe(), "cores": cores, "programs": programs}


def _parse() -> argparse.Namespace:
    description = "Seconds per training step of programs: ppdgm, loops by hand, Pyro's and NumPyro's own inference."
    parser = argparse.ArgumentParser("python -m benchmarks.programs", description=description)
    add = parser.add_argument
    add("programs", nargs="*", metavar="PROGRAM", help="these only; all by default")
    add("--only", nargs="+", metavar="NAME", help="these contestants only")
    add("--rounds", type=int, default=9, help="rounds per program (default 9)")
    add("--stretch", type=float, default=0.3, help="seconds per contestant and round (default 0.3)")
    add("--threads", type=int, choices=(1, 2), default=2, help="cores to pin to (default 2)")
    add("--force", action="store_true", help="report on a busy machine too, in a table that says so")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
