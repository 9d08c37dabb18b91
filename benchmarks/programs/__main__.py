"""The command line. It pins the process first, and only then imports libraries that would start threads."""

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.seconds_per_step.machine import BUSY, BusyMachine, Watch, describe, pin, refuse_if_busy

#: the module of each table in `benchmarks`, and its minutes on two idle cores
TABLES = {
    "steps": ("programs.steps", 17),
    "epoch": ("programs.epoch", 3),
    "likelihood": ("programs.likelihood", 4),
    "sampling": ("programs.sampling", 3),
    "process": ("programs.process", 8),
    "growth": ("programs.growth", 13),
    "whole": ("programs.whole", 12),
    "products": ("programs.products", 5),
    "density-steps": ("densities.steps", 6),
    "density-draws": ("densities.draws", 3),
}


def main() -> int:
    """Measure the tables, and return the exit code: 2 for a busy machine, 1 for a table that failed."""
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

    from benchmarks.densities.cases import MAKERS as DENSITIES
    from benchmarks.seconds_per_step.problem import Unavailable
    from benchmarks.seconds_per_step.race import DifferentObjective

    from .cases import MAKERS
    from .common import Options
    from .likelihood import DifferentNumbers
    from .probe import ProbeFailed

    programs = (*MAKERS, *DENSITIES)
    if unknown := set(arguments.programs or ()) - set(programs):
        raise SystemExit(f"No program {', '.join(sorted(unknown))}. There are: {', '.join(programs)}.")
    torch.set_num_threads(arguments.threads)
    options = Options(
        programs=tuple(arguments.programs) if arguments.programs else None,
        only=tuple(arguments.only) if arguments.only else None,
        rounds=arguments.rounds,
        stretch=0.05 if arguments.quick else arguments.stretch,
        threads=arguments.threads,
        device=arguments.device,
        quick=arguments.quick,
        force=arguments.force,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    record, code = _opened(arguments, cores), 0
    for name in arguments.tables or TABLES:
        started = time.perf_counter()
        try:
            for found in table_of(name).measure(options):
                seconds = round(time.perf_counter() - started)
                record["tables"][name] = {**found, "seconds_of_all": seconds, "quick": arguments.quick}
                _write(arguments, record)
        except (DifferentObjective, DifferentNumbers, ProbeFailed) as failure:
            options.say(f"{name}: {failure}")
            code = 1
        except Unavailable as reason:
            options.say(f"{name} is left out: {reason}.")
    print(page(record))
    return code


def _opened(arguments: argparse.Namespace, cores: list[int]) -> dict[str, Any]:
    """What the file has of other tables, if it is of the same machine and versions."""
    new = {"machine": describe(), "cores": cores, "device": arguments.device, "tables": {}}
    if arguments.json is None or not arguments.json.exists():
        return new
    known = json.loads(arguments.json.read_text(encoding="utf-8"))
    same = all(known.get(n) == new[n] for n in ("machine", "cores", "device")) and "tables" in known
    return known if same else new


def _write(arguments: argparse.Namespace, record: dict[str, Any]) -> None:
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if arguments.markdown:
        arguments.markdown.write_text(page(record), encoding="utf-8")


def table_of(name: str) -> Any:
    """The module that measures a table and writes it."""
    return import_module(f"benchmarks.{TABLES[name][0]}")


def page(record: dict[str, Any]) -> str:
    """All tables as Markdown, in the order of `TABLES`."""
    lines = [
        "# Benchmarks",
        "",
        f"`python -m benchmarks.programs`, on {record['device']}, pinned to cores {record['cores']}.",
        "",
        ", ".join(f"{name} {value}" for name, value in record["machine"].items()),
    ]
    for name in TABLES:
        if (found := record["tables"].get(name)) is None:
            continue
        table = table_of(name)
        worst = max(_others(found), default=0.0)
        busy = f" BUSY: other processes used up to {worst:.2f} of a core." if worst > BUSY else ""
        trial = " A trial (`--quick`): its figures mean nothing." if found["quick"] else ""
        lines += ["", f"## {table.TITLE}", *([f"\n**{(busy + trial).strip()}**"] if busy or trial else [])]
        lines += table.page(found)
    return "\n".join(lines) + "\n"


def _others(found: Any) -> list[float]:
    """Cores in the hands of other processes, of all races in a table."""
    if not isinstance(found, dict):
        return []
    return [*found.get("others", ()), *(v for part in found.values() for v in _others(part))]


def _parse() -> argparse.Namespace:
    minutes = ", ".join(f"{name} {minutes}" for name, (_, minutes) in TABLES.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks.programs",
        description="ppdgm beside loops by hand, Pyro's and NumPyro's own inference, and pythae.",
        epilog=f"Minutes on two idle cores: {minutes}.",
    )
    add = parser.add_argument
    add("tables", nargs="*", metavar="TABLE", help=f"these only, of {', '.join(TABLES)}; all by default")
    add("--programs", nargs="+", metavar="NAME", help="these programs only")
    add("--only", nargs="+", metavar="NAME", help="these contestants only")
    add("--rounds", type=int, help="rounds (by default each table has its own number)")
    add("--quick", action="store_true", help="a trial of the code: few programs, small sizes, one round")
    add("--stretch", type=float, default=0.3, help="seconds per contestant and round of `steps` (default 0.3)")
    add("--threads", type=int, choices=(1, 2), default=2, help="cores to pin to (default 2)")
    add("--device", default="cpu", help="cuda: measure there (default cpu)")
    add("--force", action="store_true", help="report on a busy machine too, in tables that say so")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured; other tables in it stay")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}. There are: {', '.join(TABLES)}.")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
