"""A column of weights: read like a field, and then kept beside the fields."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ppdgm.data.dataset import Dataset, Split
from ppdgm.data.source import Source
from ppdgm.data.split import SPLITS
from ppdgm.errors import DataError

FIELD = "weights"


def with_field(source: Source, table: bool) -> Source:
    """The source whose fields include the weights.

    Args:
        source: as it was given.
        table: whether x is by default all columns; named arrays are fields under their own names.

    Raises:
        DataError: there is a field with this name.
    """
    if source.weights is None:
        return source
    if source.fields is not None and FIELD in dict(source.fields):
        raise DataError(
            f"fields: got {FIELD!r}, but weights={source.weights!r} are kept beside the fields. Leave it out."
        )
    default = (("x", "x"),) if table else ()
    fields = source.fields or default
    return source.replace(fields=(*fields, (FIELD, source.weights))) if fields else source


def weights_beside(data: Dataset, source: Source) -> Dataset:
    """The data set with its weights beside the fields.

    Args:
        data: with the weights among its fields.
        source: as it was given.

    Raises:
        DataError: the weights are names, or not one number for each row.
    """
    if source.weights is None:
        return data
    name = FIELD if data.source.fields else str(source.weights)
    if name in data.codes:
        raise DataError(f"weights: the column {source.weights!r} has names, expected numbers.")
    weights: dict[str, np.ndarray] = {}
    splits: dict[str, Split] = {}
    for split in SPLITS:
        fields = getattr(data, split)
        if fields is None:
            continue
        if not isinstance(fields, dict) or name not in fields:
            raise DataError(f"weights: got {source.weights!r}, but {data.name} has no such column or array.")
        found = np.asarray(fields[name][:], np.float64)
        if found.ndim != 1:
            raise DataError(f"weights: got an array of shape {found.shape}, expected one number for each row.")
        weights[split] = found
        rest = {n: v for n, v in fields.items() if n != name}
        splits[split] = rest["x"] if set(rest) == {"x"} else rest
    train, validation, test = (splits.get(n) for n in SPLITS)
    return replace(
        data,
        train=train,
        validation=validation,
        test=test,
        weights=weights,
        source=data.source.replace(fields=source.fields),
    )
