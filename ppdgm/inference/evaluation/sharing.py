"""A run as a folder to share: a model card, weights, recipe, history and pictures, and nothing of this machine."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ppdgm.errors import CheckpointError, PpdgmError, ProgramError, SpecError, nearest, require, shown
from ppdgm.files import write_atomically
from ppdgm.inference.evaluation.card import model_card
from ppdgm.inference.evaluation.estimates import Estimate
from ppdgm.inference.evaluation.opening import load
from ppdgm.inference.evaluation.result import Fit
from ppdgm.inference.runs.layout import CHECKPOINTS, LOCK, PICTURES, RECIPE, as_path
from ppdgm.program import AnyProgram, Program, has_model
from ppdgm.specs import Kind

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data

CARD = "README.md"
ELBO_PARTICLES = 10
LICENCES = (
    *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bsd", "bsd-2-clause"),
    *("bsd-3-clause", "bsd-3-clause-clear", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
    *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0"),
    *("cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-permissive-2.0", "gpl"),
    *("gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "epl-2.0", "eupl-1.2", "afl-3.0"),
    *("artistic-2.0", "bsl-1.0", "isc", "ncsa", "odbl", "odc-by", "ofl-1.1", "osl-3.0", "pddl", "postgresql"),
    *("unlicense", "wtfpl", "zlib", "other"),
)


def share(
    run: str | Path,
    out: str | Path,
    *,
    licence: str | None = None,
    name: str | None = None,
    data: Data | None = None,
    k: int = 1000,
    seed: int = 0,
    held_out: str = "held-out rows",
    program: AnyProgram | None = None,
    classes: Iterable[type[Kind] | str] = (),
) -> Path:
    """Write a run as a folder to share: README.md (a model card), weights, recipe, history, pictures.

    `ppdgm.load(out)` opens it, and it evaluates to the same numbers. Of the data it has the name of their file, sizes,
    a checksum and how they were scaled; of this machine it has no path and no name.

    Args:
        run: the run's folder.
        out: the folder to write, new or empty.
        licence: an identifier of model hubs, such as "apache-2.0", or "other". Without it the card says that none was
            chosen.
        name: of the model; by default that of the run's folder.
        data: held-out rows. With them, the card has the ELBO and log p(x), with their errors.
        k: particles for log p(x).
        seed: of the draws.
        held_out: what these rows are, in words, for the card.
        program, classes: as for `load`.

    Returns:
        The folder.

    Raises:
        CheckpointError: there is no run, `out` has files, or a text of the recipe has a path of this machine.
        SpecError: a licence that is not known.
        ProgramError: the weights contain rows of the training data.
    """
    home, folder = as_path("run", run), as_path("out", out)
    if licence is not None and licence not in LICENCES:
        raise SpecError(f"licence: got {shown(licence)}. {nearest(str(licence), LICENCES)} For others: 'other'.")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise SpecError(f"name: got {shown(name)}, expected a text.")
    require("k", k, int, 1, "a whole number of particles, at least 1")
    _check_free(folder)
    fit = load(home, program=program, classes=classes)
    _check_no_rows(fit)
    places = _places(home, fit)
    if fit.data is not None:
        fit = replace(fit, data=fit.data.replace(name=_last_part(fit.data.name)))
    figures, why = _figures(fit, data, k, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        new = Path(made) / "folder"
        fit.save(new)
        (new / LOCK).unlink(missing_ok=True)
        (new / CHECKPOINTS).rmdir()
        pictures = _copy_pictures(home, new)
        written = (new / RECIPE).read_text(encoding="utf-8")
        card = model_card(
            fit, name or home.resolve().name, licence, figures, held_out, why, pictures, _below_remarks(written)
        )
        write_atomically(new / CARD, card.encode())
        check_clean(new, places)
        if folder.exists():
            folder.rmdir()
        os.replace(new, folder)
    return folder


def check_clean(folder: Path, places: Iterable[str]) -> None:
    """Refuse a folder in whose files, anywhere, is one of these texts.

    Raises:
        CheckpointError: with the file and the text.
    """
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        content = file.read_bytes()
        for text in places:
            if text.encode() in content or text.encode() in content.replace(b"\\", b""):  # a card escapes characters
                raise CheckpointError(
                    f"{file.name} would have {text!r}, which is a place on this machine: a field of the program, a "
                    "name of a column or the name of the model has it. Change it there, and train again or give name=…."
                )


def _places(run: Path, fit: Fit) -> list[str]:
    """Paths of this machine, and its name, that must not be in what is shared."""
    found = {str(Path.home()), str(Path.cwd()), str(run.resolve()), str(run.resolve().parent), platform.node()}
    if fit.data is not None and (given := str(fit.data.name)) != _last_part(given):
        found |= {given, str(Path(given).resolve().parent)}
    return sorted(p for p in found if len(p) >= 5)


def _last_part(name: str) -> str:
    """The name of a file, without its folders."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "has files" if folder.is_dir() else "is a file"
        raise CheckpointError(f"out: {folder} {what}, expected a folder that is new or empty. Choose another one.")


def _check_no_rows(fit: Fit) -> None:
    """Refuse weights that contain the training data: a state with a value for each of their rows."""
    if not isinstance(fit.program, Program):
        return
    size, declared = fit.info.get("data_size"), fit.program.declarations()
    for name in sorted(declared.states):
        shape = declared.params[name].shape
        if len(shape) > 1 and shape[0] == size:
            raise ProgramError(
                f"share: the state {name!r} of {type(fit.program).__name__} has a value for each of the {size} rows of "
                "the training data, which would be shared with it. Train with another part, such as VampPrior() in "
                "place of AggregatedPosterior()."
            )


def _figures(fit: Fit, data: Data | None, k: int, seed: int) -> tuple[dict[str, Estimate], str]:
    """Estimates on held-out rows, and why one is missing."""
    if not has_model(fit.program):
        return {}, "The program has no density p(x): there is no ELBO and no log p(x)."
    if data is None:
        return {}, "No held-out rows were evaluated when this card was written."
    found = {"ELBO": fit.elbo(data, k=min(k, ELBO_PARTICLES), seed=seed)}
    try:
        found["log p(x), importance-sampled"] = fit.log_likelihood(data, k=k, seed=seed)
    except PpdgmError as error:  # one latent is shared by all rows: a row has no log p(x)
        return found, str(error)
    return found, ""


def _copy_pictures(run: Path, new: Path) -> list[str]:
    home = run if run.is_dir() else run.parent
    pictures = sorted((home / PICTURES).glob("*.png"))
    if pictures:
        (new / PICTURES).mkdir()
    for file in pictures:
        shutil.copyfile(file, new / PICTURES / file.name)
    return [f"{PICTURES}/{file.name}" for file in pictures]


def _below_remarks(recipe: str) -> str:
    return "\n".join(line for line in recipe.splitlines() if not line.startswith("#"))
