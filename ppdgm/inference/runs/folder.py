"""Run folders: recipe, checkpoints, result, history, log, status and pictures."""

from __future__ import annotations

import io
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tomli_w

from ppdgm.errors import CheckpointError, DataError, SpecError, shown
from ppdgm.files import write_atomically
from ppdgm.inference.runs import checkpoint
from ppdgm.inference.runs.codings import read_codings
from ppdgm.inference.runs.layout import (
    CHECKPOINTS,
    FILES,
    HISTORY,
    LOCK,
    LOG,
    PICTURES,
    RECIPE,
    STATUS,
    WEIGHTS,
    as_checkpoint_error,
    check_kinds,
    checkpoints_in,
    has_begun,
    holds_results,
    is_held,
    lock,
)
from ppdgm.inference.runs.page import check_page
from ppdgm.inference.runs.rates import taken
from ppdgm.inference.runs.recipe import Recipe, check_format, read_recipe

if TYPE_CHECKING:
    from ppdgm.specs import Table

KEPT = 2  # checkpoints: the last two
CSV_ROWS = 10_000
_PACKAGES = ("ppdgm", "numpy", "jax", "numpyro", "optax", "torch", "pyro-ppl")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class Folder:
    """One run's folder.

    Args:
        path: of the folder, which is created if necessary.

    Raises:
        CheckpointError: it can't be created, or contains folders in the place of its files.
    """

    def __init__(self, path: Path):
        self.path = path
        check_kinds(path)
        try:
            (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"out: the folder {path} can't be made ({error.strerror}). Choose another folder."
            ) from None

    def clear(self) -> None:
        """Remove the files of an older run: its files by name, and no others.

        Its recipe stays until the new one replaces it. So at each moment the folder belongs to one run, the old one or
        the new one, even if the process is killed.
        """
        self._remove(self.path / name for name in (WEIGHTS, HISTORY, LOG, STATUS))
        self._remove(self.path.glob(f"{PICTURES}/*.png"))
        self._remove((self.path / CHECKPOINTS).glob("*"))

    def _remove(self, files: Iterable[Path]) -> None:
        for file in list(files):
            if not file.is_dir():
                with as_checkpoint_error(f"{file} can't be removed"):
                    file.unlink(missing_ok=True)

    def write_recipe(self, recipe: Recipe, remarks: list[str]) -> None:
        """Write the recipe, with comments above it on what can't be written as text."""
        lines = [f"# ppdgm fit {RECIPE} --out another/folder   repeats this run.", *(f"# {r}" for r in remarks)]
        text = "\n".join(lines) + "\n\n" + tomli_w.dumps({**recipe.table(), "versions": versions()})
        self.write(RECIPE, text.encode())

    def write_checkpoint(self, step: int, arrays: Mapping[str, np.ndarray], page: Mapping[str, object]) -> str:
        """Write a checkpoint, remove all but the last two, and return the checksum of the new one."""
        content = checkpoint.pack(arrays, page)
        self.write(f"{CHECKPOINTS}/step-{step:010d}.safetensors", content)
        self._remove(self.checkpoints()[:-KEPT])
        return checkpoint.checksum(content)

    def write_weights(self, arrays: Mapping[str, np.ndarray], page: Mapping[str, object]) -> None:
        """Write the result."""
        self.write(WEIGHTS, checkpoint.pack(arrays, page))

    def write_history(self, history: Mapping[str, np.ndarray]) -> None:
        """Write the history as CSV."""
        self.write(HISTORY, as_csv(history).encode())

    def write_status(self, **values: object) -> None:
        """Write the state of the run; if the status can't be written, in a crash or on a full disk, the run goes on."""
        path = self.path / f".{STATUS}.new"
        with suppress(OSError):
            path.write_text(json.dumps({"pid": os.getpid(), "updated": time.time(), **values}))
            os.replace(path, self.path / STATUS)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder, completely or not at all.

        Raises:
            CheckpointError: it can't be written (on a full disk, for example).
        """
        try:
            write_atomically(self.path / name, content)
        except OSError as error:
            raise CheckpointError(f"{self.path / name} can't be written ({error.strerror}).") from error

    def checkpoints(self) -> list[Path]:
        """Checkpoint files, the oldest first."""
        return checkpoints_in(self.path)

    def drop_after(self, kept: Path) -> None:
        """Remove the checkpoints after `kept`, and files that a killed process left half-written."""
        there = (self.path / CHECKPOINTS).glob("*")
        self._remove(f for f in there if f.name.startswith(".") or f.name > kept.name)
        self._remove(f for name in FILES for f in self.path.glob(f".{name}.*"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing to the folder; if the process is killed, the lock ends.

        Raises:
            CheckpointError: another process holds it.
        """
        with ExitStack() as stack:
            with as_checkpoint_error(f"{self.path / LOCK} can't be written"):
                file = stack.enter_context((self.path / LOCK).open("w"))
            for _ in range(10):  # a process that asks for the status holds it for a moment
                if held := lock(file):
                    break
                time.sleep(0.05)
            if not held:
                raise CheckpointError(
                    f"{self.path} is in use: another run is still writing to it. Choose another folder."
                )
            yield


def check_history(history: Mapping[str, np.ndarray], where: str) -> None:
    """Refuse a history that is not valid.

    Raises:
        CheckpointError: with the first array that is wrong.
    """
    size = {n: len(v) if np.ndim(v) == 1 and np.asarray(v).dtype.kind in "biuf" else -1 for n, v in history.items()}
    validated = [n for n in size if n.startswith("validation_") and n != "validation_step"] or ["validation_elbo"]
    for name, length in size.items():
        live = name.startswith("live_") and "live_step"
        like = "validation_step" if name in validated else validated[0] if name == "validation_step" else live
        if length < 0 or (like and length != size.get(like)):
            beside = f", the same number as in {like!r}" if like else ""
            raise CheckpointError(f"{where}: history {name!r}: got {shown(history[name])}, expected numbers{beside}.")


def as_csv(history: Mapping[str, np.ndarray]) -> str:
    """A row per step, or per window of steps (means) if there are very many; validations at their steps.

    Columns have a fixed order, because `history` loses its order when it is saved and read again.
    """
    size = len(history["step"])
    width = max(1, -(-size // CSV_ROWS))
    apart = ("step", "skipped_step")
    first = {n: i for i, n in enumerate(("objective", "elbo", "kl"))}
    columns = sorted(history, key=lambda n: (first.get(n, len(first)), n))
    names = [
        n for n in columns if len(history[n]) == size and n not in apart and not n.startswith(("live_", "validation_"))
    ]
    held = [n for n in columns if n.startswith("validation_") and n != "validation_step"]
    seen = {n: dict(zip(history["validation_step"], history[n], strict=True)) for n in held}
    live = [n for n in columns if n.startswith("live_") and n != "live_step"]
    seen |= {n: dict(zip(history["live_step"], history[n], strict=True)) for n in live}
    looks = {n: at for n, at in seen.items() if at}
    text = io.StringIO()
    print(*["step", *names, *looks], sep=",", file=text)
    for start in range(0, size, width):
        rows = slice(start, min(start + width, size))
        steps = history["step"][rows]
        found = [f"{float(v):.7g}" for v in (history[n][rows].mean(dtype=np.float64) for n in names)]
        looked = [([f"{at[s]:.9g}" for s in steps if s in at][-1:] or [""])[0] for at in looks.values()]
        print(*[int(steps[-1]), *found, *looked], sep=",", file=text)
    return text.getvalue()


def find_saved(path: Path, to_resume: bool = False) -> Path:
    """The file to open: the result, or the last checkpoint if training went on after the result (or never ended)."""
    with as_checkpoint_error(str(path)):
        if path.is_file() and path.name == RECIPE:
            raise CheckpointError(f"{path} is a recipe. Give its folder: {str(path.parent)!r}.")
        if path.is_file():
            return path
        if not path.is_dir():
            raise CheckpointError(f"{path} does not exist. Give a folder that fit(…, out=…) wrote.")
        check_kinds(path)
        if not (path / RECIPE).is_file():
            if has_begun(path) and not holds_results(path):
                raise _nothing_saved(path)
            raise CheckpointError(
                f"{path} is not a run's folder: it has no {RECIPE}. Give a folder that fit(…, out=…) wrote."
            )
        saved = checkpoints_in(path)
        weights = path / WEIGHTS
        if to_resume or not weights.is_file():
            if not saved:
                raise _nothing_saved(path)
            return saved[-1]
        return weights


def _nothing_saved(path: Path) -> CheckpointError:
    if is_held(path):
        return CheckpointError(
            f"{path} has no checkpoint yet: its run is still going on. Wait for the first checkpoint."
        )
    again = f"ppdgm fit {path}, or " if (path / RECIPE).is_file() else ""
    anew = f"{again}fit(…, out={str(path)!r})"
    return CheckpointError(f"{path} has no checkpoint to continue from. Start the run again: {anew}.")


def open_saved(file: Path, to_resume: bool = False) -> tuple[dict[str, np.ndarray], Table]:
    """Arrays and page of a checkpoint or result; if it is damaged, the checkpoint before is offered.

    Args:
        file: from `find_saved`.
        to_resume: whether training will go on from it, which needs more than opening it.

    Raises:
        CheckpointError: damaged, not from a run, of a newer version, or with a recipe that was changed since.
    """
    try:
        arrays, page = checkpoint.read_checkpoint(file)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_offer(file)}") from None
    check_page(page, file)
    check_history(checkpoint.group(arrays, "history"), str(file))
    try:
        read_codings(arrays, page)
    except DataError as error:
        raise CheckpointError(f"{file} is not a checkpoint of a run: {error}") from None
    if to_resume and not checkpoint.group(arrays, "trainer"):
        raise CheckpointError(
            f"{file} is a run's result under another name: training can't continue from it, because it has no state "
            "of the optimiser. Give a checkpoint."
        )
    if to_resume:
        check_page(page, file, resumable=True)
    folder = file.parent.parent if file.parent.name == CHECKPOINTS else file.parent
    if (folder / RECIPE).is_file():
        _check_recipe(folder / RECIPE, page["recipe"], page["step"])
    return arrays, page


def _offer(file: Path) -> str:
    folder = file.parent.parent if file.parent.name == CHECKPOINTS else file.parent
    for other in reversed(checkpoints_in(folder)):
        if other != file:
            try:
                checkpoint.read_checkpoint(other)
            except CheckpointError:
                continue
            return (
                f" {other.name} is complete. Use it: ppdgm resume {folder} --checkpoint {other}, or "
                f"ppdgm.resume({str(folder)!r}, checkpoint={str(other)!r})."
            )
    return ""


def _check_recipe(path: Path, trained: Table, step: int) -> None:
    """Refuse a recipe that is not the trained one.

    Only the place of the data, the length of training and the learning rate of steps that are still to come may change.
    """
    try:
        table = read_recipe(path)
        check_format(table)
    except SpecError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    free = ("versions.", "data.", "training.epochs", "training.steps")
    flat = lambda t: {k: v for k, v in _flatten(_past(t, step)).items() if not k.startswith(free)}
    now, then = flat(table), flat(trained)
    for key in [*now, *then]:
        if now.get(key) != then.get(key):
            raise CheckpointError(
                f"{path} was changed after training: {key} was {then.get(key)!r}, and is now {now.get(key)!r}. A "
                "changed recipe is a new run: ppdgm fit recipe.toml --out another/folder."
            )


def _past(table: Table, step: int) -> Table:
    """A recipe's table without changes of the learning rate that come later."""
    training = table.get("training", {})
    if "learning_rate" not in training:
        return table
    return {**table, "training": {**training, "learning_rate": taken(training["learning_rate"], step)}}


def _flatten(table: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(table, Mapping):
        return {prefix[:-1]: table}
    return {k: v for name, value in table.items() for k, v in _flatten(value, f"{prefix}{name}.").items()}
