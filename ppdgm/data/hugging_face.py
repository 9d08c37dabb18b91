"""Data sets of Hugging Face's `datasets`: objects, and folders that `save_to_disk` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.data.classes import Classes
from ppdgm.data.frame_table import FrameTable
from ppdgm.data.kinds import numbers
from ppdgm.data.raw import Raw, choose, split_of
from ppdgm.data.rows import pixels
from ppdgm.data.source import Source
from ppdgm.data.transform import Transform
from ppdgm.errors import DataError, PackageMissing, listed

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.language.native import Array

_SCALARS = ("Value", "ClassLabel")


def is_hugging_face(value: object) -> bool:
    """Whether it is a Dataset, or a dictionary of them by split."""
    names = ("Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")
    return any(c.__name__ in names and c.__module__.partition(".")[0] == "datasets" for c in type(value).__mro__)


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def read_saved(path: Path, source: Source, known: Codings) -> Raw:
    """The fields of a folder that `save_to_disk` wrote; nothing in it is run.

    Raises:
        PackageMissing: `datasets` is not installed.
        DataError: the folder is damaged, or does not have what is asked for.
    """
    try:
        import datasets
    except ImportError:
        raise PackageMissing(f"{path}: a data set of Hugging Face needs datasets: pip install datasets.") from None
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # any error that it raises for a damaged folder
        told = " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(f"{path} is not a complete data set of Hugging Face ({told}). Save it again.") from None
    return read_hugging_face(found, source, known)


def read_hugging_face(value: Any, source: Source, known: Codings) -> Raw:
    """The fields: columns of numbers as for a table; pictures and arrays by name, as for an .npz file.

    Raises:
        DataError: a stream, unknown splits, or columns that are no numbers.
    """
    where = source.name
    if type(value).__name__.startswith("Iterable"):
        raise DataError(
            f"{where}: got a data set that is streamed, whose rows can't be drawn in random order, and again after a "
            "resume. Load it without streaming=True; or take some rows: datasets.Dataset.from_list(list(data.take(n)))."
        )
    splits = dict(value) if isinstance(value, Mapping) else {"train": value}
    parts: dict[str, Any] = {}
    for name, data in splits.items():
        if (split := split_of(name)) is None or split in parts:
            raise DataError(
                f"{where}: got the splits {listed(map(repr, splits))}, expected train, validation and test. Choose "
                f"one: data[{name!r}]."
            )
        parts[split] = data
    if "train" not in parts:
        raise DataError(f"{where}: got the splits {listed(map(repr, splits))}, expected 'train' too.")
    kinds = {n: type(f).__name__ for n, f in parts["train"].features.items()}
    if all(kind in _SCALARS for kind in kinds.values()):
        return _tables(parts, source, known)
    arrays = {s: {n: _array(data, n, f"{where}, {s}") for n in kinds} for s, data in parts.items()}
    return _with_classes(choose(arrays, source), parts["train"], source)


def _tables(parts: Mapping[str, Any], source: Source, known: Codings) -> Raw:
    """Columns of single numbers and of text, by the rules of a table; all splits have the columns of train."""
    found: dict[str, Raw] = {}
    for split in sorted(parts, key=lambda s: s != "train"):
        where = source.name if len(parts) == 1 else f"{source.name}, {split}"
        table = parts[split].with_format("arrow")[:]
        if found:
            known = {**known, **found["train"].classes, "x": Transform(columns=found["train"].columns)}
        found[split] = FrameTable(where, table, source, known, first=0).read()
    of = lambda name: {s: getattr(raw, name)["train"] for s, raw in found.items() if getattr(raw, name)}
    train = found["train"]
    raw = Raw(of("parts"), of("labels"), train.classes, train.columns, index=of("index"), index_name=train.index_name)
    return _with_classes(raw, parts["train"], source)


def _array(data: Any, name: str, where: str) -> Array:
    """One column: pictures, arrays, numbers or text."""
    if type(data.features[name]).__name__ == "Image":
        images = data.select_columns([name]).with_format(None)
        found = [pixels(row[name], f"{where}, row {i}") for i, row in enumerate(images)]
        for i, image in enumerate(found):
            if image.shape != found[0].shape:
                raise DataError(
                    f"{where}, row {i}: got a picture of shape {image.shape}, expected {found[0].shape}, as in row 0."
                )
        return np.stack(found)
    if getattr(data.features[name], "dtype", "") in ("string", "large_string"):
        return np.array(["" if v is None else v for v in data.with_format(None)[:][name]])
    found = data.select_columns([name]).with_format("numpy")[:][name]
    array = np.asarray(found)
    return numbers(name, array.tolist() if array.dtype.kind == "O" and array.ndim == 1 else array)


def _with_classes(raw: Raw, data: Any, source: Source) -> Raw:
    """The names of classes that the data set has."""
    classes = dict(raw.classes)
    fields = dict(source.fields or ())
    labels = {"label"} if raw.labels else set()
    for name in {*raw.parts["train"], *labels}:
        column = fields.get(name, name)
        its = next((c for c in (column, name) if isinstance(c, str) and c in data.features), None)
        names = getattr(data.features[its], "names", None) if its else None
        if names and name not in classes:
            classes[name] = Classes(tuple(names))
    return Raw(raw.parts, raw.labels, classes, raw.columns, index=raw.index, index_name=raw.index_name)
