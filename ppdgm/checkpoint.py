"""Run folders: a TOML recipe, weights and history as safetensors. Reading one runs no code."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ppdgm.errors import CheckpointError, SpecError, nearest
from ppdgm.spec import Spec

FORMAT = 1
RECIPE, WEIGHTS, HISTORY = "recipe.toml", "weights.safetensors", "history.safetensors"
_PACKAGES = ("numpy", "jax", "numpyro", "optax", "torch", "pyro-ppl")


def save(fit: Any, out: Path, overwrite: bool) -> Path:
    """Write a fit to the folder `out`. The recipe comes last and names the others' checksums."""
    check_free(out, overwrite)
    make_folder(out)
    weights = save_arrays({n: np.asarray(v, order="C") for n, v in fit.params.items()})
    history = save_arrays({n: np.asarray(v, order="C") for n, v in fit.history.items()})
    from ppdgm import __version__

    recipe = {
        "format": FORMAT,
        "backend": fit.backend,
        "stopped": fit.stopped,
        "checksums": {WEIGHTS: _checksum(weights), HISTORY: _checksum(history)},
        "versions": {"ppdgm": __version__, "python": platform.python_version()}
        | {p: v for p in _PACKAGES if (v := _version(p))},
        "training": {n: v for n, v in fit.info.items() if v is not None},
        "engine": fit.engine.to_dict() if isinstance(fit.engine, Spec) else {},
        "program": fit.program.to_dict() if isinstance(fit.program, Spec) else {"kind": f"plain:{fit.backend}"},
    }
    write_atomically(out / WEIGHTS, weights)
    write_atomically(out / HISTORY, history)
    write_atomically(out / RECIPE, tomli_w.dumps(recipe).encode())
    return out


def read(
    path: Path, program: Any = None, classes: Iterable[type[Spec] | str] = ()
) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """Program, parameters, history and recipe of a run folder.

    Args:
        path: the folder.
        program: the program itself, where text can't tell it: plain pairs, and modules of your own.
        classes: classes of your own that the recipe names, or `module:Class` paths, which are then imported.

    Raises:
        CheckpointError: not a run folder, damaged, or of a newer version.
    """
    recipe = _read_recipe(path)
    weights = _read_arrays(path / WEIGHTS, recipe)
    history = _read_arrays(path / HISTORY, recipe)
    if program is None:
        program = _read_program(path, recipe, list(classes))
    kind = str(recipe["program"].get("kind", ""))
    own = f"plain:{program.backend}" if hasattr(program, "data_plate") else ""
    if (kind if kind.startswith("plain:") else "") != own:
        raise CheckpointError(f"program: got {program!r}, but {path} holds the parameters of a {kind!r} program.")
    if hasattr(program, "declarations"):
        declared = program.declarations().params
        matching({n: np.empty(s.shape) for n, s in declared.items()}, weights, path)
    return program, weights, history, recipe


def check_free(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something, unless it is a run to be overwritten."""
    if not out.exists():
        return
    if not out.is_dir():
        raise CheckpointError(f"out: {out} is a file, expected a folder.")
    if any(out.iterdir()):
        if not (out / RECIPE).exists():
            raise CheckpointError(f"out: {out} holds files that are not a run. Choose another folder.")
        if not overwrite:
            raise CheckpointError(f"out: {out} holds a run already. Choose another folder, or give overwrite=True.")


def make_folder(out: Path) -> None:
    """Make the folder of a run.

    Raises:
        CheckpointError: it can't be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"out: {out} can't be made ({error.strerror}). Choose another folder.") from None


def matching(
    expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], path: Path | None = None
) -> dict[str, np.ndarray]:
    """`got`, if it has the names and shapes of `expected` (and perhaps buffers beside them)."""
    where = f"{path}: " if path else ""
    for name, value in expected.items():
        if name not in got:
            raise CheckpointError(f"{where}parameter {name!r} is missing. {nearest(name, got)}")
        if np.shape(got[name]) != np.shape(value):
            raise CheckpointError(
                f"{where}parameter {name!r}: got shape {np.shape(got[name])}, expected {np.shape(value)}."
            )
    return {n: np.asarray(v) for n, v in got.items()}


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # a temporary file is its owner's alone
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read_recipe(path: Path) -> dict[str, Any]:
    if path.name == RECIPE and path.is_file():
        raise CheckpointError(f"{path} is a recipe. Give its folder: load({str(path.parent)!r}).")
    if not (path / RECIPE).is_file():
        raise CheckpointError(f"{path} is no run folder: it has no {RECIPE}. Expected what fit(…, out=…) wrote.")
    try:
        recipe = tomllib.loads((path / RECIPE).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path / RECIPE} is damaged: {error}.") from None
    if recipe.get("format") != FORMAT:
        raise CheckpointError(
            f"{path / RECIPE}: got format {recipe.get('format')!r}, this version of ppdgm reads {FORMAT}. Update ppdgm."
        )
    for key in ("backend", "stopped", "checksums", "training", "engine", "program"):
        if key not in recipe:
            raise CheckpointError(f"{path / RECIPE} is damaged: it has no {key!r}.")
    return recipe


def _read_arrays(path: Path, recipe: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.")
    content = path.read_bytes()
    if _checksum(content) != recipe.get("checksums", {}).get(path.name):
        raise CheckpointError(f"{path} is damaged: its checksum is not the one in {RECIPE}.")
    try:
        return dict(load_arrays(content))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from None


def _read_program(path: Path, recipe: Mapping[str, Any], classes: list[type[Spec] | str]) -> Any:
    table = recipe.get("program", {})
    if str(table.get("kind", "")).startswith("plain:"):
        raise CheckpointError(
            f"{path} holds a plain pair's parameters. Hand the pair in: load({str(path)!r}, program=pair)."
        )
    try:
        return Spec.from_dict(table, classes)
    except SpecError as error:
        raise CheckpointError(f"{path / RECIPE}: {error}") from None


def _checksum(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
