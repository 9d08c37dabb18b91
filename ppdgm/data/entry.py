"""The one way by which rows come to a run: names and units of the user's own become what its program was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppdgm.data.classes import Classes
from ppdgm.data.dataset import Dataset
from ppdgm.data.prepared import MIXED, coding_of
from ppdgm.data.transform import Transform
from ppdgm.errors import DataError


def codings_of(data: Any) -> dict[str, Any]:
    """What was learned from data: the codings of a Dataset, or of the arrays of a split, by field."""
    if isinstance(data, Dataset):
        return data.codings
    named = data if isinstance(data, Mapping) else {"x": data}
    found = {str(n): coding_of(v) for n, v in named.items()}
    return {n: c for n, c in found.items() if isinstance(c, Transform | Classes)}


def enter(codings: Mapping[str, Any], data: Any) -> Any:
    """Rows as a program takes them.

    Args:
        codings: of the run, by field.
        data: an array, or named arrays: prepared, or in the user's own units and names.

    Raises:
        DataError: rows of which it can't be told, or names that are not known.
    """
    if isinstance(data, Dataset):
        return data  # refused where fields are read
    named = data if isinstance(data, Mapping) else {"x": data}
    for name, value in named.items():
        if coding_of(value) == MIXED:
            raise DataError(
                f"Data {name!r}: rows that were prepared in different ways, or not at all, are joined. Prepare each "
                "part as the run's, fit.prepare(rows), and join them then."
            )
    return {n: codings[n].enter(n, v) if isinstance(codings.get(n), Classes) else v for n, v in named.items()}


def leave(codings: Mapping[str, Any], sites: Mapping[str, Any]) -> dict[str, Any]:
    """Observed sites [n, …] as the user's own rows are: classes by their names."""
    found = dict(sites)
    for name, value in sites.items():
        coding = codings.get(name)
        if isinstance(coding, Classes) and coding.text and value.ndim == 1:
            found[name] = coding.decode(value)
    return found
