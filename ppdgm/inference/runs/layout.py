"""The contents of a run's folder: the names of its files, which process holds it, and what may be written there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ppdgm.errors import CheckpointError, shown

if TYPE_CHECKING:
    from os import PathLike

    from ppdgm.specs import Table

RECIPE, WEIGHTS, HISTORY, LOG, STATUS = "recipe.toml", "weights.safetensors", "history.csv", "log.txt", "status.json"
CHECKPOINTS, PICTURES, LOCK = "checkpoints", "pictures", ".lock"
FILES = (RECIPE, WEIGHTS, HISTORY, LOG, STATUS, LOCK)


def as_path(name: str, value: str | PathLike[str]) -> Path:
    """The path of an argument.

    Raises:
        CheckpointError: it is not a path.
    """
    try:
        right = isinstance(value, str | os.PathLike) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # not a name that a file can have
        right = False
    if not right:
        raise CheckpointError(f"{name}: got {shown(value)}, expected a path.")
    return Path(value)


def check_free(out: Path, overwrite: bool, held: bool = False) -> None:
    """Refuse a folder that is not empty, unless it is a run to be overwritten, or one that ended before its results.

    Args:
        out: the folder.
        overwrite: whether a run in it may be lost.
        held: whether the caller holds it (`Folder.held`).

    Raises:
        CheckpointError: with what is there.
    """
    with as_checkpoint_error(f"out: {out}"):
        if not out.exists():
            return
        if not out.is_dir():
            raise CheckpointError(f"out: {out} is a file, expected a folder.")
        names = sorted(p.name for p in out.iterdir())
    check_kinds(out)
    if not held and is_held(out):
        raise CheckpointError(f"out: {out} is in use: a run is still writing to it. Choose another folder.")
    whole = RECIPE in names
    if names and not whole and not has_begun(out):
        others = [n for n in names if not _is_own(n)]
        which = f" (such as {shown((others or names)[0])})"
        raise CheckpointError(f"out: {out} has files that are not from a run{which}. Choose another folder.")
    if not overwrite and holds_results(out):
        go_on = f", or continue it: ppdgm.resume({str(out)!r})" if whole else ""
        raise CheckpointError(f"out: {out} already has a run. Choose another folder, give overwrite=True{go_on}.")


def holds_results(out: Path) -> bool:
    """Whether a run's folder has something to lose: a run that ended before its first checkpoint has nothing.

    A recipe without the files that a run writes before it does not come from a run: someone wrote it.
    """
    written = (out / RECIPE).exists() and not (out / STATUS).exists() and not (out / LOCK).exists()
    return written or (out / WEIGHTS).exists() or bool(checkpoints_in(out))


def has_begun(out: Path) -> bool:
    """Whether all files of a folder come from a run: one that is killed before it writes its recipe leaves them."""
    names = [p.name for p in out.iterdir()]
    return any(n in (LOCK, CHECKPOINTS) for n in names) and all(map(_is_own, names))


def _is_own(name: str) -> bool:
    """Whether a run writes a file or folder of this name, complete or half-written."""
    return name in (*FILES, CHECKPOINTS, PICTURES) or any(name.startswith(f".{n}.") for n in FILES)


def check_kinds(path: Path) -> None:
    """Refuse folders in the place of a run's files, and files in the place of its folders."""
    with as_checkpoint_error(str(path)):
        for file in (*(path / n for n in FILES), *(path / CHECKPOINTS).glob("step-*.safetensors")):
            if file.is_dir():
                raise CheckpointError(f"{file} is a folder, expected a file. Move it away.")
        for folder in (path / CHECKPOINTS, path / PICTURES):
            if folder.exists() and not folder.is_dir():
                raise CheckpointError(f"{folder} is a file, expected a folder. Move it away.")


@contextmanager
def as_checkpoint_error(where: str) -> Iterator[None]:
    """Raise the system's errors about a file as errors of ppdgm."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{where}: {error.strerror or error}.") from None


def checkpoints_in(path: Path) -> list[Path]:
    """The checkpoint files of a run's folder, the oldest first."""
    return sorted((path / CHECKPOINTS).glob("step-*.safetensors"))


def read_status(path: Path) -> Table:
    """The state of the run in a folder: "state", "step", "steps", "elbo", "validation", …; {} if there is no status.

    If its process ended without writing a last status, the run is "killed".
    """
    try:
        found = json.loads((path / STATUS).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    if found.get("state") == "running" and not is_held(path):
        found["state"] = "killed"
    return found


def lock(file: IO[str]) -> bool:
    """Lock an open file, if no other process has; returns whether it worked, or True if this can't be known."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a run that is still going on writes to a folder."""
    try:
        with (path / LOCK).open("r+") as file:
            return not lock(file)
    except OSError:
        return False
