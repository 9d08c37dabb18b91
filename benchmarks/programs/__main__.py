"""The command line. It pins the process first, and only then imports libraries that would start threads."""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.seconds_per_step.machine import BUSY, BusyMachine, Watch, describe, pin, refuse_if_busy

REFERENCES = ("jax-by-hand", "torch-by-hand", "numpyro-svi", "pyro-svi")


def main() -> int:
    """Race, and return the exit code."""
    arguments = _parse()
    cores = pin(arguments.threads, arguments.device)
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
    record = _opened(arguments.json, cores, arguments.device)
    for name in arguments.programs or CASES:
        try:
            race = line_up(replace(CASES[name], device=arguments.device), makers, arguments.stretch, say)
        except DifferentObjective as difference:
            say(str(difference))
            return 1
        run_rounds(race, arguments.rounds, lambda line: None, force=arguments.force)
        record["programs"][name] = {
            "batch": race.problem.batch,
            "others": race.others,
            "loss": {entry.name: float(entry.warm_up[50:].mean()) for entry in race.entries},
            "seconds_per_step": {entry.name: entry.seconds_per_step for entry in race.entries},
            "unavailable": race.unavailable,
        }
        if arguments.markdown:
            arguments.markdown.write_text(_page(record), encoding="utf-8")
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(_page(record))
    return 0


def _opened(file: Path | None, cores: list[int], device: str) -> dict[str, Any]:
    """What the file has of other programs, if it is of the same machine and versions."""
    new = {"machine": describe(), "cores": cores, "device": device, "programs": {}}
    if file is None or not file.exists():
        return new
    known = json.loads(file.read_text(encoding="utf-8"))
    same = all(known.get(n) == new[n] for n in ("machine", "cores", "device"))
    return known if same else new


def _table(program: dict[str, Any]) -> list[str]:
    """A row for each contestant."""
    import numpy as np

    by_name = {name: np.array(seconds) for name, seconds in program["seconds_per_step"].items()}
    rows = []
    for name, seconds in by_name.items():
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]) * 1e6
        ratios = [f"{np.median(seconds / by_name[n]):.2f}" if n in by_name else "–" for n in REFERENCES]
        loss = program["loss"][name]
        rows.append(f"| {name} | {loss:.1f} | {median:.0f} | {high - low:.0f} | {' | '.join(ratios)} |")
    return rows


def _page(record: dict[str, Any]) -> str:
    programs = record["programs"]
    worst = max(others for program in programs.values() for others in program["others"])
    busy = f" BUSY: other processes used up to {worst:.2f} of a core." if worst > BUSY else ""
    lines = [
        "# Seconds per training step",
        "",
        "`python -m benchmarks.programs`; float32, Adam, validation off; "
        f"on {record['device']}, pinned to cores {record['cores']}.{busy}",
        "",
        ", ".join(f"{name} {value}" for name, value in record["machine"].items()),
        "",
        "Loss: −bound in nats per row, mean over steps 51 to 100. Columns ÷: median over the rounds of the time "
        "relative to that contestant's in the same round; below 1 is faster.",
    ]
    for name, program in programs.items():
        rounds = len(program["others"])
        head = ("contestant", "loss", "µs/step", "IQR", *(f"÷ {n}" for n in REFERENCES))
        lines += ["", f"## {name}: B = {program['batch']}, {rounds} rounds", "", f"| {' | '.join(head)} |"]
        lines += ["|---" + "|---:" * (len(head) - 1) + "|", *_table(program)]
        lines += [f"\n{contestant} is left out: {reason}." for contestant, reason in program["unavailable"].items()]
    return "\n".join(lines) + "\n"


def _parse() -> argparse.Namespace:
    description = "Seconds per training step of programs: ppdgm, loops by hand, Pyro's and NumPyro's own inference."
    parser = argparse.ArgumentParser("python -m benchmarks.programs", description=description)
    add = parser.add_argument
    add("programs", nargs="*", metavar="PROGRAM", help="these only; all by default")
    add("--only", nargs="+", metavar="NAME", help="these contestants only")
    add("--rounds", type=int, default=9, help="rounds per program (default 9)")
    add("--stretch", type=float, default=0.3, help="seconds per contestant and round (default 0.3)")
    add("--threads", type=int, choices=(1, 2), default=2, help="cores to pin to (default 2)")
    add("--device", default="cpu", help="cuda: measure there (default cpu)")
    add("--force", action="store_true", help="report on a busy machine too, in a table that says so")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured; other programs in it stay")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
