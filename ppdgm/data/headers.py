"""Whether a table's first line has names, and its first column names of rows: recognised, or asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppdgm.errors import DataError

MISSING = {"", "na", "n/a", "nan", "null", "?", "<na>"}
PEEK, ROWS = 100, 5  # lines to check after the first; from this many rows, a column doesn't count them by chance
_WHOLE = re.compile(r"[+-]?\d+")
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?|[+-]?\d+,(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_BLANK = ("", "unnamed: 0")  # the name that pandas gives a column without a name


def is_missing(cell: str) -> bool:
    """Whether a cell stands for a missing value."""
    cell = cell.strip()
    return cell.lower() in MISSING or cell == "None"


def is_number(cell: str) -> bool:
    """Whether a cell is a number; Python reads 1_0 as a number, here it is not one."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def is_truth(cell: str) -> bool:
    """Whether a cell is TRUE or FALSE."""
    return cell.strip().lower() in ("true", "false")


def with_points(cell: str) -> str:
    """A number with a decimal comma as one with a point; any other cell unchanged."""
    return cell.replace(",", ".") if _COMMA.fullmatch(cell.strip()) else cell


def decimal_of(path: Path | str, rows: Sequence[tuple[int, Sequence[str]]], delimiter: str) -> str:
    """The decimal sign of a table's numbers: a comma if some cells have one and no number has a point.

    Args:
        path: of the table, for messages.
        rows: some lines, with their numbers.
        delimiter: between cells; after a comma, none is left for numbers.

    Raises:
        DataError: the commas may be signs for thousands.
    """
    if delimiter == ",":
        return "."
    found = [(line, cell.strip()) for line, cells in rows for cell in cells if _COMMA.fullmatch(cell.strip())]
    pointed = any("." in cell and is_number(cell) for _, cells in rows for cell in cells)
    if not found or pointed:
        return "."
    if all(_THOUSANDS.fullmatch(cell) for _, cell in found):
        raise DataError(
            f"{path}, line {found[0][0]}: got {found[0][1]!r}: is this a decimal comma, or one for thousands? For a "
            "decimal comma, give decimal=',' (--set 'data.decimal=\",\"'). Otherwise write numbers without commas."
        )
    return ","


def has_header(path: Path, line: int, first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether the first line has names: none of its cells is a number.

    Args:
        path, line: of the table and its first line, for messages.
        first: cells of the first line.
        below: the cells of some lines after it.

    Raises:
        DataError: its numbers look like names.
    """
    if any(map(is_truth, first)):
        return False  # no column has such a name
    numbers = [i for i, cell in enumerate(first) if is_number(cell)]
    if not numbers:
        return any(not is_missing(cell) for cell in first)
    if _like_names(first, numbers, [cells for cells in below if len(cells) == len(first)]):
        shown = ", ".join(c.strip() or "''" for c in first[:5]) + (", …" if len(first) > 5 else "")
        raise DataError(
            f"{path}, line {line}: got {shown[:80]}, which may be names of columns or a row of data. Say which: "
            "header=True or header=False (--header or --no-header)."
        )
    return False


def blank_columns(names: Sequence[str]) -> int:
    """The number of columns, from the first, without a name."""
    return next((i for i, name in enumerate(names) if name.lower() not in _BLANK), len(names))


def index_columns(path: Path | str, names: Sequence[str], index: object) -> int:
    """The number of columns, from the first, that have names of rows and no data.

    Args:
        path: of the table, for messages.
        names: of its columns; empty without a header.
        index: what the user says about it.

    Raises:
        DataError: the user says nothing, and the first column has a blank name.
    """
    blank = blank_columns(names)
    if index is None and blank:
        raise DataError(f"{path}: got a first column without a name, like an index that pandas writes. {_ask_index()}")
    return max(1, blank) if index else 0


def check_counts(path: Path | str, column: np.ndarray, name: str | int) -> None:
    """Refuse a first column of a table that counts the rows, if the user has not said that it is data.

    Raises:
        DataError: it does.
    """
    if len(column) >= ROWS and column[0] in (0, 1) and np.array_equal(column, column[0] + np.arange(len(column))):
        raise DataError(f"{path}: got a first column, {name!r}, that counts the rows, like an index. {_ask_index()}")


def check_points(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Refuse two columns of digits that may be one column with decimal commas, if the user has not said what they are.

    Raises:
        DataError: all are whole numbers, and the second looks like decimals: all of one length, or no 0 at the end.
    """
    if any(len(cells) != 2 for cells in rows):
        return
    left, right = ([cells[i].strip() for cells in rows] for i in (0, 1))
    if not (all(map(_WHOLE.fullmatch, left)) and all(cell.isdecimal() for cell in right)):
        return
    never_whole = "-0" in left or any(len(cell) > 1 and cell[0] == "0" for cell in right)
    written = len(set(map(len, right))) == 1 or not any(cell.endswith("0") and cell != "0" for cell in right)
    if never_whole or (written and len(rows) >= ROWS):
        raise DataError(
            f"{path}: got lines such as {','.join(rows[0])[:40]!r}: two columns, or one with decimal commas? For two, "
            "give fields={'x': [0, 1]} (--set 'data.fields={x = [0, 1]}'). For one, write decimal points."
        )


def _ask_index() -> str:
    return "Say whether to leave it out: index=True or index=False (--index or --no-index)."


def _like_names(first: Sequence[str], numbers: Sequence[int], below: Sequence[Sequence[str]]) -> bool:
    """Whether a line with numbers is more like names than like a row."""
    words = [i for i in range(len(first)) if i not in set(numbers) and not is_missing(first[i])]
    if below and any(all(is_number(cells[i]) for cells in below) for i in words):
        return True  # a word above numbers
    cells = [first[i].strip() for i in numbers]
    values = np.array(cells, np.float64)
    if all(map(_WHOLE.fullmatch, cells)) and np.array_equal(values, np.arange(len(cells))):
        return True  # 0, 1, 2, …: the names that pandas gives columns without names
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(values)
        even = len(steps) > 1 and steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=0)
    if even:
        return True  # years, wavelengths
    written = lambda i: any(_WHOLE.fullmatch(row[i].strip()) for row in below)
    different = len(set(cells)) == len(cells)
    return bool(below) and different and all(map(_WHOLE.fullmatch, cells)) and not any(map(written, numbers))
