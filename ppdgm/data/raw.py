"""What a source contains before any preparation: named arrays, by split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ppdgm.data.classes import Classes
from ppdgm.data.column import Column as Meaning
from ppdgm.data.exposure import EXPOSURE, totals
from ppdgm.data.kinds import as_numbers
from ppdgm.data.source import Source
from ppdgm.errors import DataError, nearest

X_NAMES, LABEL_NAMES = ("x", "X", "data", "images"), ("label", "labels", "y")
_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Raw:
    """Named arrays [N, …] by split: "train" (all that the source does not hold out itself), "validation", "test".

    Attributes:
        parts: the arrays of each split, by field.
        labels: of each split, if there are any, also if they are not a field.
        classes: the meaning of the whole numbers of fields.
        columns: the columns of x, for a table with a header.
        colour: of images, "grey" or "rgb".
        index: the names of rows, by split, if there are any.
        index_name: the column that they came from.
        table: the meaning of the columns of x, with scale="table".
    """

    parts: dict[str, dict[str, np.ndarray]]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    classes: dict[str, Classes] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    colour: str = ""
    index: dict[str, np.ndarray] = field(default_factory=dict)
    index_name: str = ""
    table: tuple[Meaning, ...] = ()


def by_split(named: Mapping[str, np.ndarray], where: str) -> dict[str, dict[str, np.ndarray]]:
    """Arrays sorted into splits by name: `train`, `x_train`, `train_x`; without such names, all are training data."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in named.items():
        split, field = _place(name)
        if field in parts.setdefault(split, {}):
            raise DataError(f"{where}: got several arrays {field!r} for {split}, such as {name!r}, expected one.")
        parts[split][field] = array
    if set(parts) == {""}:
        return {"train": parts[""]}
    if "" in parts or "train" not in parts:
        raise DataError(
            f"{where}: got arrays {', '.join(map(repr, named)) or 'none'}, expected fields such as 'x', 'label', or "
            "their splits, such as 'x_train', 'x_test'."
        )
    return parts


def split_of(name: str) -> str | None:
    """The split that a name means: "val" is validation."""
    return _SPLITS.get(name)


def _place(name: str) -> tuple[str, str]:
    """The split in an array's name, or "", and its field."""
    first, _, rest = name.partition("_")
    before, _, last = name.rpartition("_")
    if first in _SPLITS:
        return _SPLITS[first], rest or "x"
    return (_SPLITS[last], before) if last in _SPLITS and before else ("", name)


def choose(parts: Mapping[str, Mapping[str, np.ndarray]], source: Source) -> Raw:
    """The fields that a source asks for, and the labels beside them."""
    chosen: dict[str, dict[str, np.ndarray]] = {}
    labels: dict[str, np.ndarray] = {}
    parts, index = _without_index(parts, source)
    for split, named in parts.items():
        fields = _default(named, source) if source.fields is None else dict(source.fields)
        bare = fields.get(EXPOSURE) == EXPOSURE and EXPOSURE not in named and "x" in fields
        wanted = {n: w for n, w in fields.items() if not (n == EXPOSURE and bare)}
        chosen[split] = {n: _named(named, w, source) for n, w in wanted.items()}
        if bare:
            chosen[split][EXPOSURE] = totals(source.name, as_numbers("x", chosen[split]["x"]))
        label = next((n for n in LABEL_NAMES if n in named), None)
        if "label" in chosen[split]:
            labels[split] = chosen[split]["label"]
        elif label is not None and not any(chosen[split][n] is named[label] for n in chosen[split]):
            labels[split] = named[label]
    for split, found in chosen.items():
        if found.keys() != chosen["train"].keys():
            raise DataError(
                f"{source.name}: got fields {list(found)} for {split}, expected {list(chosen['train'])}, as for train."
            )
    return Raw(chosen, labels, index=index, index_name=str(source.index) if index else "")


def _without_index(
    parts: Mapping[str, Mapping[str, np.ndarray]], source: Source
) -> tuple[Mapping[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """The arrays except the one that names the rows, and this one."""
    name = source.index
    if not isinstance(name, str):
        return parts, {}
    for split, named in parts.items():
        if name not in named or named[name].ndim != 1:
            what = f"no array {name!r}" if name not in named else f"an array {name!r} of more than one axis"
            raise DataError(
                f"{source.name}: index: got {what} for {split}, expected an array of names. {nearest(name, named)} "
                "If there is none, give index=False (--no-index)."
            )
    left = {split: {n: a for n, a in named.items() if n != name} for split, named in parts.items()}
    return left, {split: named[name] for split, named in parts.items()}


def _default(named: Mapping[str, np.ndarray], source: Source) -> dict[str, str]:
    """x under its usual names, or the only array; the others, except the label, keep their names."""
    others, labels = [n for n in named if n not in LABEL_NAMES], [n for n in named if n in LABEL_NAMES]
    if len(labels) > 1:
        raise DataError(
            f"{source.name}: got arrays {' and '.join(map(repr, labels))}, but only one can be the label. "
            f'Give the array of each field, such as fields={{"x": "x", "label": "{labels[0]}"}}.'
        )
    x = next((n for n in X_NAMES if n in others), others[0] if len(others) == 1 else None)
    if x is None:
        raise DataError(
            f"{source.name}: got arrays {', '.join(map(repr, named)) or 'none'}, expected one named 'x'. Give the "
            'array of each field, such as fields={"x": "…"}.'
        )
    return {"x": x, **{n: n for n in others if n != x}}


def _named(named: Mapping[str, np.ndarray], wanted: object, source: Source) -> np.ndarray:
    if isinstance(wanted, str) and wanted in named:
        return named[wanted]
    if not isinstance(wanted, str):
        raise DataError(
            f"{source.name}: fields: got {wanted!r}, expected the name of an array; only tables have columns."
        )
    raise DataError(f"{source.name}: no array {wanted!r}. {nearest(wanted, named)}")
