"""Training goes on: `resume`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from ppdgm.data import Dataset, enter, is_raw, load_data
from ppdgm.errors import CheckpointError, DataError, PpdgmError, TrainingError
from ppdgm.inference.engines.augmentations import as_augmentations
from ppdgm.inference.evaluation.result import Fit
from ppdgm.inference.inputs.no_data import reads_data, rows_for
from ppdgm.inference.inputs.tables import table_of, with_columns
from ppdgm.inference.runs.codings import read_codings
from ppdgm.inference.runs.folder import find_saved, open_saved
from ppdgm.inference.runs.layout import CHECKPOINTS, as_path
from ppdgm.inference.runs.recipe import Recipe, check_same_program, read_recipe
from ppdgm.inference.training.alone import trained_alone
from ppdgm.inference.training.changes import check_allowed, with_rate
from ppdgm.inference.training.fit import callbacks_of
from ppdgm.inference.training.job import Callback, Job, Saved
from ppdgm.inference.training.opened import opened_for
from ppdgm.language.native import OwnOptimiser
from ppdgm.program import AnyProgram, check_program
from ppdgm.specs import Kind, Table
from ppdgm.specs.schedules import Schedule

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data
    from ppdgm.inference.inputs.row_weights import Weights
    from ppdgm.inference.runs.settings import Training
    from ppdgm.language.augmenting import Augment


def resume(
    path: str | Path,
    data: Data | Dataset | None = None,
    *,
    validation: Data | None = None,
    weights: Weights | None = None,
    program: AnyProgram | None = None,
    classes: Iterable[type[Kind] | str] = (),
    optimiser: OwnOptimiser | None = None,
    augment: Augment | Iterable[Augment] | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    learning_rate: float | Schedule | None = None,
    device: str | None = None,
    devices: int | Literal["all"] | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    **unknown: object,
) -> Fit:
    """Go on with a run that was stopped or killed: on the same machine's CPU, with the same bits as without a stop.

    Only what is listed here can change; everything else is as the run was started.

    Args:
        path: the run's folder.
        data, validation, weights: as they were given to `fit`; not needed if the recipe names them.
        program: the program itself, if it can't be written as text (plain pairs).
        classes: your own classes that the recipe names, as for `load`.
        optimiser, augment: your own, if the run was started with one.
        epochs, steps: the length of the whole run, to train for longer than was planned.
        learning_rate: from here on: a number, or a schedule that counts its steps from here. Phases and stages with a
            rate of their own keep it. The recipe then has a `Switch`, which repeats the whole run, and early stopping
            counts its validations again from here.
        device, devices: where to go on, if it is another place; another number of devices changes only the rounding.
        callbacks, progress: as for `fit`.
        checkpoint: a checkpoint file of the run; the last one by default.

    Raises:
        TrainingError: an argument that a resumed run can't change, with the reason.
        CheckpointError: there is nothing to go on from, or it is damaged (then the checkpoint before is offered).
        DataError: the data are not those that the run was started with.
    """
    check_allowed(unknown)
    home = as_path("path", path)
    if program is not None:
        check_program(program)
    file = find_saved(home if checkpoint is None else as_path("checkpoint", checkpoint), to_resume=True)
    folder = file.parent.parent
    own = home.is_file() or home.resolve() == folder.resolve()
    if file.parent.name != CHECKPOINTS or not own:
        raise CheckpointError(f"checkpoint: got {file}, expected a file in the folder {CHECKPOINTS!r} of {path}.")
    arrays, page = open_saved(file, to_resume=True)
    recipe = _resumed_recipe(folder, page, program, classes)
    if epochs is not None or steps is not None:
        recipe = replace(recipe, training=recipe.training.replace(epochs=epochs, steps=steps))
    place = {n: v for n, v in (("device", device), ("devices", devices)) if v is not None}
    recipe = replace(recipe, training=recipe.training.replace(**place))
    total = recipe.training.length(-(-page["data_size"] // (recipe.training.batch_size or 1)))
    if total < page["step"]:
        raise TrainingError(
            f"{folder}: the run is already at step {page['step']}, and {total} steps were asked for. Give more "
            "steps or epochs."
        )
    if learning_rate is not None:
        recipe = with_rate(recipe, page["step"], total, learning_rate)
    if (recipe.training.optimiser == "own") != (optimiser is not None):
        if optimiser is not None:
            raise TrainingError(f"optimiser: the run in {folder} already has one. Leave it out.")
        raise TrainingError(
            f"{folder}: the run was started with your own optimiser, which is not saved. Give it again: "
            "resume(…, optimiser=…)."
        )
    if data is None and reads_data(recipe.engine):
        if recipe.data is None or recipe.data.given_in_python:
            raise DataError(
                f"{folder}: the run's data were given in Python, and are not saved. Give them again: resume(…, data)."
            )
        data = load_data(recipe.data)
    if recipe.data is not None and recipe.data.given_in_python and is_raw(data):
        data = load_data(cast("Data", data), **recipe.data.options())
    data = opened_for(recipe.program, data)
    validation = opened_for(recipe.program, validation, data)
    data = rows_for(recipe.program, recipe.engine, data, recipe.training.batch_size)
    if not isinstance(data, Dataset) and table_of(recipe.program) is not None:
        data = enter(read_codings(arrays, page), data)
    _, data = with_columns(recipe.program, data)
    again = _augment_again(folder, recipe.training, augment)
    job = Job(recipe, data, validation, optimiser, callbacks_of(callbacks), progress, None, weights, again)
    with trained_alone(recipe.program):
        return job.run(folder, saved=Saved(file, arrays, page))


def _augment_again(folder: Path, training: Training, given: object) -> Augment | None:
    """The augmentation of a run that goes on."""
    if (training.augment == "own") != (given is not None):
        if given is not None:
            raise TrainingError(f"augment: the run in {folder} has its own, or none. Leave it out.")
        raise TrainingError(
            f"{folder}: the run was started with an augmentation in Python, which is not saved. Give it again: "
            "resume(…, augment=…)."
        )
    return as_augmentations(training.augment if given is None else given)[1]


def _resumed_recipe(
    folder: Path, page: Table, program: AnyProgram | None, classes: Iterable[type[Kind] | str]
) -> Recipe:
    """The recipe that was trained; where data are, where and how long to train: as in the folder's recipe."""
    table = dict(page["recipe"])
    now = read_recipe(folder / "recipe.toml") if (folder / "recipe.toml").is_file() else table
    moves = ("epochs", "steps", "device", "devices", "learning_rate")
    length = {n: v for n, v in now.get("training", {}).items() if n in moves}
    kept = {n: v for n, v in table["training"].items() if n not in moves}
    table = {**table, "training": {**kept, **length}, **({"data": now["data"]} if "data" in now else {})}
    try:
        check_same_program(table, program)
        return Recipe.from_table(table, classes, program)
    except PpdgmError as error:
        raise CheckpointError(f"{folder}: {error}") from None
