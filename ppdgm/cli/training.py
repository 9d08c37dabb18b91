"""From the command line of `fit` to a run: defaults, recipe, flags, --set, data."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ppdgm.cli.following import Begins, Flags, follow, loggers, name_of
from ppdgm.cli.options import DATA, EPOCHS
from ppdgm.cli.overrides import apply, parse
from ppdgm.cli.programs import Chosen, choose_program, names_own_code, own_code_missing
from ppdgm.errors import CheckpointError, DataError, SpecError, nearest
from ppdgm.specs import Spec, Table

if TYPE_CHECKING:
    from ppdgm.data import Source
    from ppdgm.data.dataset import Dataset
    from ppdgm.inference import Fit
    from ppdgm.inference.runs.recipe import Recipe
    from ppdgm.program import AnyProgram, Program

Settings = Sequence[tuple[str, Any]]
_REMEDIES = (  # for mistakes in data, in the words of the command line
    ("0 or 1", "Use --set program.likelihood=Gaussian; or, for x in [0, 1], --binarise static."),
    ("scale='levels'", "Use --set data.scale=levels --set data.binarise=none."),
    ("scale='table'", "Use --set program.likelihood=Table."),
    ("scale='none'", "Use --set data.scale=none --set data.binarise=none."),
    ("scale='unit'", "Use --set data.scale=unit."),
    (
        "but the model of",
        "Give its fields: --set data.fields=x,label for arrays, --set 'data.fields={x = …}' for columns.",
    ),
)


def train(program: str, own: str | None, given: Settings, settings: list[str], flags: Flags) -> int:
    """`ppdgm fit`, after its command line is read."""
    chosen = choose_program(program, own)
    table = complete(chosen, given, [parse(s) for s in settings])
    if chosen.program is None and (kind := names_own_code(table, chosen.classes)):
        raise own_code_missing(kind, flags.command)
    check_out(flags)
    recipe, data = prepare_run(chosen, table)

    import ppdgm

    out, made = _folder(flags, recipe)
    training = {n: getattr(recipe.training, n) for n in table["training"] if n != "kind"}
    begins = Begins("" if flags.quiet else f"Training {name_of(recipe.program)} on {data.name}: {out}")

    def run() -> Fit:
        return ppdgm.fit(
            recipe.program,
            data,
            engine=recipe.engine,
            backend=recipe.backend,
            callbacks=[begins, *loggers(flags, out)],
            progress=flags.progress,
            out=out,
            overwrite=flags.overwrite,
            **training,
        )

    try:
        return follow(run, data, out, flags)
    except DataError as error:
        remedy = next((remedy for words, remedy in _REMEDIES if words in str(error)), "")
        raise DataError(f"{error} {remedy}".rstrip()) from error
    finally:
        for folder in made:  # they are empty if the run did not start
            if not any(folder.iterdir()):
                folder.rmdir()


def complete(chosen: Chosen, given: Settings, settings: Settings) -> dict[str, Any]:
    """The recipe's table after flags and --set, with the defaults filled in."""
    paths = {path for path, _ in (*given, *settings)}
    flags = {path for path, _ in given}
    if {"training.epochs", "training.steps"} <= flags:
        raise SpecError("Got --epochs and --steps: give one of them, for the length of training.")
    if hasattr(chosen.program, "data_plate") and any(p.startswith("program.") for p in paths):
        raise SpecError("--set program.…: a plain pair has no fields. Change it in its file.")
    table = dict(chosen.table)
    written = chosen.recipe and "versions" in table  # by a run
    if written and ("data" not in table or table["data"].get("given_in_python")) and "data.name" not in paths:
        raise SpecError(f"{chosen.recipe} has no data: the run got them in Python. Give them: --data NAME|PATH.")
    before = dict(table.get("data", {}))
    table = apply(apply(table, [_spelled(s) for s in given], chosen.classes), settings, chosen.classes)
    table.setdefault("data", {}).setdefault("name", DATA)
    training = table.setdefault("training", {})
    if "epochs" not in training and "steps" not in training:
        training["epochs"] = EPOCHS
    likelihood = table.get("program", {}).get("likelihood")
    if "Table" in (likelihood, likelihood.get("kind") if isinstance(likelihood, dict) else None):
        table["data"].setdefault("scale", "table")  # with names, dates and missing cells
    other = bool(before) and table["data"]["name"] != before.get("name")
    follows = (before.get("binarise") == "dynamic") == (training.get("binarise") == "dynamic")  # it came from the data
    if ("data.binarise" in paths or (other and follows)) and "training.binarise" not in paths:
        training.pop("binarise", None)  # it was the data's own
    if other:
        _other_data(table, before, paths)
    if training.get("optimiser") == "own":
        raise SpecError(
            "The recipe's optimiser is a Python object, which text can't contain. Choose one: --optimiser adam."
        )
    if chosen.program is not None and any(p.startswith("program.") for p in paths):
        chosen.program = cast("Program", Spec.from_dict(table["program"], chosen.classes))  # or it is refused later
    return table


def _other_data(table: dict[str, Any], before: Table, paths: set[str]) -> None:
    """With other data, drop what was found from the old data: shape, form of a table, preparation of a known set."""
    from ppdgm.data import catalogue

    layer = () if str(table["data"]["name"]).lower().endswith(".h5ad") else ("layer",)
    for name in ("header", "index", "decimal", "given_in_python", *layer):  # they belong to another file
        if f"data.{name}" not in paths and not (name == "index" and isinstance(table["data"].get(name), str)):
            table["data"].pop(name, None)
    if "program.event_shape" not in paths:
        table.get("program", {}).pop("event_shape", None)
    if {str(table["data"]["name"]), str(before.get("name"))} & set(catalogue()):
        kept = ("name", "seed", "memory")
        table["data"] = {k: v for k, v in table["data"].items() if k in kept or f"data.{k}" in paths}


def prepare_run(
    chosen: Chosen, table: dict[str, Any], load: Callable[[Source | str], Dataset] | None = None
) -> tuple[Recipe, Dataset]:
    """The recipe, checked, and its data, loaded (by `load` instead of `load_data`)."""
    from ppdgm.data import load_data
    from ppdgm.inference.runs.recipe import Recipe

    settings = {name: value for name, value in table.items() if name != "program"}
    stand_in = cast("AnyProgram", object())  # nothing looks at it
    source = Recipe.from_table(settings, chosen.classes, program=stand_in).data  # their mistakes come before data
    data = (load or load_data)(source or DATA)
    return Recipe.from_table(table, chosen.classes, chosen.program, data.event_shape), data


def check_out(flags: Flags) -> None:
    """Refuse an --out that has a run in it, in the words of the command line."""
    from ppdgm.inference.runs.layout import holds_results

    if flags.out and holds_results(Path(flags.out)) and not flags.overwrite:
        raise CheckpointError(
            f"--out: {flags.out} already has a run. Choose another folder, replace the run with --overwrite, or "
            f"continue it: ppdgm resume {shlex.quote(flags.out)}"
        )


def _spelled(setting: tuple[str, Any]) -> tuple[str, Any]:
    """--engine in upper or lower case."""
    path, value = setting
    if path != "engine.kind":
        return setting
    from ppdgm.catalogue import public_names
    from ppdgm.inference import Engine

    known = {name.lower(): name for name in public_names([Engine])}
    if value.lower() not in known:
        raise SpecError(f"--engine: got {value!r}. {nearest(value, known.values())}")
    return path, known[value.lower()]


def _folder(flags: Flags, recipe: Recipe) -> tuple[Path, list[Path]]:
    """The run's folder: --out, or the first free runs/PROGRAM-DATA-N; and the folders that were made here."""
    if flags.out:
        return Path(flags.out), []
    data = Path(cast("Source", recipe.data).name).stem or "data"  # the command line always gives one
    n = 1
    while True:
        out = Path("runs") / f"{name_of(recipe.program).lower()}-{data}-{n}"
        made = [p for p in (out, out.parent) if not p.exists()]
        try:
            out.mkdir(parents=True)
        except FileExistsError:
            n += 1
        else:
            return out, made
