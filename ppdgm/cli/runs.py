"""`ppdgm runs`: a table of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

import typer

from ppdgm.cli.options import Debug, Json
from ppdgm.cli.output import emit, one_line, say, text_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ppdgm.specs import Table

HEAD = ("run", "program", "engine", "backend", "step", "ELBO", "validation", "bits/dim", "state", "when")


def runs(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="The folder to search, with all folders in it.")
    ] = "runs",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the runs in a folder: program, engine, steps, ELBO and state.

    Examples:
      ppdgm runs
      ppdgm runs experiments --json

    The column ELBO shows the ELBO of the last training steps, if the engine
    has one. The column validation shows the ELBO of the validation data; both
    are in nats per row of the data. An engine that watches another number is
    shown with its name, such as "loss 0.53". The column bits/dim is for data
    of whole numbers: the validation ELBO, or else the ELBO, in bits per
    dimension. The column state shows if a run was killed or is damaged.
    """
    from pathlib import Path

    from ppdgm.errors import CheckpointError

    top = Path(folder)
    if not top.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder. ppdgm fit writes its runs to runs/ by default.")
    found = [read_run(path, top) for path in find_runs(top)]
    if as_json:
        emit(found)
    elif not found:
        say(f"No runs in {folder}.")
    else:
        say(text_table(HEAD, [_row(run) for run in found], right=(4, 5, 6, 7)))
        for run in found:
            if "problem" in run:
                say(f"{run['name']}: {run['problem']}")


def find_runs(top: Path) -> Iterator[Path]:
    """Folders with a recipe or a status, sorted by name; a run's own folders are not searched."""
    import os
    from pathlib import Path

    for here, folders, names in os.walk(top):
        if "recipe.toml" in names or "status.json" in names:
            yield Path(here)
            folders.clear()
        folders[:] = sorted(f for f in folders if not f.startswith("."))


def read_run(path: Path, top: Path) -> Table:
    """What is known about one run; "problem" says what can't be read."""
    from ppdgm.errors import PpdgmError
    from ppdgm.inference.runs.layout import read_status
    from ppdgm.inference.runs.recipe import check_format, read_recipe

    found: dict[str, Any] = {"run": str(path), "name": str(path.relative_to(top)) if path != top else path.name}
    try:
        recipe = read_recipe(path / "recipe.toml")
        found |= {n: _inside(recipe, n, "kind") for n in ("program", "engine")}
        found |= {"data": _inside(recipe, "data", "name"), "backend": recipe.get("backend")}
        check_format(recipe)
        status = read_status(path)
    except (PpdgmError, TypeError) as error:
        return {**found, "state": "damaged", "problem": one_line(error)}
    if not status:
        return {**found, "state": "unknown", "problem": "it has no status.json."}
    names = ("step", "steps", "elbo", "objective", "validation_elbo", "skipped", "state", "updated", "dimensions")
    criterion = status.get("criterion")
    if criterion is None and status.get("validation_elbo") is not None:  # of an older run
        criterion = "elbo"
    watched = {"criterion": criterion, "validation": status.get("validation", status.get("validation_elbo"))}
    found |= {n: status.get(n) for n in names} | watched
    return found | {"bits_per_dimension": _bits(found)}


def _bits(run: Table) -> float | None:
    """The validation ELBO, or else the ELBO, in bits per dimension; None if some numbers of the data are real."""
    from ppdgm.diagnostics.bits import bits_per_dimension

    value = run["validation"] if run["criterion"] == "elbo" else run["elbo"]
    size = run["dimensions"]
    return bits_per_dimension(value, size) if _is_number(value) and isinstance(size, int) and size > 0 else None


def _inside(recipe: Table, name: str, key: str) -> object:
    table = recipe.get(name)
    return table.get(key) if isinstance(table, dict) else None


def _row(run: Table) -> list[str]:
    step, steps = run.get("step"), run.get("steps")
    return [
        run["name"],
        *(str(run.get(n) or "?").rpartition(":")[2] for n in ("program", "engine", "backend")),
        "-" if step is None else str(step) if step == steps else f"{step}/{steps}",
        _number(run.get("elbo")),
        _validation(run),
        f"{run['bits_per_dimension']:.4f}" if _is_number(run.get("bits_per_dimension")) else "-",
        str(run["state"]),
        _ago(run.get("updated")),
    ]


def _validation(run: Table) -> str:
    """The criterion's value, with its name if it is not the ELBO."""
    name, value = run.get("criterion"), run.get("validation")
    if name in (None, "elbo") or not _is_number(value):
        return _number(value)
    return f"{name} {value:.4g}"


def _number(value: object) -> str:
    return f"{value:.2f}" if _is_number(value) else "-"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and -1e300 < value < 1e300


def _ago(then: object) -> str:
    import time

    if not _is_number(then):
        return "-"
    seconds = max(time.time() - then, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds / size)} {unit} ago"
    return "now"
