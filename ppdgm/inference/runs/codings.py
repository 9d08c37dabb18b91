"""Codings, learned from a run's data, in the form that its files keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.data import Classes, Transform
from ppdgm.errors import DataError
from ppdgm.inference.runs.checkpoint import group, grouped

if TYPE_CHECKING:
    from ppdgm.data.aliases import Coding, Codings
    from ppdgm.specs import Table


def coding_tables(codings: Codings) -> dict[str, object]:
    """Codings for a page: "transform", of x, and "classes", by field."""
    transform = cast("Transform | None", codings.get("x"))  # that of x always is one
    return {
        "transform": transform.to_table() if transform else None,
        "classes": {n: c.to_table() for n, c in codings.items() if isinstance(c, Classes)},
    }


def coding_arrays(codings: Codings) -> dict[str, np.ndarray]:
    """Their arrays, saved beside the parameters."""
    transform = cast("Transform | None", codings.get("x"))  # that of x always is one
    return grouped("transform", transform.arrays() if transform else {})


def read_codings(arrays: Mapping[str, np.ndarray], page: Table) -> dict[str, Coding]:
    """The codings that `coding_tables` and `coding_arrays` saved.

    Raises:
        DataError: they are not codings.
    """
    transform, classes = page.get("transform"), page.get("classes") or {}
    if not isinstance(classes, Mapping):
        raise DataError(f"Classes: got {str(classes)[:80]}, expected a table of fields.")
    if isinstance(transform, Mapping) and "binarise" not in transform:  # from a run before it was saved here
        recipe = page.get("recipe")
        data = recipe.get("data", {}) if isinstance(recipe, Mapping) else {}
        transform = {**transform, "binarise": data.get("binarise", "none") if isinstance(data, Mapping) else "none"}
    found: dict[str, Coding] = {n: Classes.from_table(n, table) for n, table in classes.items()}
    return found | ({"x": Transform.from_parts(transform, group(arrays, "transform"))} if transform else {})
