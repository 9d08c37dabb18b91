"""CSV and TSV tables: numbers, with or without a header; a label column may be text."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ppdgm.data.checks import check_fits
from ppdgm.data.choice import INDEX, LABEL, Choice
from ppdgm.data.classes import UNLABELLED, Classes
from ppdgm.data.exposure import EXPOSURE, totals
from ppdgm.data.headers import (
    PEEK,
    check_counts,
    check_points,
    decimal_of,
    has_header,
    is_missing,
    is_number,
    is_truth,
    with_points,
)
from ppdgm.data.raw import Raw
from ppdgm.data.source import Source
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings

_FILL = (
    "Fill it in, or leave out the row or the column; or read it as NaN, for a program that takes missing numbers: "
    "missing='nan' (--set data.missing=nan); or give scale='table', for a program with likelihood=Table(), which takes "
    "missing cells, names and dates."
)


@dataclass(frozen=True)
class _Row:
    line: int
    cells: list[str]
    delimiter: str


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name."""
    return path.name.lower().endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz"))


def read_table(path: Path, source: Source, known: Codings) -> Raw:
    """The fields of a table.

    Args:
        path, source: of it.
        known: the codings of data that were prepared before, by field; these data get the same columns and classes.

    Raises:
        DataError: a cell that is not a number, or a row of another length; the message gives the line and column.
    """
    check_fits(path.stat().st_size, str(path), "Save it as numbers with np.save: .npy files are streamed.")
    try:
        with _opened(path) as file:
            return Table(path, _rows(file, path), source, known).read()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from None
    except csv.Error as error:
        raise DataError(f"{path} is not a table: {error}.") from None
    except (EOFError, zlib.error) as error:  # of gzip; a bad header is an OSError
        raise DataError(f"{path} is not a complete gzip file: {error}.") from None


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def _rows(file: TextIO, path: Path) -> Iterator[_Row]:
    lines = [line for line in islice(file, 20) if line.strip()]
    delimiter = "\t" if ".tsv" in path.suffixes[-2:] else _delimiter(lines)
    file.seek(0)
    seen: list[str] = []  # lines of the row that is being read
    form: dict[str, Any] = {"delimiter": delimiter, "skipinitialspace": True}
    reader, ended = csv.reader(_kept(file, seen), **form), ""
    for cells in reader:
        ended = "".join(seen)
        seen.clear()
        if cells:
            yield _Row(reader.line_num, cells, delimiter)
    try:  # read the last row again: the reader accepts the end of the file as the end of a quotation
        list(csv.reader(io.StringIO(ended, newline=""), **form, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            line = reader.line_num - ended.count("\n", 0, -1)
            raise DataError(
                f'{path}, line {line}: got a quotation mark, ", that is not closed. Add the second one.'
            ) from None


def _delimiter(lines: list[str]) -> str:
    """The sign between cells: the most frequent one of the first line, or ";" beside decimal commas."""
    counts = [line.count(";") for line in lines]
    if counts and counts[0] and len(set(counts)) == 1 and len({line.count(",") for line in lines}) > 1:
        return ";"
    every = [cell.strip() for line in lines[:1] for cell in line.split(";")]
    if counts and counts[0] and all(with_points(c) != c or is_number(c) for c in every):
        return ";"  # 1,5;2,5
    return max(",;\t", key=lines[0].count) if lines else ","


def _kept(file: TextIO, seen: list[str]) -> Iterator[str]:
    for line in file:
        seen.append(line)
        yield line


def row_names(cells: list[str]) -> np.ndarray:
    """Names of rows: whole numbers, if all are and have no zeros in front; otherwise text."""
    whole = all(re.fullmatch(r"-?[1-9]\d{0,17}|0", cell) for cell in cells)
    return np.array(cells, np.int64) if whole else np.array(cells)


class Table:
    """Rows that are read once, and the names of their columns."""

    path: Path | str
    names: list[str]
    comma = False  # whether numbers have decimal commas

    def __init__(self, path: Path, rows: Iterator[_Row], source: Source, known: Codings):
        self.path, self.source, self.known = path, source, known
        start = next(rows, None)
        if start is None:
            raise DataError(f"{path}: got an empty file, expected rows of numbers.")
        below = list(islice(rows, PEEK))
        peeked = [(row.line, row.cells) for row in (start, *below)]
        self.comma = (source.decimal or decimal_of(path, peeked, start.delimiter)) == ","
        told = source.header
        seen = [[self._plain(cell) for cell in cells] for _, cells in peeked]
        self.header = has_header(path, start.line, seen[0], seen[1:]) if told is None else told
        self.names = [" ".join(c.split()) for c in start.cells] if self.header else []
        self.width = len(start.cells)
        if not self.header and source.fields is None and start.delimiter == ",":
            check_points(path, [r.cells for r in (start, *below)])
        self.rows = chain(below, rows) if self.header else chain([start], below, rows)

    def read(self) -> Raw:
        choice = Choice(self.path, self.names, self.width, self.source, self.known)
        chosen = choice.columns()
        columns, single = chosen.columns, chosen.single
        mixed = {f"x[{c}]": [c] for c in columns.get("x", ())} if self._mixed else {}  # read as text, column by column
        parsed = {n: c for n, c in columns.items() if not (mixed and n == "x")} | mixed
        lines, numbers, texts = self._parse(parsed, [*single, *mixed])
        if choice.by_default() and len(columns["x"]) > 1 and columns["x"][0] == 0:
            first = texts["x[0]"] if mixed else numbers[:, 0]
            if not mixed or all(map(is_number, first)):
                check_counts(self.path, np.asarray(first, np.float64), self.names[0] if self.header else 0)
        index = {"train": row_names(texts[INDEX])} if INDEX in texts else {}
        fields: dict[str, np.ndarray] = {}
        classes: dict[str, Classes] = {}
        for name in (n for n in single if n != INDEX):
            fields[name], found = self._single(name, texts[name], columns[name][0], lines, name in chosen.fields)
            classes |= {name: found} if found else {}
        start = 0
        if mixed:
            fields["x"] = np.array([[self._plain(c) for c in texts[n]] for n in mixed], object).T
        for name in (n for n in parsed if n not in single and n not in mixed):
            several = numbers[:, start : start + len(parsed[name])]
            fields[name] = several[:, 0].copy() if name in chosen.flat else several.copy()
            start += len(parsed[name])
        if chosen.totals:
            if "x" not in fields or mixed:
                raise DataError(f"{self.path}: got the field 'exposure' without x and without a column of that name.")
            fields[EXPOSURE] = totals(str(self.path), fields["x"])
        labels = {"train": fields[LABEL]} if LABEL in fields else {}
        named = choice.named(columns["x"]) if "x" in columns else ()
        row_name = self.names[columns[INDEX][0]] if self.header and index else ""
        held = {n: fields[n] for n in (*chosen.fields, *([EXPOSURE] if chosen.totals else []))}
        return Raw({"train": held}, labels, classes, named, index=index, index_name=row_name)

    @property
    def _mixed(self) -> bool:
        """Whether x has names, dates and missing cells, which are numbered later."""
        return self.source.scale == "table" or getattr(self.known.get("x"), "kind", "") == "table"

    def _parse(
        self, columns: dict[str, list[int]], single: list[str]
    ) -> tuple[Sequence[int], np.ndarray, dict[str, list[str]]]:
        """Line numbers, all columns of numbers side by side, and the cells of single columns."""
        chosen = [c for n, cs in columns.items() if n not in single for c in cs]
        lines, numbers = array("q"), array("d")
        truths = [0] * len(chosen)  # the number of cells that are TRUE or FALSE
        texts: dict[str, list[str]] = {n: [] for n in single}
        known: dict[str, str] = {}
        for row in self.rows:
            if len(row.cells) != self.width:
                raise DataError(f"{self.path}, line {row.line}: got {len(row.cells)} cells, expected {self.width}.")
            cells = [self._plain(row.cells[c]) for c in chosen] if self.comma else [row.cells[c] for c in chosen]
            try:
                numbers.extend([float(cell) for cell in cells])  # a list: all of them, or none
            except ValueError:
                numbers.extend(self._odd_cells(row, cells, chosen, truths))
            if "_" in "".join(cells):  # Python reads 1_0 as a number
                self._refuse(row, chosen)
            for name, found in texts.items():
                cell = row.cells[columns[name][0]].strip()
                if "\n" in cell or "\r" in cell:  # a single quotation mark, which takes in all rows up to the next one
                    shown = f"got {cell[:40]!r}, with a line break. Is a quotation mark missing?"
                    raise DataError(f"{self._place(row.line, columns[name][0])}: {shown}")
                found.append(known.setdefault(cell, cell))
            lines.append(row.line)
        if not lines:
            raise DataError(f"{self.path} has a header, but no rows.")
        table = np.frombuffer(numbers).reshape(len(lines), len(chosen)) if chosen else np.empty((len(lines), 0))
        for j, count in enumerate(truths):
            if 0 < count < len(lines):
                raise DataError(
                    f"{self.path}, column {self._name(chosen[j])}: got TRUE or FALSE in {count} of {len(lines)} rows, "
                    f"and numbers in others. Write one kind. {self._leave_out(chosen[j])}"
                )
        bad = np.argwhere(self._bad(table))
        if len(bad):
            i, j = bad[0]
            self._refuse_odd(lines[i], chosen[j], table[i, j])
        return lines, table, texts

    def _single(
        self, name: str, cells: list[str], column: int, lines: Sequence[int], is_field: bool
    ) -> tuple[np.ndarray, Classes | None]:
        """A column of whole numbers, of numbers, or of names as whole numbers; a missing label is −1."""
        known = self.known.get(name)
        if self.comma and all(is_number(self._plain(c)) for c in set(cells) if not is_missing(c)):
            cells = [self._plain(c) for c in cells]
        gaps = name != LABEL and self.source.missing == "nan"
        for line, cell in zip(lines, cells, strict=True):
            if is_missing(cell) and name != LABEL and not gaps:
                raise DataError(f"{self._place(line, column)}: got {cell!r}, a missing value. {_FILL}")
        there = [c for c in cells if not is_missing(c)]
        if (isinstance(known, Classes) and known.text) or not all(map(is_number, set(there))) or not there:
            if self.known and known is None and is_field:
                raise DataError(
                    f"{self._place(lines[0], column)}: got names, such as {cells[0][:40]!r}, expected numbers, as in "
                    "the data prepared before."
                )
            named = known if isinstance(known, Classes) else None
            classes = named or Classes.learn(name, np.array(cells), (self.names[column],) if self.header else ())
            return classes.encode(name, np.array(cells)), classes
        if gaps and len(there) < len(cells):
            return np.array([np.nan if is_missing(c) else c for c in cells], np.float64), None
        values = np.array([UNLABELLED if is_missing(c) else c for c in cells], np.float64)
        if not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values)))
            raise DataError(f"{self._place(lines[at], column)}: got {cells[at]}, expected a finite number. {_FILL}")
        for at in map(int, np.flatnonzero(np.abs(values) >= 2**53)):  # a float can't tell it from its neighbours
            if re.fullmatch(r"[+-]?\d+", cells[at]) and int(cells[at]) != int(values[at]):
                raise DataError(
                    f"{self._place(lines[at], column)}: got {cells[at]}, a whole number beyond 2⁵³, which a float "
                    "can't hold exactly. Leave out the column, or write its values as names."
                )
        whole = (values == np.rint(values)).all() and np.abs(values).max() < 2**53
        if not whole and len(there) < len(cells):
            at = next(i for i, c in enumerate(cells) if is_missing(c))
            raise DataError(f"{self._place(lines[at], column)}: got {cells[at]!r}, a missing value. {_FILL}")
        return values.astype(np.int64) if whole else values, None

    def _plain(self, cell: str) -> str:
        """A cell with a decimal point for a decimal comma; a point would mark thousands: such a cell is no number."""
        if not self.comma:
            return cell
        return f"{cell} (with decimal=',')" if "." in cell and is_number(cell) else with_points(cell)

    def _odd_cells(self, row: _Row, cells: list[str], columns: list[int], truths: list[int]) -> list[float]:
        """The numbers of a row with cells that are none: TRUE, FALSE, or missing, if these are read as NaN."""
        found = []
        for j, cell in enumerate(cells):
            if is_truth(cell):
                truths[j] += 1
                found.append(float(cell.strip().lower() == "true"))
            elif self.source.missing == "nan" and is_missing(cell):
                found.append(float("nan"))
            elif is_number(cell):
                found.append(float(cell))
            else:
                self._refuse(row, columns)
        return found

    def _bad(self, table: np.ndarray) -> np.ndarray:
        """Which numbers are refused: all that are not finite; with missing="nan", the infinite ones."""
        return np.isinf(table) if self.source.missing == "nan" else ~np.isfinite(table)

    def _name(self, column: int) -> str:
        return repr(self.names[column] if self.header else column)

    def _refuse(self, row: _Row, columns: list[int]) -> None:
        read = lambda cell: is_number(cell) or is_truth(cell) or (self.source.missing == "nan" and is_missing(cell))
        column = next(c for c in columns if not read(self._plain(row.cells[c])))
        cell, first = row.cells[column], row.line == 1 and not self.header
        hint = (
            " If this first line has names, give header=True; only a line without numbers is a header automatically."
            if first
            else ""
        )
        if with_points(cell) != cell:
            hint = " For decimal commas, give decimal=',' (--set 'data.decimal=\",\"')."
        if self.comma and "." in cell:
            hint = " This table has decimal commas: write its numbers without points. Or give decimal='.'."
        if is_missing(cell):
            raise DataError(f"{self._place(row.line, column)}: got {cell!r}, a missing value. {_FILL}{hint}")
        raise DataError(
            f"{self._place(row.line, column)}: got {cell!r}, expected a number. {self._leave_out(column)}{hint}"
        )

    def _refuse_odd(self, line: int, column: int, value: float) -> None:
        raise DataError(f"{self._place(line, column)}: got {value}, expected a finite number. {_FILL}")

    def _leave_out(self, column: int) -> str:
        return (
            f'Leave out the column, or make it the label: fields={{"x": […], "label": '
            f"{self.names[column] if self.header else column!r}}}, or --set 'data.fields={{x = […], label = …}}'."
        )

    def _place(self, line: int, column: int) -> str:
        return f"{self.path}, line {line}, column {self._name(column)}"
