"""Data that are given to `load_data` in Python: a table, an array, or arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.data.annotated import is_annotated, read_annotated
from ppdgm.data.dataset import Dataset
from ppdgm.data.frame_table import FrameTable
from ppdgm.data.frames import columns_of, is_frame
from ppdgm.data.hugging_face import is_hugging_face, read_hugging_face
from ppdgm.data.kinds import numbers
from ppdgm.data.prepared import Prepared, coding_of
from ppdgm.data.raw import Raw, by_split, choose
from ppdgm.data.rows import is_minibatches, is_torch_data, read_rows
from ppdgm.data.source import Source
from ppdgm.data.stream import Stream, is_sparse
from ppdgm.data.transform import Transform
from ppdgm.errors import DataError, listed, shown

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.language.native import Array


def describe(value: object) -> str:
    """What was given, in a few words: "pandas DataFrame"."""
    home = type(value).__module__.partition(".")[0]
    return type(value).__name__ if home == "builtins" else f"{home} {type(value).__name__}"


def is_collection(data: object) -> bool:
    """Whether data are no arrays by name, but an object that has its own: of torch, Hugging Face or anndata."""
    return is_hugging_face(data) or is_annotated(data) or is_torch_data(data) or is_minibatches(data)


def opened(data: Any, known: Codings, named: bool = False, before: Source | None = None) -> Any:
    """The arrays by name of such an object, with its labels, as `fit` and a fit's methods take them.

    Args:
        data: the object; anything else is returned unchanged.
        known: the codings of a run, by field.
        named: whether x carries the names of its columns, as to train on it.
        before: of the run's data: the same fields and the same layer are meant.

    Raises:
        DataError: it has several splits.
    """
    if not is_collection(data):
        return data
    if is_hugging_face(data) and isinstance(data, Mapping):
        raise DataError(
            f"Data: got the splits {listed(map(repr, data))}. Choose one, data['train'], or load all: load_data(data)."
        )
    source = Source(name=describe(data), given_in_python=True)
    if before is not None and (before.given_in_python or not (is_torch_data(data) or is_minibatches(data))):
        layer = before.layer if is_annotated(data) else None
        source = source.replace(fields=before.fields, layer=layer, missing=before.missing)
    raw = read_given(data, source, known)
    found: dict[str, Any] = {**raw.parts["train"], **({"label": raw.labels["train"]} if raw.labels else {})}
    for name, coding in raw.classes.items():
        if name in found:
            found[name] = Prepared(found[name], coding)
    if named and raw.columns and "x" in found:
        names = Transform(columns=raw.columns, index=raw.index_name)
        x = found["x"]
        found["x"] = Stream(x, coding=names) if is_sparse(x) else Prepared(x, names)
    return found


def is_raw(data: object) -> bool:
    """Whether rows were not prepared by `load_data`."""
    if data is None or isinstance(data, Dataset):
        return False
    named = data if isinstance(data, Mapping) else {"x": data}
    return not any(isinstance(v, Stream) or coding_of(v) is not None for v in named.values())


def read_given(value: Any, source: Source, known: Codings) -> Raw:
    """The fields of an object.

    Raises:
        DataError: it is no data, or was prepared already.
    """
    if isinstance(value, Dataset):
        raise DataError(f"load_data: got {value!r}, which is already loaded. Give its source: load_data(data.source).")
    if is_hugging_face(value):
        return read_hugging_face(value, source, known)
    if is_annotated(value):
        return read_annotated(value, source, known)
    if is_frame(value):
        return FrameTable(source.name, value, source, known, first=0).read()
    if is_torch_data(value) or is_minibatches(value):
        value = read_rows(value, source.name, source.memory)
    if isinstance(value, Mapping) and (odd := next((n for n in value if not isinstance(n, str)), None)) is not None:
        raise DataError(f"load_data: got a field named {shown(odd)}, expected text.")
    named = by_split(value, source.name) if isinstance(value, Mapping) else {"train": {"x": value}}
    columns = {columns_of(fields["x"]) for fields in named.values() if is_frame(fields.get("x"))}
    parts = {split: {n: _array(n, v) for n, v in fields.items()} for split, fields in named.items()}
    raw = choose(parts, source)
    if len(columns) > 1:
        raise DataError(f"{source.name}: got tables with different columns for x. Give each split the same columns.")
    return Raw(raw.parts, raw.labels, raw.classes, next(iter(columns), ()), index=raw.index, index_name=raw.index_name)


def _array(name: str, value: Array) -> Array:
    """An array of numbers or of text, a sparse matrix, or a memory-mapped array."""
    if coding_of(value) is not None or isinstance(value, Stream):
        raise DataError(
            f"Data {name!r}: got rows that load_data already prepared, expected raw ones. Use them as they are: "
            "fit(program, rows)."
        )
    if is_sparse(value):
        return value.tocsr()
    if isinstance(value, np.memmap):
        return value
    words = _words(value)
    return numbers(name, value) if words is None else words


def _words(value: Array) -> np.ndarray | None:
    """A list or an array of text; missing ones are empty."""
    if is_frame(value) or isinstance(value, str | bytes):
        return None
    try:
        array = np.asarray(value, None if hasattr(value, "dtype") else object)
    except Exception:  # refused as what it is
        return None
    if array.dtype.kind in "US":
        return array
    if array.dtype.kind in "OT" and array.ndim == 1 and any(isinstance(v, str) for v in array):
        missing = lambda v: v is None or type(v).__name__ == "NAType" or v != v
        if all(isinstance(v, str) or missing(v) for v in array):
            return np.array(["" if missing(v) else v for v in array])
    return None
