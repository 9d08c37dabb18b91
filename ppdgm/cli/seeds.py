"""`ppdgm fit --seeds`: one recipe with several seeds, and the spread of its results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppdgm.cli.spread import SEED
from ppdgm.errors import SpecError

if TYPE_CHECKING:
    from ppdgm.cli.following import Flags

FOLDER = "runs/seeds"


def parse_seeds(text: str) -> str:
    """Seeds as --over takes them: "5" is 0..4, and "0,3,7" or "2..4" are these.

    Raises:
        SpecError: it is none of these, or one seed.
    """
    plain = text.replace(" ", "")
    if re.fullmatch(r"\d+", plain):
        count = int(plain)
        if count < 2:
            raise SpecError(
                f"--seeds: got {text!r}, which is {count} runs, expected 2 or more. For one run, use --seed."
            )
        return f"0..{count - 1}"
    if re.fullmatch(r"\d+(,\d+)+|\d+\.\.\d+", plain):
        return plain
    raise SpecError(f"--seeds: got {text!r}, expected a number of runs (5), seeds (0,1,2), or a range (0..4).")


def fit_seeds(
    program: str, own: str | None, given: Sequence[tuple[str, Any]], settings: list[str], seeds: str, flags: Flags
) -> int:
    """Train with each seed, in a folder of its own, and report the mean and the standard deviation.

    Raises:
        SpecError: a flag that is for one run.
    """
    from ppdgm.cli.sweep_checks import Asked
    from ppdgm.cli.sweeping import run_sweep

    over = f"{SEED}={parse_seeds(seeds)}"
    alone = {"--overwrite": flags.overwrite, "--tensorboard": flags.tensorboard, "--wandb": flags.wandb is not None}
    if one := next((name for name, set_ in alone.items() if set_), None):
        raise SpecError(f"{one}: is for one run, and --seeds trains several. Leave one of them out.")
    if any(path == SEED for path, _ in given):
        raise SpecError("Got --seed and --seeds. Give only one of them.")
    words = [f"{path}={_as_toml(value)}" for path, value in given if path != "data.name"]
    name = {path: ("--data", value) for path, value in given if path == "data.name"}
    out = Path(flags.out or FOLDER)
    asked = Asked(
        program, own, name, [*words, *settings], [over], None, 1, out, flags.quiet, flags.as_json, flags.command
    )
    return run_sweep(asked)


def _as_toml(value: object) -> str:
    """A flag's value, as --set takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
