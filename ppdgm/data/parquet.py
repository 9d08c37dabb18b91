"""Parquet files: tables whose columns have names and types."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.checks import check_fits
from ppdgm.data.kinds import as_numbers
from ppdgm.data.raw import Raw
from ppdgm.data.source import Source
from ppdgm.data.tables import Table
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.data.frames import Frame

ENDINGS = (".parquet", ".pq")


def is_parquet(path: Path) -> bool:
    """Whether a file is a Parquet table, by its name."""
    return path.suffix.lower() in ENDINGS


def read_parquet(path: Path, source: Source, known: Codings) -> Raw:
    """The fields of a Parquet file, by the rules of `read_table`.

    Raises:
        DataError: pyarrow is not installed, the file can't be read, or a column of data is not numbers.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(f"{path}: .parquet needs pyarrow: pip install pyarrow. Or save the table as .csv.") from None
    if source.header is not None:
        raise DataError(f"{path}: header: got {source.header}, but a Parquet file always has names. Leave it out.")
    check_fits(path.stat().st_size, str(path), "Save it as numbers with np.save: .npy files are streamed.")
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        told = " ".join(str(error).split())
        raise DataError(f"{path} can't be read as a Parquet file ({told.rstrip('.')[:200]}).") from None
    named = (table.schema.pandas_metadata or {}).get("index_columns", [])  # pandas says which columns name the rows
    return ParquetTable(path, table.drop_columns([n for n in named if isinstance(n, str)]), source, known).read()


class ParquetTable(Table):
    """A table that has its columns; lines are rows, from 1."""

    def __init__(self, path: Path, frame: Frame, source: Source, known: Codings):
        self.path, self.source, self.known, self.frame = path, source, known, frame
        self.header, self.names = True, [" ".join(str(n).split()) for n in frame.column_names]
        self.width = len(self.names)

    def _parse(
        self, columns: dict[str, list[int]], single: list[str]
    ) -> tuple[array[int], np.ndarray, dict[str, list[str]]]:
        rows = self.frame.num_rows
        if not rows:
            raise DataError(f"{self.path} has names, but no rows.")
        chosen = [c for n, places in columns.items() if n not in single for c in places]
        found = np.empty((rows, len(chosen)))
        for j, c in enumerate(chosen):
            values = self.frame.column(c).to_numpy()
            try:
                found[:, j] = as_numbers(self.names[c], values)
            except DataError:
                self._refuse_column(c, values)
            if not np.isfinite(found[:, j]).all():
                row = int(np.argmin(np.isfinite(found[:, j])))
                self._refuse_odd(row + 1, c, found[row, j])
        texts = {n: [_cell(v) for v in self.frame.column(columns[n][0]).to_pylist()] for n in single}
        return array("q", range(1, rows + 1)), found, texts

    def _refuse_column(self, column: int, values: np.ndarray) -> None:
        shown = next((v for v in values.tolist() if v is not None), None)
        raise DataError(
            f"{self._place(1, column)}: got {str(shown)[:40]!r}, expected numbers. {self._leave_out(column)}"
        )

    def _place(self, line: int, column: int) -> str:
        return f"{self.path}, row {line}, column {self.names[column]}"


def _cell(value: object) -> str:
    """A value as a table of text has it, with all of its digits."""
    return "" if value is None else str(int(value)) if isinstance(value, bool) else str(value)
