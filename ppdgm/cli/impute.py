"""`ppdgm impute`: a table's missing entries filled in, to a file."""

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
    Last,
    OtherData,
    Program,
    Run,
    Seed,
    Split,
    flag,
)
from ppdgm.cli.output import emit, say

if TYPE_CHECKING:
    import numpy as np

    from ppdgm.inference import Fit


def impute(
    context: typer.Context,
    run: Run,
    data: OtherData = None,
    split: Split = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="The file to write: .csv, .npz or .parquet.")] = "whole.csv",
    mean: Annotated[bool, flag("Best guesses, and not draws.", "--mean")] = False,
    interval: Annotated[
        float | None,
        typer.Option(metavar="P", help="Also the ends of intervals of this probability: columns NAME_low, NAME_high."),
    ] = None,
    k: Annotated[int, typer.Option("--k", metavar="K", help="Draws of the guide, per row.")] = 1000,
    seed: Seed = 0,
    overwrite: Annotated[bool, flag("Replace FILE.", "--overwrite")] = False,
    backend: Backend = None,
    device: Device = "auto",
    last: Last = False,
    own: Program = None,
    header: Header = None,
    index: Index = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fill in what is missing in a table, given the rest of each row.

    Examples:
      ppdgm impute runs/table --data new.csv --out whole.csv
      ppdgm impute runs/table --data new.csv --mean --interval 0.9
      ppdgm impute runs/table --split train --seed 1

    The run has a program with the likelihood Table. Each missing entry is
    drawn given the entries of its row that are there: with another --seed it
    is another one. --mean gives means, and the most probable classes.
    """
    from pathlib import Path

    import ppdgm
    from ppdgm.cli.encode import SUFFIXES, write_columns
    from ppdgm.cli.opening import load_part, open_run
    from ppdgm.data.column import plain_column
    from ppdgm.errors import CheckpointError, SpecError, nearest
    from ppdgm.inference.inputs.tables import table_of

    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"--out: got {out!r}. {nearest(path.suffix, SUFFIXES)}")
    if path.exists() and not overwrite:
        raise CheckpointError(f"--out: {out} exists. Choose another file, or replace it with --overwrite.")
    opened = open_run(run, own, context.obj, header=header, index=index)
    fit = ppdgm.load(run, backend, program=opened.program, classes=opened.classes, device=device, last=last)
    if table_of(fit.program) is None:
        raise SpecError(f"{run}: its program has no likelihood=Table(), so its rows have no missing entries.")
    part, name, split = load_part(opened, fit, data, split, context.obj)
    columns = _columns(fit, fit.impute(part, seed=seed, mean=mean, k=k))
    if interval is not None:
        for end, values in zip(("low", "high"), fit.impute(part, seed=seed, interval=interval, k=k), strict=True):
            columns |= {f"{column}_{end}": v for column, v in _columns(fit, values).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_columns(path, {n: plain_column(v) for n, v in columns.items()})
    n = len(next(iter(columns.values())))
    if as_json:
        told = {"run": run, "data": name, "split": split, "out": out, "n": n, "k": k, "seed": seed}
        emit({**told, "mean": mean, "interval": interval, "columns": [*columns]})
    else:
        say(f"{n} rows of {name} in {out}: {', '.join(columns)}")


def _columns(fit: Fit, found: object) -> dict[str, np.ndarray]:
    """Rows as columns in their own values: x of load_data, or of fields beside it, is on the program's numbers."""
    import numpy as np

    from ppdgm.data.mixed import decode_table, typed_columns

    x = np.asarray(found, np.float64)
    table = fit.transform.table if fit.transform else ()
    if not table:
        return {f"x{i}": x[:, i] for i in range(x.shape[1])}
    return typed_columns(table, decode_table(table, x))
