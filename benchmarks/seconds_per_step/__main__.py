"""The command line. Pins the process first, and only then imports what would start threads."""

import argparse
import json
import re
import sys
import time
from pathlib import Path

from .machine import BUSY, BusyMachine, Watch, describe, pin, refuse_if_busy

FOOTNOTES = (
    "Loss: mean over steps 51 to 100 of each contestant's warm-up, negative ELBO per datum. Columns ÷: median over the rounds of the "
    "time relative to that contestant's in the same round; below 1 is faster.",
    "numpyro-svi.run has no place for a minibatch per step: its loss picks one of the same index rows at random, once "
    "per step. numpyro-svi.update gives them in order to svi.update in a scan. numpyro-svi.run-plate draws the "
    "minibatch by plate(subsample_size=B) instead; with K particles that is K minibatches. All three run under jax.jit.",
)


def main() -> int:
    """Race, and return the exit code."""
    arguments = _parse()
    cores = pin(arguments.threads)
    watch = Watch()
    time.sleep(0.5)
    try:
        others = watch.others()
        if not arguments.force:
            refuse_if_busy(others, "before the run")
        return _run(arguments, cores, others)
    except BusyMachine as busy:
        print(busy, file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace, cores: list[int], others_before: float) -> int:
    import torch
    from rich.console import Console

    from .contestants import CONTESTANTS, VARIANTS
    from .problem import make_problem
    from .race import DifferentObjective, race
    from .table import as_json, notes, rich_table

    everyone = CONTESTANTS | VARIANTS
    names = arguments.only or list(CONTESTANTS)
    if unknown := set(names) - set(everyone):
        raise SystemExit(f"No contestant {', '.join(sorted(unknown))}. There are: {', '.join(everyone)}.")
    torch.set_num_threads(arguments.threads)

    console = Console()
    races = []
    with console.status("") as status:
        for batch, particles in arguments.sizes:
            try:
                races.append(
                    race(
                        make_problem(batch, particles),
                        {name: everyone[name] for name in names},
                        rounds=arguments.rounds,
                        stretch_seconds=arguments.stretch,
                        force=arguments.force,
                        say=status.update,
                    )
                )
            except DifferentObjective as difference:
                print(difference, file=sys.stderr)
                return 1

    worst = max([others_before, *(others for one in races for others in one.others)])
    mark = f" — BUSY: other processes used up to {worst:.2f} of a core" if worst > BUSY else ""
    machine = describe()
    header = (
        f"VAE 784-200-200-50, float32, Adam, validation off; {arguments.threads} thread(s) on core(s) {cores}; "
        f"{arguments.rounds} rounds{mark}",
        ", ".join(f"{name} {value}" for name, value in machine.items()),
    )
    console.print(*header, sep="\n", highlight=False)
    for one in races:
        console.print(rich_table(one, f"(B, K) = ({one.problem.batch}, {one.problem.particles}){mark}"))
        console.print(*notes(one), sep="\n", highlight=False)
    console.print(*FOOTNOTES, sep="\n", style="dim", highlight=False)

    if arguments.json:
        report = {
            "machine": machine,
            "threads": arguments.threads,
            "busy": bool(mark),
            "others_before": others_before,
        }
        arguments.json.write_text(
            json.dumps(report | {"sizes": [as_json(one) for one in races]}, indent=1) + "\n"
        )
    if arguments.markdown:
        page = Console(file=arguments.markdown.open("w"), width=200)
        page.print(*header, sep="\n\n")
        for one in races:
            page.print(f"\n## (B, K) = ({one.problem.batch}, {one.problem.particles}){mark}\n")
            page.print(rich_table(one, "", markdown=True))
            page.print(*(f"- {note}" for note in notes(one)), sep="\n")
        page.print("", *FOOTNOTES, sep="\n\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "seconds_per_step", description="Seconds per step of a VAE, by every contestant."
    )
    add = parser.add_argument
    add(
        "--sizes",
        nargs="+",
        type=_size,
        default=[(20, 1), (128, 1), (20, 50)],
        metavar="BxK",
        help="20x1 128x1 20x50",
    )
    add("--rounds", type=int, default=9, help="rounds per size (default 9; fewer than 7 make a poor spread)")
    add(
        "--stretch",
        type=float,
        default=0.3,
        help="seconds that each contestant runs in a round (default 0.3)",
    )
    add("--only", nargs="+", metavar="NAME", help="these contestants only")
    add(
        "--threads",
        type=int,
        choices=(1, 2),
        default=1,
        help="cores to pin to, for both libraries (default 1)",
    )
    add("--force", action="store_true", help="report on a busy machine too, in a table that says so")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args()


def _size(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"(\d+)x(\d+)", text)):
        raise argparse.ArgumentTypeError(f"a size is BATCHxPARTICLES, such as 20x1, not {text!r}")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    sys.exit(main())
