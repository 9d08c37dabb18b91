"""Tables that have named columns with types: of pandas, polars and Arrow, and Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.choice import INDEX
from ppdgm.data.frames import array_at, index_of, list_at, names_of, without_index
from ppdgm.data.kinds import as_numbers
from ppdgm.data.raw import Raw
from ppdgm.data.source import Source
from ppdgm.data.tables import Table
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.data.frames import Frame


class FrameTable(Table):
    """A table that has its columns, read by the rules of CSV.

    Args:
        path: of its file, or what it is.
        frame: the table.
        source, known: as for `read_table`.
        first: the number of the first row in messages.
    """

    def __init__(self, path: Path | str, frame: Frame, source: Source, known: Codings, first: int = 1):
        for name in ("header", "decimal"):
            if (asked := getattr(source, name)) is not None:
                told = "always has names" if name == "header" else "has numbers, and no text"
                raise DataError(f"{path}: {name}: got {asked!r}, but this table {told}. Leave it out.")
        self.path, self.source, self.known, self.first = path, source, known, first
        self.own_index, self.frame = index_of(frame), without_index(frame)
        frame = self.frame
        self.header, self.names = True, [" ".join(n.split()) for n in names_of(frame)]
        self.width = len(self.names)

    def read(self) -> Raw:
        """The fields; the index of a pandas table names its rows, unless the source names a column."""
        raw = super().read()
        own, name = self.own_index
        if raw.index or own is None:
            return raw
        return Raw(raw.parts, raw.labels, raw.classes, raw.columns, index={"train": own}, index_name=name)

    def _parse(
        self, columns: dict[str, list[int]], single: list[str]
    ) -> tuple[Sequence[int], np.ndarray, dict[str, list[str]]]:
        rows = int(self.frame.shape[0])
        if not rows:
            raise DataError(f"{self.path} has names, but no rows.")
        chosen = [c for n, places in columns.items() if n not in single for c in places]
        found = np.empty((rows, len(chosen)))
        for j, c in enumerate(chosen):
            values = array_at(self.frame, c)
            try:
                found[:, j] = as_numbers(self.names[c], values)
            except DataError:
                self._refuse_column(c, values)
            if (bad := self._bad(found[:, j])).any():
                row = int(np.argmax(bad))
                self._refuse_odd(row + self.first, c, found[row, j])
        texts = {n: [_cell(v, n) for v in list_at(self.frame, columns[n][0])] for n in single}
        return range(self.first, rows + self.first), found, texts

    def _refuse_column(self, column: int, values: np.ndarray) -> None:
        shown = next((v for v in values.tolist() if v is not None), None)
        raise DataError(
            f"{self._place(self.first, column)}: got {str(shown)[:40]!r}, expected numbers. {self._leave_out(column)}"
        )

    def _place(self, line: int, column: int) -> str:
        return f"{self.path}, row {line}, column {self.names[column]}"


def _cell(value: object, field: str) -> str:
    """A value as a table of text has it, with all of its digits."""
    if field == INDEX:
        return "" if value is None else str(value)
    return "" if value is None else str(int(value)) if isinstance(value, bool | np.bool_) else str(value)
