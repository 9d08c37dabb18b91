"""A sweep's command line, and what is checked before its first run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppdgm.cli.code import file_of, is_code
from ppdgm.cli.over import Over, combinations, parse_over
from ppdgm.cli.overrides import parse
from ppdgm.cli.programs import Chosen, names_own_code, own_code_missing
from ppdgm.cli.training import complete, prepare_run
from ppdgm.errors import PpdgmError, SpecError, listed

if TYPE_CHECKING:
    from ppdgm.inference.engines.criteria import Criterion
    from ppdgm.inference.runs.recipe import Recipe

_OF_X = ("name", "fields", "header", "index", "decimal", "missing", "layer", "scale", "binarise")  # of data: what x is


@dataclass(frozen=True)
class Asked:
    """The command line of a sweep.

    Attributes:
        program, own: PROGRAM and --program.
        given: fields that flags set, and how the flags are written.
        settings: of --set.
        over: of --over.
        trials, jobs: numbers; no trials for all combinations.
        out: the sweep's folder.
        quiet, as_json: what is shown.
        command: the whole line.
    """

    program: str
    own: str | None
    given: Mapping[str, tuple[str, Any]]
    settings: list[str]
    over: list[str]
    trials: int | None
    jobs: int
    out: Path
    quiet: bool
    as_json: bool
    command: list[str]


def overs_of(asked: Asked) -> list[Over]:
    """Fields and values.

    Raises:
        SpecError: a field twice, or with one value elsewhere.
    """
    from ppdgm.inference import Training

    overs = [parse_over(text, Training.model_fields, asked.trials is not None) for text in asked.over]
    if not overs:
        raise SpecError("--over: give the fields to change, and their values: --over program.latent=8,16,32.")
    paths = [over.path for over in overs]
    flags = {path: flag for path, (flag, _) in asked.given.items()}
    fixed = {**{parse(s)[0]: "--set" for s in asked.settings}, **flags}
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise SpecError(f"--over: got {path} twice. Give all its values in one --over.")
        if path in fixed:
            raise SpecError(f"Got --over {path} and {fixed[path]}, which gives it one value. Leave one of them out.")
    return overs


def recipes_of(asked: Asked, chosen: Chosen, overs: Sequence[Over]) -> tuple[list[tuple[Recipe, bool]], dict[str, str]]:
    """The recipe of each combination of values, and whether it has validation rows; and checksums of
    all data and of the user's code.

    Raises:
        SpecError, DataError: with the values; or two combinations are one run, as 0.1 and 1e-1 are.
    """
    from ppdgm.data import Source, as_fields, load_data
    from ppdgm.data.dataset import Dataset
    from ppdgm.inference.inputs.own_rows import fingerprint

    loaded: dict[str, Dataset] = {}
    checksums = _of_code(asked)

    def load(source: Source | str) -> Dataset:
        key = str(source)
        if key not in loaded:
            loaded.clear()  # one at a time in memory
            loaded[key] = data = load_data(source)
            splits = (s for s in (data.train, data.validation) if s is not None)
            checksums[key] = " ".join(fingerprint(as_fields(s, typed=True)) for s in splits)
        return loaded[key]

    given = [(path, value) for path, (_, value) in asked.given.items()]
    found, runs = [], dict[str, str]()
    for values in combinations(overs):
        text = " ".join(f"{p}={v}" for p, v in values.items())
        try:
            own = copy(chosen)
            table = complete(own, given, [*map(parse, asked.settings), *values.items()])
            if own.program is None and (kind := names_own_code(table, own.classes)):
                raise own_code_missing(kind, asked.command)
            recipe, data = prepare_run(own, table, load)
        except PpdgmError as error:
            raise type(error)(f"--over {text}: {error}") from error
        if (same := runs.setdefault(_in_text(recipe), text)) != text:
            raise SpecError(f"--over {text} is the same run as {same}. Give each value once.")
        found.append((recipe, data.validation is not None))
    return found, checksums


def _in_text(recipe: Recipe) -> str:
    """A recipe, the same for the same run: a file has one name."""
    table = dict(recipe.table())
    if recipe.data is not None and (file := Path(recipe.data.name)).exists():
        table["data"] = {**table["data"], "name": str(file.resolve())}
    return json.dumps(table, sort_keys=True, default=repr)


def _of_code(asked: Asked) -> dict[str, str]:
    """The checksum of the file with the user's own code, if there is one."""
    text = asked.own or asked.program
    file = file_of(text) if is_code(text) else None
    return {} if file is None or not file.is_file() else {str(file): sha256(file.read_bytes()).hexdigest()}


def check_searchable(criteria: Sequence[Criterion | None], held: Sequence[bool], apart: str) -> None:
    """Refuse a search without one number that all its runs have.

    Args:
        criteria: of the runs' engines.
        held: whether there are validation rows.
        apart: from `why_apart`.
    """
    if None in criteria or not all(held):
        what = "validation data" if None not in criteria else "an engine whose criterion validation can watch"
        raise SpecError(f"--trials needs {what}. Without it, give lists of values, and leave --trials out.")
    if apart:
        raise SpecError(f"--trials: {apart}, so they can't be compared. List the values, and leave --trials out.")


def why_apart(recipes: Sequence[Recipe], held: Sequence[bool]) -> str:
    """Why the numbers of some runs can't be compared, in words; "" if they can.

    Losses and ELBOs are different numbers; and so are densities of an x in other units, or otherwise binarised.

    Args:
        recipes: of the runs.
        held: whether there are validation rows.
    """
    criteria = [recipe.engine.criterion() for recipe in recipes]
    watched = {(c.words, c.smaller): None for c, there in zip(criteria, held, strict=True) if c and there}
    if len(watched) > 1:
        return f"the engines watch different numbers ({listed(words for words, _ in watched)})"
    for field in _OF_X:
        if len({str(getattr(recipe.data, field, None)) for recipe in recipes}) > 1:
            return f"data.{field} differs, so their numbers are of different data"
    if len({recipe.training.binarise for recipe in recipes}) > 1:
        return "training.binarise differs, so their numbers are of different data"
    return ""
