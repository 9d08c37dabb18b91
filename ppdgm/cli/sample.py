"""`ppdgm sample`: draw data from a trained program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ppdgm.cli.options import Backend, Debug, Device, Json, Last, Program, Run, Seed, flag, whole_number
from ppdgm.cli.output import emit, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from ppdgm.data.transform import Transform

SUFFIXES = (".png", ".npy", ".npz", ".csv")


def sample(
    context: typer.Context,
    run: Run,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", parser=whole_number(1), metavar="INTEGER", help="Number of samples. Default: 64.", show_default=False
        ),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="FILE", help="The file to write: .png, .npy, .npz or .csv.")
    ] = "samples.png",
    seed: Seed = 0,
    mean: Annotated[
        bool, typer.Option("--mean", metavar="", help="Write the likelihood's means, instead of draws.")
    ] = False,
    given: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|NAME=VALUE,…",
            help="Given fields or sites: an .npz file, or numbers or class names. Give one for all, or one for each "
            "sample. For several names, repeat it.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, flag("Replace FILE.", "--overwrite")] = False,
    backend: Backend = None,
    device: Device = "auto",
    last: Last = False,
    own: Program = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw new data from a run, and write them to a file.

    Examples:
      ppdgm sample runs/vae --out samples.png
      ppdgm sample runs/vae --n 16 --mean --seed 1 --out means.png
      ppdgm sample runs/vae --n 1000 --out samples.npz
      ppdgm sample runs/cvae --given label=7
      ppdgm sample runs/iris --given label=setosa
      ppdgm sample runs/cvae --given labels.npz
      ppdgm sample runs/own --given label=7 --given z=0.5

    A picture shows images, or histograms of a table's columns. Arrays and
    tables have the units of your data, because the scaling is undone.
    Binarised data stay 0 or 1.
    """
    from pathlib import Path

    import numpy as np

    import ppdgm
    from ppdgm.cli.opening import open_run
    from ppdgm.data.column import plain_column
    from ppdgm.errors import CheckpointError, DataError, SpecError, nearest

    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"--out: got {out!r}. {nearest(path.suffix, SUFFIXES)}")
    if path.exists() and not overwrite:
        raise CheckpointError(f"--out: {out} exists. Choose another file, or replace it with --overwrite.")
    opened = open_run(run, own, context.obj)
    fit = ppdgm.load(run, backend, program=opened.program, classes=opened.classes, device=device, last=last)
    known = _read_all(given or [], n, fit.classes)
    rows = {len(a) for a in known.values()} or {n or 64}
    if len(rows) > 1 or (n or 0) not in (0, *rows):
        sizes = ", ".join(f"{len(a)} of {name}" for name, a in known.items())
        raise DataError(f"--given: got {sizes}, expected {n or 'the same number'} of each: one row for each sample.")
    (n,) = rows
    picture = path.suffix.lower() == ".png"
    found = fit.sample(n, seed=seed, mean=mean, given=known, units="prepared" if picture else "own")
    if not isinstance(found, dict) and hasattr(found, "columns"):  # rows of a table of mixed columns
        values = [plain_column(np.asarray(found[name])).astype(object) for name in found.columns]
        found = np.stack(values, -1)
        found = found if path.suffix.lower() == ".csv" else found.astype(str)  # files hold no objects
    sites: dict[str, np.ndarray] = found if isinstance(found, dict) else {"x": found}
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, sites, fit.transform)
    shapes = {name: list(value.shape) for name, value in sites.items()}
    if as_json:
        emit({"out": out, "n": n, "seed": seed, "mean": mean, "shapes": shapes})
    else:
        say(f"{n} {'means' if mean else 'samples'} in {out}")


def _read_all(given: list[str], n: int | None, classes: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """The arrays of all --given, by name; one number, or one name of a class, is used for all rows."""
    import numpy as np

    from ppdgm.errors import DataError

    found: dict[str, np.ndarray] = {}
    once: dict[str, np.ndarray] = {}
    for one in given:
        arrays, alike = _read_given(one, classes)
        if twice := [name for name in arrays if name in found or name in once]:
            raise DataError(f"--given: got {twice[0]!r} twice. Give it once.")
        (once if alike else found).update(arrays)
    rows = n or next((len(a) for a in found.values()), 64)
    return {**{name: np.repeat(a, rows) for name, a in once.items()}, **found}


def _read_given(given: str, classes: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays of one --given, by name, and whether it is one value for all rows."""
    import numpy as np

    from ppdgm.errors import DataError

    name, equals, numbers = given.partition("=")
    if equals and name.isidentifier():
        values = _values(numbers, classes.get(name, ()))
        return {name: values}, len(values) == 1
    try:
        with np.load(given) as file:
            found = dict(file)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"--given: {given} can't be read as an .npz file of arrays ({error}).") from None
    if not found or any(a.ndim == 0 or not len(a) for a in found.values()):
        raise DataError(f"--given: {given} has no rows. Expected an array for each field, with a row for each sample.")
    return found, False


def _values(text: str, names: tuple[str, ...]) -> np.ndarray:
    """Names of classes, if they are known, or numbers."""
    import numpy as np

    from ppdgm.errors import DataError

    if text in names:
        return np.array([text])
    words = [word.strip() for word in text.split(",")]
    if any(word in names for word in words):
        return np.array(words)
    try:
        found = np.array([float(word) for word in words])
    except ValueError:
        if names:  # refused by name, as a class that is not known
            return np.array(words)
        raise DataError(f"--given: got {text!r}, expected numbers, such as label=7 or label=0,1,2.") from None
    return found.astype(int) if np.isfinite(found).all() and (found == np.rint(found)).all() else found


def _write(path: Path, sites: dict[str, np.ndarray], transform: Transform | None) -> None:
    import numpy as np

    from ppdgm.errors import SpecError
    from ppdgm.plots import in_ink, samples_picture

    kind = path.suffix.lower()
    x = sites["x"] if "x" in sites else next(iter(sites.values()))
    named = getattr(transform, "columns", ()) if "x" in sites else ()
    if kind == ".png":
        samples_picture(path, in_ink(np.asarray(x), transform), names=named)
        return
    if kind != ".npz" and len(sites) > 1:
        raise SpecError(f"--out: a {kind} file has one site, but the program has {', '.join(sites)}. Use .npz.")
    first = next(iter(sites.values()))
    with path.open("wb") as file:
        if kind == ".npz":
            np.savez(file, **sites)  # type: ignore[arg-type]  # numpy takes the names for its option
        elif kind == ".npy":
            np.save(file, first)
        else:
            table = first.reshape(len(first), -1)
            names = named if len(named) == table.shape[1] else [f"x{i}" for i in range(table.shape[1])]
            head = ",".join(_quoted(name) for name in names)
            rows = [
                ",".join(_quoted(str(v).removesuffix(".0")) for v in row) for row in table
            ]  # as many digits as they have
            file.write("\n".join([head, *rows, ""]).encode())


def _quoted(name: str) -> str:
    """A name as CSV has it: in quotes if it contains a comma, a quote or the end of a line."""
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\r\n') else name
