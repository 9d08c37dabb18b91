"""`ppdgm encode`: codes and scores of each row, to a file."""

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
    Particles,
    Program,
    Run,
    Seed,
    Split,
    Units,
    flag,
)
from ppdgm.cli.output import emit, say

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

SUFFIXES = (".csv", ".npz", ".parquet")


def encode(
    context: typer.Context,
    run: Run,
    data: OtherData = None,
    split: Split = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="The file to write: .csv, .npz or .parquet.")] = "codes.csv",
    k: Particles = 1000,
    seed: Seed = 0,
    overwrite: Annotated[bool, flag("Replace FILE.", "--overwrite")] = False,
    backend: Backend = None,
    device: Device = "auto",
    last: Last = False,
    own: Program = None,
    units: Units = None,
    header: Header = None,
    index: Index = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the code and the scores of each row of the data to a table.

    Examples:
      ppdgm encode runs/vae --out codes.csv
      ppdgm encode runs/vae --data new.csv --out codes.parquet
      ppdgm encode runs/vae --split train --k 100 --seed 1

    Columns: row (its number in that part of the data, from 0); its name, if
    the data have an index; the means of the latents, such as z[0]; log_p, which is log p(x) in nats, with its
    Monte Carlo error; rank (1 is the least probable row); and
    reconstruction_error, the mean squared difference of x and its
    reconstruction, as the program sees them (scaled, if the run's data are).
    """
    from pathlib import Path

    import ppdgm
    from ppdgm.cli.opening import load_whole, names_of_split, open_run, rows_of_split
    from ppdgm.errors import CheckpointError, SpecError, nearest

    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"--out: got {out!r}. {nearest(path.suffix, SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        _check_parquet()
    if path.exists() and not overwrite:
        raise CheckpointError(f"--out: {out} exists. Choose another file, or replace it with --overwrite.")
    opened = open_run(run, own, context.obj, header=header, index=index)
    fit = ppdgm.load(run, backend, program=opened.program, classes=opened.classes, device=device, last=last)
    whole, name, split = load_whole(opened, fit, data, split, context.obj, units)
    found = dict(
        fit.scores(rows_of_split(whole, split), k=k, seed=seed)
    )  # rows of load_data are no table of another library
    n, names = len(found["log_p"]), names_of_split(whole, split)
    table = {"row": _numbers(n), **({names[0]: names[1]} if names else {}), **found}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_columns(path, table)
    if as_json:
        emit({"run": run, "data": name, "split": split, "out": out, "n": n, "k": k, "seed": seed, "columns": [*table]})
    else:
        say(f"{n} rows of {name} in {out}: {', '.join(table)}")


def write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Columns of one length as .csv, .npz or .parquet; the file is whole or absent."""
    import csv
    import io

    import numpy as np

    from ppdgm.files import write_atomically

    kind, content = path.suffix.lower(), io.BytesIO()
    if kind == ".npz":
        np.savez(content, **columns)  # type: ignore[arg-type]  # numpy takes the names for its option
    elif kind == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(columns), content)
    else:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(c.tolist() for c in columns.values()), strict=True))
        content.write(text.getvalue().encode())
    write_atomically(path, content.getvalue())


def _numbers(n: int) -> np.ndarray:
    import numpy as np

    return np.arange(n)


def _check_parquet() -> None:
    """Refuse, before work begins, a file for which a library is missing."""
    from importlib.util import find_spec

    from ppdgm.errors import SpecError

    if find_spec("pyarrow") is None:
        raise SpecError("--out: .parquet needs pyarrow: pip install pyarrow. Or write .csv or .npz.")
