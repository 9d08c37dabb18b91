"""RUN on the command line: the folder of a run, what its recipe says, and its data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from ppdgm.cli.programs import names_own_code, own_code, own_code_missing
from ppdgm.data import Dataset, Source, as_fields, catalogue, check_units, load_data
from ppdgm.data.images import PICTURES
from ppdgm.errors import CheckpointError, DataError, SpecError, nearest
from ppdgm.inference.evaluation.estimates import leave_labels
from ppdgm.inference.inputs.own_rows import fingerprint
from ppdgm.inference.runs.recipe import check_format, read_recipe, source_of
from ppdgm.program import AnyProgram, PlainPair
from ppdgm.specs import Spec, Table

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data
    from ppdgm.inference import Fit

Units = Literal["own", "prepared"] | None
SPLITS = ("train", "validation", "test", "all")


@dataclass(frozen=True)
class Opened:
    """A run's recipe, and what is needed to open it.

    Attributes:
        path: as given: the folder, or a checkpoint of it.
        table: of its recipe.
        classes, program: the user's own, from --program.
        told: what --header and --index say about a table of data.
    """

    path: str
    table: Table
    classes: list[type[Spec]]
    program: AnyProgram | None
    told: dict[str, bool | None] = field(default_factory=dict)

    def source(self, name: str | None, command: list[str]) -> Source:
        """The source of the data: the run's, or another set by name or path, prepared as the run's were."""
        table = dict(self.table.get("data", {}))
        if name is None and (not table or table.get("given_in_python")):
            again = shlex.join(["ppdgm", *command]) + " --data NAME|PATH"
            raise DataError(f"{self.path}: the run got its data in Python, so its recipe has none. Give them: {again}")
        if name is not None and name != table.get("name"):
            own = [
                "validation",
                "test",
                "header",
                "decimal",
                "given_in_python",
                "weights",
                *PICTURES,
            ]  # are those of the other set
            own += [] if isinstance(table.get("index"), str) else ["index"]  # a name is the same there
            own += [] if name.lower().endswith(".h5ad") else ["layer"]
            table = {**{k: v for k, v in table.items() if k not in own}, "name": name}
        table |= {k: v for k, v in self.told.items() if v is not None}
        return source_of(table)


def open_run(run: str, own: str | None, command: list[str], **told: bool | None) -> Opened:
    """Read a run's recipe, and the user's own code that it names.

    Raises:
        CheckpointError: there is no run, or a recipe that can't be read.
        SpecError: it names the user's own classes, and --program is missing.
    """
    path = Path(run)
    if not path.exists():
        raise CheckpointError(f"{run}: there is no such run. Expected a folder of a run. To list runs: ppdgm runs DIR")
    homes = [path] if path.is_dir() else [path.parent, path.parent.parent]
    recipe = next((home / "recipe.toml" for home in homes if (home / "recipe.toml").is_file()), None)
    if recipe is None:
        raise CheckpointError(f"{run} is not a run: it has no recipe.toml. Expected a folder that ppdgm fit wrote.")
    try:
        table = read_recipe(recipe)
        check_format(table)
    except SpecError as error:
        raise CheckpointError(str(error)) from None
    classes, program = own_code(own, table)
    if program is None and (kind := names_own_code(table, classes)):
        raise own_code_missing(kind, command)
    return Opened(run, table, classes, program, told)


def load_part(
    opened: Opened,
    fit: Fit,
    name: str | None,
    split: str | None,
    command: list[str],
    units: str | None = None,
) -> tuple[Data, str, str]:
    """Data to evaluate a run on.

    Args:
        opened, fit: the run.
        name: of other data than the run's own; they are scaled as the run's were.
        split: "train", "validation", "test" or "all"; by default the test data, and all of a file of other data.
        command: the command line, for messages.
        units: of other data: "own", "prepared", or None to judge by how they look.

    Returns:
        The data, their name, and the split.
    """
    found, source, split = load_whole(opened, fit, name, split, command, units)
    return rows_of_split(found, split), source, split


def load_whole(
    opened: Opened,
    fit: Fit,
    name: str | None,
    split: str | None,
    command: list[str],
    units: str | None = None,
) -> tuple[Dataset, str, str]:
    """The data set of which `load_part` returns a part, its name, and the split."""
    if split not in (None, *SPLITS):
        raise SpecError(f"--split: got {split!r}. {nearest(str(split), SPLITS)}")
    check_units(units)
    if units is not None and name is None:
        raise SpecError(f"--units: got {units!r}, but these are the run's own data. Give other data: --data PATH.")
    source = opened.source(name, command)
    if split is None:
        split = "all" if name is not None and name not in catalogue() else "test"
        if split == "all":
            source = source.replace(validation=0, test=0)
    if split in ("train", "all") and source.binarise == "dynamic":
        source = source.replace(binarise="static")  # training data would otherwise not be drawn
    if name is not None:
        return load_data(source, like=fit, units=cast(Units, units)), source.name, split  # checked above
    data = load_data(source)
    _check_unchanged(data, fit)
    return data, source.name, split


def _check_unchanged(data: Dataset, fit: Fit) -> None:
    """Refuse the run's own data if they have changed: their test data would not be held out."""
    known = fit.info.get("fingerprint")
    if known is None or data.binarise != fit.training.binarise:
        return
    typed = isinstance(fit.program, PlainPair)
    now = as_fields(leave_labels(fit.program, data.train), fit.training.dtype, typed=typed)
    if fingerprint(now) != known:
        raise DataError(
            f"{data.name}: the data have changed since the run was trained. They may contain rows that it was "
            f"trained on. To evaluate them anyway: --data {shlex.quote(data.name)} --split all"
        )


def rows_of_split(data: Dataset, split: str) -> Data:
    """The rows of one split, or of all, in the order train, validation, test."""
    parts = {s: getattr(data, s) for s in SPLITS[:3] if getattr(data, s) is not None}
    if split != "all" and split not in parts:
        raise DataError(f"--split {split}: {data.name} has no such data. Choose one of: {', '.join([*parts, 'all'])}.")
    if split in parts or len(parts) == 1:
        return parts.get(split, next(iter(parts.values())))
    whole = list(parts.values())
    if isinstance(whole[0], dict):
        return {n: np.concatenate([p[n][:] for p in whole]) for n in whole[0]}
    return np.concatenate([p[:] for p in whole])


def names_of_split(data: Dataset, split: str) -> tuple[str, np.ndarray] | None:
    """The names of the rows that `rows_of_split` returns, and of their column; None if rows have no names."""
    parts = [s for s in SPLITS[:3] if getattr(data, s) is not None]
    chosen = [s for s in parts if split in (s, "all")] or parts
    if not data.index:
        return None
    return data.transform.index or "name", np.concatenate([data.index[s] for s in chosen])
