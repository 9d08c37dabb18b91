"""Data by name or from files: found, read, checked, split, scaled and binarised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ppdgm.data import arrays, idx, images, tables
from ppdgm.data.annotated import is_annotated, is_h5ad, read_h5ad
from ppdgm.data.channels import marked, with_channels_first
from ppdgm.data.checks import check_array
from ppdgm.data.classes import Classes
from ppdgm.data.dataset import Dataset
from ppdgm.data.entry import check_units
from ppdgm.data.frames import is_frame
from ppdgm.data.given import describe, read_given
from ppdgm.data.hugging_face import is_saved, read_saved
from ppdgm.data.kinds import numbers
from ppdgm.data.others import other_format
from ppdgm.data.parquet import is_parquet, read_parquet
from ppdgm.data.prepare import prepare
from ppdgm.data.prepared import Prepared, coding_of
from ppdgm.data.raw import Raw, choose
from ppdgm.data.sets import MNIST_FILES, SETS, KnownDataset
from ppdgm.data.source import Source
from ppdgm.data.transform import Transform
from ppdgm.data.weights import weights_beside, with_field
from ppdgm.errors import DataError, nearest, require

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.language.native import Array

Parts = dict[str, dict[str, np.ndarray]]
_KNOWN = ".npy, .npz, .csv, .tsv, idx (the last three also .gz), .parquet, .h5ad, or a folder of images or .npy files"


def load_data(
    name: str | PathLike[str] | Source | Array | Mapping[str, Array],
    *,
    like: object = None,
    units: Literal["own", "prepared"] | None = None,
    transform: Transform | None = None,
    **options: Any,
) -> Dataset:
    """A data set by name, from files, or given as an object; split and prepared.

    Args:
        name: of a set (`catalogue()` has them all), a path, or a `Source`. Or the data: a table (pandas, polars,
            Arrow), an array or a sparse matrix (x), or arrays by name ("x", "label"; of splits: "x_train", "x_test").
        like: a `Dataset` or a `Fit`; these data get its columns, classes and scaling.
        units: of the data, with `like`: "own", as the raw data before; "prepared", if they are already scaled. By
            default "own", and data that look already scaled are refused.
        transform: of another set (`Dataset.transform`), to scale these data in the same way.
        options: fields of `Source`.

    Raises:
        DataError: unknown, unreadable or unsuitable data; the message says which, and the place.
        SpecError: unknown options.
    """
    source, rows = _source(name, options)
    if not (transform is None or isinstance(transform, Transform)):
        raise DataError(f"transform: got {type(transform).__name__}, expected a Transform, such as data.transform.")
    known = _known(like)
    check_units(units)
    if units is not None and "x" not in known:
        raise DataError(
            f"units: got {units!r} without like=…, but units are only for data prepared like others. Leave it out."
        )
    if transform is not None:
        _check_alone(source, transform, known)
    if like is not None:
        source = _as_before(source, like, known, is_annotated(rows) or is_h5ad(Path(source.name)), units)
        transform = cast("Transform | None", known.get("x", transform))  # that of x always is one
    entry = SETS.get(source.name)
    _check_table(source, rows)
    asked, source = source, with_field(source, _is_table(source, rows))
    try:
        if source.given_in_python:
            raw, entry = read_given(rows, source, known), None
        else:
            raw = _read_file(source, known) if entry is None else _read_known(entry, source)
    except MemoryError:
        raise DataError(f"{source.name} does not fit into memory. Save it as .npy, which is streamed.") from None
    if raw.colour:
        source = source.replace(colour=raw.colour)  # as "auto" chose
    raw, transform = with_channels_first(raw, source), transform and replace(transform, channels="first")
    return marked(weights_beside(prepare(raw, source, entry, transform, known, units), asked))


def _source(name: object, options: dict[str, Any]) -> tuple[Source, object]:
    """The source, and the data if they were given as an object."""
    if not isinstance(name, str | PathLike | Source):
        if "given_in_python" in options:
            raise DataError("given_in_python: got it beside data that are given as an object. Leave it out.")
        return Source(name=describe(name), given_in_python=True, **options), name
    path = name if isinstance(name, Source) else fspath(name)
    source = path.replace(**options) if isinstance(path, Source) else Source(name=path, **options)
    if source.given_in_python:
        raise DataError(
            f"The data were given in Python ({source.name}), and are not saved with the run. Give them again: "
            "resume(…, data) or load_data(data, …); or, on the command line, save them to a file: --data PATH."
        )
    return source, None


def _known(like: object) -> Codings:
    if like is None:
        return {}
    known = getattr(like, "codings", None)
    if not isinstance(known, Mapping):
        raise DataError(f"like: got {type(like).__name__}, expected a Dataset or a Fit.")
    return known


def _as_before(source: Source, like: object, known: Codings, annotated: bool, units: str | None) -> Source:
    """The source; what it does not say is taken from data prepared before."""
    before = getattr(like, "source", None) or getattr(like, "data", None)
    if isinstance(before, Source):
        if source.fields is None:
            source = source.replace(fields=before.fields)
        if source.binarise == "auto":
            source = source.replace(binarise=before.binarise)
        images_now = not source.given_in_python and _holds_images(Path(source.name))
        if not images_now and source.channels == "first" and units != "prepared":
            source = source.replace(channels=before.channels)
        if images_now:
            source = _pictures_as_before(source, before)
        if before.missing == "nan" and source.missing == "refuse":
            source = source.replace(missing="nan")
        if before.layer is not None and source.layer is None and annotated:
            source = source.replace(layer=before.layer)
        if isinstance(before.index, str) and source.index in (None, False):
            table = tables.is_table(Path(source.name)) or is_parquet(Path(source.name))
            source = source.replace(index=before.index if source.index is None else False if table else None)
    its = known.get("x")
    if isinstance(its, Transform) and source.scale not in ("auto", its.kind):
        raise DataError(f"scale: got {source.scale!r}, but data with like=… keep the scale {its.kind!r}. Leave it out.")
    return source


def _pictures_as_before(source: Source, before: Source) -> Source:
    """The source; images get the form of those that were prepared before, where it does not say another."""
    default = Source(name=source.name)
    asked = {n for n in images.PICTURES if getattr(source, n) != getattr(default, n)}
    return source.replace(**{n: getattr(before, n) for n in images.PICTURES if n not in asked})


def _holds_images(path: Path) -> bool:
    """Whether `load_data` would look for images there."""
    try:
        found = path.expanduser()
        return str(path) not in SETS and found.is_dir() and not _holds_arrays(found)
    except (OSError, RuntimeError):  # can't be read, which is reported when it is read
        return False


def _holds_arrays(path: Path) -> bool:
    return (
        is_saved(path)
        or any(p.suffix == ".npy" for p in path.iterdir())
        or any(_idx_file(path, n) for n in MNIST_FILES["train"])
    )


def _check_alone(source: Source, transform: Transform, known: Codings) -> None:
    """Refuse what a given transform would make without effect: another scale, and the transform of `like`."""
    if "x" in known:
        raise DataError("transform: got one beside like=…, whose scaling is used. Leave one of them out.")
    if source.scale not in ("auto", transform.kind):
        raise DataError(
            f"scale: got {source.scale!r}, but the given transform has the scale {transform.kind!r}. Leave one of them "
            "out."
        )


def _check_table(source: Source, rows: object) -> None:
    """Refuse options for tables if the data are not a table, and those for images if they are not images."""
    path = Path(source.name)
    default = Source(name=source.name)
    asked = [n for n in images.PICTURES if getattr(source, n) != getattr(default, n)]
    given = source.given_in_python or source.name in SETS
    if asked and (given or (path.exists() and not _holds_images(path))):
        raise DataError(
            f"{asked[0]}: got {getattr(source, asked[0])!r}, but {source.name} is not a folder of images. Leave it out."
        )
    if source.size is None and source.crop != "centre":
        raise DataError(
            f"crop: got {source.crop!r} without size=…, so nothing is cut off. Give a size, or leave it out."
        )
    annotated = is_annotated(rows) if source.given_in_python else source.name not in SETS and is_h5ad(path)
    if source.layer is not None and not annotated:
        raise DataError(f"layer: got {source.layer!r}, but {source.name} is not annotated data (.h5ad). Leave it out.")
    table = _is_table(source, rows)
    for name in ("header", "index", "decimal"):
        value = getattr(source, name)
        named = name == "index" and (annotated or isinstance(value, str))  # also an array by name
        if value is not None and not table and not (named and source.name not in SETS):
            raise DataError(
                f"{name}: got {value}, but {source.name} is not a table (.csv, .tsv, .parquet). Leave it out."
            )


def _is_table(source: Source, rows: object) -> bool:
    if source.given_in_python:
        return is_frame(rows)
    path = Path(source.name)
    return source.name not in SETS and (tables.is_table(path) or is_parquet(path))


def _read_known(entry: KnownDataset, source: Source) -> Raw:
    if entry.name == "digits":
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        parts: Parts = {"train": {"x": pixels.reshape(-1, 8, 8).astype(np.float32), "label": labels}}
    elif entry.name.startswith("collapse-"):
        from ppdgm.data import collapse

        parts = collapse.draw_collapse(entry.name.removeprefix("collapse-"))
    else:
        from ppdgm.data.download import find_file

        find = lambda name: idx.read_idx(find_file(entry, name), source.memory, entry.sha256[name])
        parts = {s: {"x": find(x), "label": find(y)} for s, (x, y) in MNIST_FILES.items()}
    raw = choose(parts, source)
    return Raw(raw.parts, raw.labels, {"label": Classes(entry.classes, text=False)} if entry.classes else {})


def _read_file(source: Source, known: Codings) -> Raw:
    try:
        path = Path(source.name).expanduser()
    except RuntimeError as error:  # ~nobody
        raise DataError(f"{source.name} can't be found: {error}") from None
    try:
        if path.is_dir():
            return _read_folder(path, source, known)
        if not path.is_file():
            named = any(c in source.name for c in "/\\.") or path.exists()
            what = (
                f"No file or folder {source.name!r} in {Path.cwd()}." if named else f"Unknown data set {source.name!r}."
            )
            raise DataError(f"{what} {nearest(source.name, SETS)} Expected one of these, or a path.")
        return _reader(path, source, known)()
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}).") from None


def _reader(path: Path, source: Source, known: Codings) -> Callable[[], Raw]:
    """How to read a file: by its name, or else by its first bytes."""
    with path.open("rb") as file:
        head = file.read(8)
    suffix = path.suffix.lower()
    if tables.is_table(path):
        return lambda: tables.read_table(path, source, known)
    if is_parquet(path):
        return lambda: read_parquet(path, source, known)
    if is_h5ad(path):
        return lambda: read_h5ad(path, source, known)
    if told := other_format(path):
        raise DataError(told)
    if suffix == ".npz" or (suffix != ".npy" and head[:4] == b"PK\3\4"):
        return lambda: choose(arrays.read_npz(path), source)
    if suffix == ".npy" or head[:6] == b"\x93NUMPY":
        return lambda: choose({"train": {"x": arrays.read_npy(path, source.memory)}}, source)
    if idx.is_idx(head) or "idx" in path.name or path.name.removesuffix(".gz").endswith("ubyte"):
        return lambda: choose({"train": {"x": idx.read_idx(path, source.memory)}}, source)
    raise DataError(f"{path}: got an unknown kind of file, expected {_KNOWN}. Save arrays with np.save or np.savez.")


def _read_folder(path: Path, source: Source, known: Codings) -> Raw:
    if is_saved(path):
        return read_saved(path, source, known)
    if any(p.suffix == ".npy" for p in path.iterdir()):
        return choose(arrays.read_npy_folder(path, source.memory), source)
    if any(_idx_file(path, name) for name in MNIST_FILES["train"]):
        return choose(_read_idx_folder(path, source.memory), source)
    parts, classes, colour = images.read_images(path, source)
    raw = choose(parts, source)
    return Raw(raw.parts, raw.labels, {"label": Classes(classes)} if classes else {}, colour=colour)


def _idx_file(path: Path, name: str) -> Path | None:
    return next((path / n for n in (name, f"{name}.gz", name.replace("-idx", ".idx")) if (path / n).is_file()), None)


def _read_idx_folder(path: Path, memory: int) -> Parts:
    """A folder of idx files with names like MNIST's; labels and test data may be absent."""
    parts: Parts = {}
    for part, names in MNIST_FILES.items():
        files = {f: found for f, n in zip(("x", "label"), names, strict=True) if (found := _idx_file(path, n))}
        if files:
            parts[part] = {field: idx.read_idx(file, memory) for field, file in files.items()}
    if "train" not in parts:
        raise DataError(f"{path}: got no {MNIST_FILES['train'][0]}, expected the training images.")
    return parts


def binarise(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """x ~ Bernoulli(x), drawn once with `seed`, for x in [0, 1]."""
    require("seed", seed, int, 0, "a whole number, at least 0")
    coding, x = coding_of(x), numbers("x", x)
    check_array("x", x)
    if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
        raise DataError(f"x: got numbers between {x.min()} and {x.max()}, expected [0, 1]. Scale them first.")
    drawn = (np.random.default_rng(seed).random(x.shape) < x).astype(np.float32)
    return Prepared(drawn, replace(coding, binarise="static", seed=seed)) if isinstance(coding, Transform) else drawn
