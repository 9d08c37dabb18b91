"""The command line. It pins the process first, and only then imports libraries that would start threads."""

import argparse
import re
import sys
import time
from pathlib import Path

from .machine import BusyMachine, Watch, pin, refuse_if_busy


def main() -> int:
    """Race, and return the exit code."""
    arguments = _parse()
    cores = pin(arguments.threads)
    watch = Watch()
    time.sleep(0.5)
    others = watch.others()
    try:
        if not arguments.force:
            refuse_if_busy(others, "before the run")
        return _run(arguments, cores, others)
    except BusyMachine as busy:
        print(busy, file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace, cores: list[int], others_before: float) -> int:
    """The part that needs the libraries."""
    import torch
    from rich.console import Console

    from .contestants import CONTESTANTS, VARIANTS
    from .problem import make_problem
    from .race import DifferentObjective, line_up, run_rounds
    from .report import Report

    everyone = CONTESTANTS | VARIANTS
    names = arguments.only or list(CONTESTANTS)
    if unknown := set(names) - set(everyone):
        raise SystemExit(f"No contestant {', '.join(sorted(unknown))}. There are: {', '.join(everyone)}.")
    makers = {name: everyone[name] for name in names}
    torch.set_num_threads(arguments.threads)

    console = Console()
    races = []
    with console.status("") as status:
        for size in arguments.sizes:
            try:
                race = line_up(make_problem(*size), makers, arguments.stretch, status.update)
            except DifferentObjective as difference:
                print(difference, file=sys.stderr)
                return 1
            if arguments.only and race.unavailable:
                raise SystemExit("; ".join(f"{name}: {reason}" for name, reason in race.unavailable.items()))
            run_rounds(race, arguments.rounds, status.update, force=arguments.force)
            races.append(race)

    report = Report(races, cores, others_before)
    report.show(console)
    if arguments.markdown:
        report.write_markdown(arguments.markdown)
    if arguments.json:
        report.write_json(arguments.json)
    return 0


def _parse() -> argparse.Namespace:
    description = "Seconds per step of a VAE: ppdgm, Pyro, NumPyro and hand-written loops."
    parser = argparse.ArgumentParser("python -m benchmarks.seconds_per_step", description=description)
    add = parser.add_argument
    sizes = [(20, 1), (128, 1), (20, 50)]
    add("--sizes", nargs="+", type=_size, default=sizes, metavar="BxK", help="default: 20x1 128x1 20x50")
    add("--rounds", type=int, default=9, help="rounds per size (default 9; under 7 the spread says little)")
    add("--stretch", type=float, default=0.3, help="seconds per contestant and round (default 0.3)")
    add("--only", nargs="+", metavar="NAME", help="these contestants only")
    add("--threads", type=int, choices=(1, 2), default=2, help="cores to pin to (default 2)")
    add("--force", action="store_true", help="report on a busy machine too, in a table that says so")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args()


def _size(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise argparse.ArgumentTypeError(f"a size is BATCHxPARTICLES, such as 20x1, not {text!r}")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    sys.exit(main())
