"""`ppdgm compare`: several runs on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ppdgm.cli.options import (
    Backend,
    Debug,
    Device,
    Header,
    Index,
    Json,
    OtherData,
    Particles,
    Program,
    Seed,
    Split,
    Units,
)
from ppdgm.cli.output import emit, say, tell, text_table

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data

WIDTH = 40  # of a setting's value


def compare(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="The folders of two runs or more.")],
    data: OtherData = None,
    split: Split = None,
    k: Particles = 1000,
    seed: Seed = 0,
    backend: Backend = None,
    device: Device = "auto",
    own: Program = None,
    units: Units = None,
    header: Header = None,
    index: Index = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare runs on the same rows: log p(x), paired differences, settings that differ.

    Examples:
      ppdgm compare runs/vae runs/vamp
      ppdgm compare runs/* --k 5000 --json
      ppdgm compare runs/vae runs/vamp --data new.csv

    The best run comes first. A difference is the mean over rows of log p(x)
    minus that of the best run, with the standard error of the paired
    difference. All runs must have the same rows, scaled in the same way.
    """
    import ppdgm
    from ppdgm.cli.opening import load_part, open_run
    from ppdgm.errors import SpecError
    from ppdgm.inference.evaluation.compare import HEAD, compared

    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise SpecError(f"RUN: got {', '.join(runs)}, expected two different runs or more. See: ppdgm runs")
    fits, told = {}, {}
    for run in runs:
        opened = open_run(run, own, context.obj, header=header, index=index)
        fit = ppdgm.load(run, backend, program=opened.program, classes=opened.classes, device=device)
        part, name, which = load_part(opened, fit, data, split, context.obj, units)
        fits[run], told[run] = (fit, part), (name, which)
    _check_same(runs, {run: part for run, (_, part) in fits.items()})
    if not as_json:
        tell(f"log p(x) of {len(runs)} runs with k = {k} …")
    found = compared(fits, k, seed)
    name, which = told[runs[0]]
    n = len(found.log_likelihood[found.best].values)
    if as_json:
        emit({"data": name, "split": which, "n": n, "k": k, "runs": found.table(), "settings": found.settings})
        return
    say(f"{n} rows of {name} ({which}), in nats per row")
    say(text_table(HEAD, found.rows(), right=(1, 2, 3)))
    if found.notes:
        say("\n".join(found.notes))
    if found.settings:
        say("\nSettings that differ:")
        names = list(found.log_likelihood)
        cells = [[key, *(_short(values[n]) for n in names)] for key, values in found.settings.items()]
        say(text_table(("setting", *names), cells))


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def _check_same(runs: list[str], parts: dict[str, Data]) -> None:
    """Refuse runs whose rows differ: no difference between them is paired."""
    import numpy as np

    from ppdgm.errors import DataError

    of = lambda part: part if isinstance(part, dict) else {"x": part}
    first = of(parts[runs[0]])
    for run in runs[1:]:
        other = of(parts[run])
        for name in first.keys() & other.keys():
            a, b = (np.asarray(v[:]) for v in (first[name], other[name]))
            if a.shape != b.shape or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                raise DataError(
                    f"{runs[0]} and {run}: their rows differ, or are scaled in another way (field {name!r}). Compare "
                    "runs with the same data, seed, scale and held-out part; or give the rows: --data PATH."
                )
