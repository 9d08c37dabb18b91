"""Parquet files: tables whose columns have names and types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ppdgm.data.checks import check_fits
from ppdgm.data.frame_table import FrameTable
from ppdgm.data.raw import Raw
from ppdgm.data.source import Source
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings

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
    check_fits(path.stat().st_size, str(path), "Save it as numbers with np.save: .npy files are streamed.")
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        told = " ".join(str(error).split())
        raise DataError(f"{path} can't be read as a Parquet file ({told.rstrip('.')[:200]}).") from None
    return FrameTable(path, table, source, known).read()
