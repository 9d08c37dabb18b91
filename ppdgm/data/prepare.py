"""From raw arrays to a data set: checks, splits, scale, binarisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.checks import check_array, refuse_where
from ppdgm.data.classes import UNLABELLED, Classes, as_labels
from ppdgm.data.dataset import Dataset, Split
from ppdgm.data.fields import Fields, check_finite
from ppdgm.data.looks import SOME, check_own
from ppdgm.data.mixed import encode_table, learn_columns
from ppdgm.data.prepared import Prepared
from ppdgm.data.raw import Raw
from ppdgm.data.scaling import choose_scale, extremes, fit_transform
from ppdgm.data.sets import KnownDataset
from ppdgm.data.source import Source
from ppdgm.data.split import SPLITS, Rows, split_rows
from ppdgm.data.stream import Stream, is_sparse
from ppdgm.data.transform import Transform
from ppdgm.errors import DataError, listed

if TYPE_CHECKING:
    from ppdgm.data.aliases import Coding, Codings

Chosen = Mapping[str, tuple[str, Rows] | None]


def prepare(
    raw: Raw,
    source: Source,
    entry: KnownDataset | None,
    transform: Transform | None,
    known: Codings,
    units: str | None,
) -> Dataset:
    """The data set of a source.

    Args:
        raw: what was read.
        source: how to prepare it.
        entry: defaults of a known set.
        transform: used instead of one that is fitted.
        known: the codings of data prepared before, by field; these data get the same classes.
        units: of the data, if these have a scale: "own", "prepared", or None to judge by how they look.

    Raises:
        DataError: data that can't be prepared in this way; the message says which, and the place.
    """
    if source.scale == "table" or (transform is not None and transform.kind == "table"):
        raw = _as_table(raw, transform)
    raw = _numbers(raw, known)
    raw = replace(
        raw,
        parts={p: {n: as_labels(n, a) for n, a in f.items()} for p, f in raw.parts.items()},
        labels={p: as_labels("label", a) for p, a in raw.labels.items()},
    )
    _check_codes(raw, known)
    _check(raw, source.missing == "nan")
    sizes = {part: next(iter(fields.values())).shape[0] for part, fields in raw.parts.items()}
    asked = {"validation": source.validation, "test": source.test}
    default = {n: getattr(entry, n, None) for n in asked}
    chosen = split_rows(sizes, asked, default, source.seed)
    source, transform = _prepared(raw, source, entry, transform, chosen)
    scaling = _scaling(raw, transform, units) if "x" in known else transform
    if source.binarise != "none":
        _check_probabilities([fields["x"] for fields in raw.parts.values()], scaling)
    labels = {
        n: _whole(raw.labels[part], rows, raw.classes.get("label"))
        for n, (part, rows) in _taken(chosen)
        if part in raw.labels
    }
    return Dataset(
        name=source.name,
        **{n: _split_data(raw, n, chosen[n], source, scaling, transform) for n in SPLITS},
        labels=labels,
        source=source,
        transform=transform,
        binarise="dynamic" if source.binarise == "dynamic" else "none",
        codes=raw.classes,
        index={
            n: raw.index[part] if rows is None else raw.index[part][rows]
            for n, (part, rows) in _taken(chosen)
            if part in raw.index
        },
        weights={},
    )


def _as_table(raw: Raw, transform: Transform | None) -> Raw:
    """x of names, dates and numbers as numbers, in all parts, and the meaning of its columns.

    Args:
        raw: x as it was read, [N, D]: numbers, or objects with None for what is missing.
        transform: of data prepared before, whose columns these have.
    """
    xs = {part: fields["x"] for part, fields in raw.parts.items() if "x" in fields}
    if not xs:
        raise DataError("scale: got 'table', but there is no field 'x'. Leave it out.")
    table = transform.table if transform else learn_columns(np.concatenate([*xs.values()]), names=raw.columns)
    parts = {p: {**f, **({"x": encode_table(table, f["x"])} if p in xs else {})} for p, f in raw.parts.items()}
    return replace(raw, parts=parts, table=table)


def _numbers(raw: Raw, known: Codings) -> Raw:
    """Text fields except x as whole numbers, the same in all parts, and the same as in data prepared before."""
    train, classes = raw.parts["train"], dict(raw.classes)
    parts, labels = {p: dict(f) for p, f in raw.parts.items()}, dict(raw.labels)
    tables: dict[str, dict[str, np.ndarray]] = {n: {p: f[n] for p, f in parts.items()} for n in train if n != "x"}
    for name, arrays in {**tables, "label": labels}.items():
        words = {p: _words(name, a, raw.classes.get(name), known.get(name)) for p, a in arrays.items()}
        if not words or any(w is None for w in words.values()):
            continue
        everything = np.concatenate([w for w in words.values() if w is not None])
        before = known.get(name)
        if known and name in train and not isinstance(before, Classes):
            raise DataError(
                f"Data {name!r}: got names, such as {str(everything[0])[:40]!r}, expected numbers, as in the data "
                "prepared before."
            )
        classes[name] = before if isinstance(before, Classes) else Classes.learn(name, everything)
        for part, values in words.items():
            codes = classes[name].encode(name, values)
            if name in parts[part]:
                parts[part][name] = codes
            if name == "label" and part in labels:
                labels[part] = codes
    return replace(raw, parts=parts, labels=labels, classes=classes)


def _check_codes(raw: Raw, known: Codings) -> None:
    """Refuse whole numbers if the classes before had names: their order may be different.

    Raises:
        DataError: with the names, and how to write them.
    """
    for part, fields in raw.parts.items():
        labels = {"label": raw.labels[part]} if part in raw.labels else {}
        for name, array in {**labels, **fields}.items():
            before = known.get(name)
            if not (isinstance(before, Classes) and before.text) or name in raw.classes or array.dtype.kind in "US":
                continue
            if (numbered := np.asarray(array)[np.asarray(array) != UNLABELLED]).size:
                raise DataError(
                    f"Data {name!r}: got numbers, such as {numbered.ravel()[0]}, expected names of classes, as "
                    f"in the data prepared before: {listed(before.names)}. Give names: "
                    f"np.array([…])[{name}], with the names in the order of your numbers."
                )


def _words(name: str, array: np.ndarray, its: Classes | None, known: Coding | None) -> np.ndarray | None:
    """The names in a field of text, or in one that was read with other classes than before; None: neither."""
    if array.dtype.kind in "US" and np.ndim(array) == 1:
        return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array
    if its is not None and isinstance(known, Classes) and known.text and its.names != known.names:
        return its.decode(array)
    return None


def _check(raw: Raw, gaps: bool) -> None:
    """Refuse arrays that are not numbers, are not finite, or differ in length, or in shape from training."""
    for part, fields in raw.parts.items():
        everything = {**fields, **({"label": raw.labels[part]} if part in raw.labels else {})}
        of = "" if part == "train" else f" of {part}"
        for name, array in everything.items():
            check_array(f"{name}{of}", array)
            known = raw.parts["train"].get(name)
            if known is not None and (array.shape[1:] != known.shape[1:] or _family(array) != _family(known)):
                raise DataError(
                    f"Data '{name}{of}': got {array.dtype} of shape {array.shape[1:]}, expected {known.dtype} of shape "
                    f"{known.shape[1:]}, as in the training data."
                )
        everything |= {"index": raw.index[part]} if part in raw.index else {}
        if len({a.shape[0] for a in everything.values()}) > 1:
            sizes = {n: a.shape[0] for n, a in everything.items()}
            raise DataError(f"Data{of}: got fields of {sizes} rows, expected the same number in each.")
        finite = {f"{n}{of}": a for n, a in everything.items() if not isinstance(a, np.memmap)}
        check_finite(finite, gaps, {f"x{of}"} if raw.table else ())


def _family(array: np.ndarray) -> str:
    return "i" if array.dtype.kind in "iu" else array.dtype.kind


def _prepared(
    raw: Raw, source: Source, entry: KnownDataset | None, transform: Transform | None, chosen: Chosen
) -> tuple[Source, Transform]:
    """The source with its choices made, and the transform."""
    xs = [fields["x"] for fields in raw.parts.values() if "x" in fields]
    if not xs:
        if source.scale not in ("auto", "none") or source.binarise not in ("auto", "none"):
            raise DataError(
                f"{source.name}: got scale or binarise, but there is no field 'x', and they are only for x. "
                "Leave them out."
            )
        return source.replace(scale="none", binarise="none"), Transform(columns=raw.columns, index=raw.index_name)
    scale: str = source.scale
    drawn: str = source.binarise
    if transform is None:
        if scale == "auto":
            scale = entry.scale if entry else choose_scale(xs)
        part, rows = chosen["train"] or ("train", None)
        train = Stream(raw.parts[part]["x"], rows)
        fitted = (
            Transform("table", table=raw.table, library="any" if raw.columns else "")
            if raw.table
            else fit_transform(scale, xs, train, source.missing == "nan")
        )
        transform = _with_facts(fitted, train)
    if drawn == "auto":
        drawn = entry.binarise if entry and transform.kind == "unit" else transform.binarise
    columns = tuple(c.name for c in raw.table) or raw.columns
    return source.replace(scale=transform.kind, binarise=drawn), replace(
        transform, columns=columns, binarise=drawn, seed=source.seed, index=raw.index_name
    )


def _with_facts(transform: Transform, train: Stream) -> Transform:
    """A transform that knows how raw numbers and x look, from some of the rows."""
    some = train[:SOME]
    whole = train.array.dtype.kind in "biu" or bool((some == np.rint(some)).all())
    with np.errstate(all="ignore"):  # numbers that are not finite are refused elsewhere
        level = float(np.abs(transform.scaled(some)).mean())
    return replace(transform, whole=whole, level=level if np.isfinite(level) else 0.0)


def _check_probabilities(arrays: list[np.ndarray], transform: Transform) -> None:
    if transform.kind in ("levels", "standardise", "table"):
        raise DataError(f"Got scale={transform.kind!r}, but binarise needs x in [0, 1]. Give scale='unit'.")

    def outside(chunk: np.ndarray) -> np.ndarray:
        x = transform.apply(chunk)
        return ~((x >= 0) & (x <= 1))

    for array in arrays:
        if not (array.dtype == np.uint8 and transform.divisor >= 255):
            refuse_where("x", array, outside, "probabilities in [0, 1], to binarise them. Give scale='unit'")


def _scaling(raw: Raw, transform: Transform, units: str | None) -> Transform:
    """The transform that brings x to the scale of data prepared before; none if x is already on it.

    Raises:
        DataError: they look already scaled, and the user says nothing about it.
    """
    xs = [fields["x"] for fields in raw.parts.values() if "x" in fields]
    if units == "prepared" or not xs:
        return Transform()
    if transform.binary:
        inside = all(low >= 0 and high <= 1 for low, high in [extremes(xs, 2)])
        return Transform() if inside else transform
    if transform.kind == "table":  # they have been read with its columns
        return Transform()
    if units is None:
        check_own("x", transform, Stream(xs[0])[:SOME], "units='prepared' or units='own' (--units prepared or own)")
    return transform


def _split_data(
    raw: Raw,
    name: str,
    taken: tuple[str, Rows] | None,
    source: Source,
    transform: Transform,
    coding: Transform,
) -> Split:
    """What `fit` takes: an array, or named arrays if there are fields beside x."""
    if taken is None:
        return None
    part, rows = taken
    found: Fields = {}
    for field, array in raw.parts[part].items():
        if field == "x":
            drawn = source.binarise
            drawn = ("none" if name == "train" else "static") if drawn == "dynamic" else drawn
            stream = Stream(array, rows, transform, drawn, (source.seed, SPLITS.index(part)), coding=coding)
        else:
            stream = Stream(array, rows, dtype=array.dtype.newbyteorder("="))
        loaded = stream if isinstance(array, np.memmap) or is_sparse(array) else stream.load()
        found[field] = loaded if field == "x" or loaded is stream else _whole(array, rows, raw.classes.get(field))
    return found["x"] if set(found) == {"x"} else found


def _whole(array: np.ndarray, rows: Rows, classes: Classes | None) -> np.ndarray:
    """Rows of a field other than x, in memory, with its classes."""
    found = Stream(array, rows, dtype=array.dtype.newbyteorder("=")).load()
    return found if classes is None else Prepared(found, classes)


def _taken(chosen: Chosen) -> list[tuple[str, tuple[str, Rows]]]:
    return [(n, taken) for n, taken in chosen.items() if taken is not None]
