"""Open a run folder: the trained program, without data or retraining."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ppdgm.errors import CheckpointError, SpecError, nearest, require, shown
from ppdgm.inference.evaluation.result import Fit
from ppdgm.inference.runs.checkpoint import group, matching
from ppdgm.inference.runs.codings import read_codings
from ppdgm.inference.runs.folder import find_saved, open_saved
from ppdgm.inference.runs.layout import as_path
from ppdgm.inference.runs.recipe import Recipe, check_same_program
from ppdgm.inference.runs.settings import Training
from ppdgm.program import AnyProgram, PlainPair, Program, check_program
from ppdgm.registry import INSTALL, is_pair
from ppdgm.specs import Kind, Table


def load(
    path: str | Path,
    backend: str | None = None,
    *,
    program: AnyProgram | None = None,
    classes: Iterable[type[Kind] | str] = (),
    device: str = "auto",
    devices: int | Literal["all"] | None = None,
    last: bool = False,
) -> Fit:
    """Open a run folder, without data or retraining, on the backend it was trained on or on the other one.

    Args:
        path: the folder that `fit(…, out=…)` or `Fit.save` wrote, or a checkpoint file in it.
        backend: "numpyro" or "pyro"; by default the one it was trained on.
        program: the program itself, if it can't be written as text: a plain pair, or one with your own modules.
        classes: your own classes that the recipe names, or `module:Class` paths, which are then imported.
        device: "auto", "cpu", "cuda", "cuda:1".
        devices: the number of devices that evaluations divide their rows among, or "all"; see `Fit.over`.
        last: use the last checkpoint's parameters, if the run kept the best validated ones.

    Raises:
        CheckpointError: not a run folder, damaged, of a newer version, or not this program's.
    """
    require("device", device, str, None, "text, such as 'auto', 'cpu' or 'cuda:1'")
    devices = None if devices is None else Training(devices=devices).devices
    if program is not None:
        check_program(program)
    file = find_saved(as_path("path", path), last)
    arrays, page = open_saved(file)
    own = getattr(program, "backend", None)
    if own and backend not in (None, own):
        raise CheckpointError(f"backend: got {backend!r}, but a plain {own} pair runs only on {own!r}.")
    recipe = _read_recipe(file, page, program, classes)
    name = recipe.backend if backend is None else backend
    if not isinstance(name, str) or name not in INSTALL:
        raise CheckpointError(f"backend: got {shown(name)}. {nearest(shown(name), INSTALL)}")
    values = _values(arrays, recipe.training.keep_best and not last)
    if isinstance(recipe.program, Program):
        declared = recipe.program.declarations().params
        matching({n: np.empty(s.shape) for n, s in declared.items()}, values, file)
    return Fit(
        program=recipe.program,
        params=values,
        backend=name,
        device=device,
        devices=devices,
        engine=recipe.engine,
        history=group(arrays, "history"),
        info={
            n: page[n] for n in ("data_size", "fields", "shapes", "fingerprint", "compile", "dimensions") if n in page
        }
        | {"steps": page["step"], "skipped": len(page["skipped"])},
        stopped=page["stopped"],
        training=recipe.training,
        data=recipe.data,
        codings=read_codings(arrays, page),
    )


def values_of(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The judged parameters within what a trainer's `state_arrays` gave."""
    part = lambda name: {n.partition("/")[2]: a for n, a in state.items() if n.startswith(f"{name}/")}
    return part("params") | part("average")


def _values(arrays: Mapping[str, np.ndarray], keep_best: bool) -> dict[str, np.ndarray]:
    """The parameters in a result or a checkpoint."""
    if state := group(arrays, "trainer"):
        return (keep_best and group(arrays, "best")) or values_of(state)
    return {n: a for n, a in arrays.items() if not n.startswith("@")}


def _read_recipe(file: Path, page: Table, program: AnyProgram | None, classes: Iterable[type[Kind] | str]) -> Recipe:
    kind, path = str(page["recipe"]["program"].get("kind", "")), str(file.parent)
    if is_pair(kind) and program is None:
        raise CheckpointError(
            f"{path} has the parameters of a plain pair. Give the pair: load({path!r}, program=pair)."
        )
    own = f"plain:{program.backend}" if isinstance(program, PlainPair) else ""
    if program is not None and (kind if is_pair(kind) else "") != own:
        raise CheckpointError(f"program: got {program!r}, but {file} has the parameters of a {kind!r} program.")
    try:
        check_same_program(page["recipe"], program)
        return Recipe.from_table(page["recipe"], classes, program)
    except SpecError as error:
        raise CheckpointError(f"{file}: {error}") from None
