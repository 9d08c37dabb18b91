"""The command line. It pins the process first, and only then imports libraries that would start threads."""

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.seconds_per_step.machine import BUSY, BusyMachine, Watch, describe, pin, refuse_if_busy

#: the tables, and their minutes on two idle cores
TABLES = {"steps": 6, "draws": 3}


def main() -> int:
    """Measure the tables, and return the exit code: 2 for a busy machine, 1 for a table that failed."""
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

    from benchmarks.programs.common import Options
    from benchmarks.seconds_per_step.race import DifferentObjective

    torch.set_num_threads(arguments.threads)
    options = Options(
        programs=tuple(arguments.programs) if arguments.programs else None,
        only=tuple(arguments.only) if arguments.only else None,
        rounds=arguments.rounds,
        stretch=0.05 if arguments.quick else arguments.stretch,
        threads=arguments.threads,
        quick=arguments.quick,
        force=arguments.force,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    record: dict[str, Any] = {"machine": describe(), "cores": cores, "tables": {}}
    code = 0
    for name in arguments.tables or TABLES:
        try:
            for found in import_module(f".{name}", __package__).measure(options):
                record["tables"][name] = {**found, "quick": arguments.quick}
                if arguments.json:
                    arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        except DifferentObjective as failure:
            options.say(f"{name}: {failure}")
            code = 1
    if arguments.markdown:
        arguments.markdown.write_text(page(record), encoding="utf-8")
    print(page(record))
    return code


def page(record: dict[str, Any]) -> str:
    """All tables as Markdown."""
    lines = ["# Densities of data", "", f"`python -m benchmarks.densities`, pinned to cores {record['cores']}.", ""]
    lines.append(", ".join(f"{name} {value}" for name, value in record["machine"].items()))
    for name, found in record["tables"].items():
        table = import_module(f".{name}", __package__)
        worst = max(_others(found), default=0.0)
        notes = [f"BUSY: other processes used up to {worst:.2f} of a core."] if worst > BUSY else []
        notes += ["A trial (`--quick`): its figures mean nothing."] if found["quick"] else []
        lines += ["", f"## {table.TITLE}", *(f"\n**{note}**" for note in notes), *table.page(found)]
    return "\n".join(lines) + "\n"


def _others(found: Any) -> list[float]:
    """Cores in the hands of other processes, of all races in a table."""
    if not isinstance(found, dict):
        return []
    return [*found.get("others", ()), *(v for part in found.values() for v in _others(part))]


def _parse() -> argparse.Namespace:
    minutes = ", ".join(f"{name} {minutes}" for name, minutes in TABLES.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks.densities",
        description="Densities of images beside loops by hand, and their draws beside full passes.",
        epilog=f"Minutes on two idle cores: {minutes}.",
    )
    add = parser.add_argument
    add("tables", nargs="*", metavar="TABLE", help=f"these only, of {', '.join(TABLES)}; all by default")
    add("--programs", nargs="+", metavar="NAME", help="of `steps`, these programs only: pixel-cnn, glow")
    add("--only", nargs="+", metavar="NAME", help="these contestants only")
    add("--rounds", type=int, help="rounds (by default each table has its own number)")
    add("--quick", action="store_true", help="a trial of the code: small sizes, one round")
    add("--stretch", type=float, default=0.5, help="seconds per contestant and round of `steps` (default 0.5)")
    add("--threads", type=int, choices=(1, 2), default=2, help="cores to pin to (default 2)")
    add("--force", action="store_true", help="report on a busy machine too, in tables that say so")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}. There are: {', '.join(TABLES)}.")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
