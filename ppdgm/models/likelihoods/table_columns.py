"""What a column of a table holds, as text: "real", "age: count", "colour: categorical(3)"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ppdgm.errors import SpecError, nearest

SIMPLE = ("real", "positive", "count", "poisson", "binary", "date")
WITH_LEVELS = ("ordinal", "categorical")
CONTINUOUS = ("real", "positive", "date")
KINDS = (*SIMPLE, *(f"{k}(K)" for k in WITH_LEVELS))


class ColumnKind(NamedTuple):
    """A column's distribution.

    Attributes:
        kind: one of `SIMPLE` and `WITH_LEVELS`.
        levels: K, of those with levels; 0 for others.
        name: of the column; "" if it has none.
    """

    kind: str
    levels: int = 0
    name: str = ""

    def __str__(self) -> str:
        kind = f"{self.kind}({self.levels})" if self.levels else self.kind
        return f"{self.name}: {kind}" if self.name else kind

    @property
    def values(self) -> int:
        """How many values it has, counted from 0; 0 if they are not limited."""
        return 2 if self.kind == "binary" else self.levels


def read_kind(text: str) -> ColumnKind:
    """The kind of a column, from its text.

    Raises:
        SpecError: it is none.
    """
    name, _, told = text.rpartition(": ")
    found = re.fullmatch(r"([a-z]+)(?:\((\d+)\))?", told.strip())
    kind, levels = (found[1], int(found[2] or 0)) if found else (told, 0)
    if kind in WITH_LEVELS and levels < 2 and (levels or not name):  # of a column with a name, the data show them
        raise SpecError(f"Table.columns: got {text!r}, expected the number of levels, at least 2: '{kind}(3)'.")
    if kind not in SIMPLE + WITH_LEVELS or (kind in SIMPLE and found and found[2]):
        raise SpecError(
            f"Table.columns: got {text!r}. {nearest(told, KINDS)} A column's name may come first: 'age: count'."
        )
    return ColumnKind(kind, levels, name.strip())


def slices_of(places: Sequence[int]) -> list[tuple[int, int]]:
    """Places as slices [start, end) of neighbours, in their order."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


class ColumnBlock(NamedTuple):
    """Columns of one family, and of one number of levels, which are computed together.

    Attributes:
        kind: "real" (also for dates), "positive", "count", "poisson", "ordinal", "categorical" or "binary".
        levels: of "ordinal" and "categorical"; else 0.
        columns: their places in x.
        outputs: places of each column's outputs in the decoder's head, one column after another.
        width: the number of outputs of each column.
    """

    kind: str
    levels: int
    columns: tuple[int, ...]
    outputs: tuple[int, ...]
    width: int


def column_blocks(kinds: Sequence[ColumnKind], spreads: bool) -> list[ColumnBlock]:
    """The columns by family; in the head, each column's outputs follow those of the column before it.

    Args:
        kinds: of the columns.
        spreads: whether the decoder also gives the scale of a number, or the dispersion of a count.
    """
    start, grouped = 0, dict[tuple[str, int], list[tuple[int, range]]]()
    for column, kind in enumerate(kinds):
        width = outputs_of(kind, spreads)
        family = "real" if kind.kind == "date" else kind.kind
        grouped.setdefault((family, kind.levels), []).append((column, range(start, start + width)))
        start += width
    return [
        ColumnBlock(kind, levels, tuple(c for c, _ in each), tuple(i for _, r in each for i in r), len(each[0][1]))
        for (kind, levels), each in grouped.items()
    ]


def outputs_of(kind: ColumnKind, spreads: bool) -> int:
    """How many of the decoder's outputs a column needs."""
    if kind.kind == "categorical":
        return kind.levels
    return 2 if spreads and kind.kind in (*CONTINUOUS, "count") else 1
