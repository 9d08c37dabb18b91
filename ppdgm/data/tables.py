"""CSV and TSV tables: numbers, with or without a header; a label column may be text."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ppdgm.data.checks import check_fits
from ppdgm.data.classes import UNLABELLED, Classes
from ppdgm.data.headers import MISSING, PEEK, check_counts, check_points, has_header, index_columns, is_number
from ppdgm.data.raw import Raw
from ppdgm.data.source import Column, Columns, Source
from ppdgm.errors import DataError, nearest

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings

_LABELS = ("label", "labels")
_FILL = "Fill it in, or leave out the row or the column."


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
    first = file.readline()
    delimiter = "\t" if ".tsv" in path.suffixes[-2:] else max(",;\t", key=first.count)
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


def _kept(file: TextIO, seen: list[str]) -> Iterator[str]:
    for line in file:
        seen.append(line)
        yield line


class Table:
    """Rows that are read once, and the names of their columns."""

    def __init__(self, path: Path, rows: Iterator[_Row], source: Source, known: Codings):
        self.path, self.source, self.known = path, source, known
        start = next(rows, None)
        if start is None:
            raise DataError(f"{path}: got an empty file, expected rows of numbers.")
        below = list(islice(rows, PEEK))
        told = source.header
        self.header = has_header(path, start.line, start.cells, [r.cells for r in below]) if told is None else told
        self.names = [" ".join(c.split()) for c in start.cells] if self.header else []
        self.width = len(start.cells)
        if not self.header and source.fields is None and start.delimiter == ",":
            check_points(path, [r.cells for r in (start, *below)])
        self.rows = chain(below, rows) if self.header else chain([start], below, rows)

    def read(self) -> Raw:
        wanted, label = self._wanted()
        asked = {**wanted, **({"label": label} if label is not None else {})}
        columns = {n: self._columns(c) for n, c in asked.items()}
        single = [n for n, c in asked.items() if not isinstance(c, tuple) and n != "x"]
        lines, numbers, texts = self._parse(columns, single)
        by_default = self.source.fields is None or self._is_bare("x")
        by_default = by_default and self.source.index is None and not self._names("x")
        if by_default and numbers.shape[1] > 1 and columns["x"][0] == 0:
            check_counts(self.path, numbers[:, 0], self.names[0] if self.header else 0)
        fields: dict[str, np.ndarray] = {}
        classes: dict[str, Classes] = {}
        for name in single:
            fields[name], found = self._single(name, texts[name], columns[name][0], lines, name in wanted)
            classes |= {name: found} if found else {}
        start = 0
        for name in (n for n in columns if n not in single):
            several = numbers[:, start : start + len(columns[name])]
            fields[name] = several.copy() if isinstance(asked[name], tuple) else several[:, 0].copy()
            start += len(columns[name])
        labels = {"train": fields["label"]} if "label" in fields else {}
        named = tuple(self.names[c] for c in columns["x"]) if self.header and "x" in columns else ()
        return Raw({"train": {n: fields[n] for n in wanted}}, labels, classes, named)

    def _wanted(self) -> tuple[dict[str, Columns], Column | None]:
        """The columns of the fields, and the column of labels beside them.

        They are the ones in the source; or those of data prepared before, by their names; or all but the label.
        """
        source = self.source
        label: Column | None = next((n for n in self.names if n.lower() in _LABELS), None)
        known = self._names("label")
        if known and known[0] in self.names:
            label = known[0]
        if source.fields is not None:
            asked = dict(source.fields)
            if self._is_bare("label") and label is not None:
                asked["label"] = label
            if self._is_bare("x"):
                asked["x"] = self._left([*(c for n, c in asked.items() if n != "x"), label])
            wanted: dict[str, Columns] = {n: self._by_name(n, c) for n, c in asked.items()}
            self._check_index(wanted)
            taken = "label" in wanted or label in wanted.values()
            return wanted, None if taken else label
        left = self._left([label])
        if names := self._names("x"):
            extra = [self.names[i] for i in left if self.names[i] not in names]
            if extra and all(n in self.names for n in names):
                shown = ", ".join(map(repr, extra[:5])) + (", …" if len(extra) > 5 else "")
                warnings.warn(
                    f"{self.path}: left out the columns {shown[:200]}, which the data prepared before didn't have.",
                    UserWarning,
                    stacklevel=2,
                )
            return {"x": names}, label
        return {"x": left}, label

    def _is_bare(self, field: str) -> bool:
        """Whether a field is asked for by its own name, which is not a column's: fields=["x", "label"]."""
        return self.header and dict(self.source.fields or ()).get(field) == field and field not in self.names

    def _left(self, taken: Iterable[Columns | None]) -> tuple[int, ...]:
        """The columns that are neither an index nor taken."""
        aside = {i for c in taken if c is not None for i in self._columns(c)}
        first = index_columns(self.path, self.names, self.source.index)
        if left := tuple(i for i in range(first, self.width) if i not in aside):
            return left
        raise DataError(f"{self.path} has no columns of data except its index and its label.")

    def _names(self, field: str) -> tuple[str, ...]:
        """The columns of a field in data prepared before, if this table has names too."""
        names = getattr(self.known.get(field), "columns", ()) if self.header else ()
        return names if len(set(names)) == len(names) else ()

    def _check_index(self, wanted: dict[str, Columns]) -> None:
        """Refuse fields that take a column that, as the user says, has names of rows."""
        first = index_columns(self.path, self.names, True) if self.source.index else 0
        for name, columns in wanted.items():
            if taken := [c for c in self._columns(columns) if c < first]:
                column = self.names[taken[0]] if self.header else taken[0]
                raise DataError(
                    f"{self.path}: index: got True, but field {name!r} uses the first column, {column!r}. Leave out "
                    "one of them. Column numbers start at 0, and count the index too."
                )

    def _by_name(self, field: str, wanted: Columns) -> Columns:
        """Columns by number become those with these numbers in data prepared before, which may be elsewhere here."""
        names, places = self._names(field), wanted if isinstance(wanted, tuple) else (wanted,)
        if not names or len(names) != len(places) or any(isinstance(c, str) for c in places):
            return wanted
        here = tuple(self.names[self._column(c)] for c in places)
        if here == names:
            return wanted
        told = ", ".join(f"{c} is {h!r}, and was {n!r}" for c, h, n in zip(places, here, names, strict=True) if h != n)
        where = f"{self.path}: field {field!r}: column numbers differ from the data prepared before: {told[:200]}"
        if any(self.names.count(n) != 1 for n in names):
            raise DataError(f"{where}. Give columns by name.")
        warnings.warn(f"{where}. The names from before are used.", UserWarning, stacklevel=2)
        return names if isinstance(wanted, tuple) else names[0]

    def _parse(
        self, columns: dict[str, list[int]], single: list[str]
    ) -> tuple[array[int], np.ndarray, dict[str, list[str]]]:
        """Line numbers, all columns of numbers side by side, and the cells of single columns."""
        chosen = [c for n, cs in columns.items() if n not in single for c in cs]
        lines, numbers = array("q"), array("d")
        texts: dict[str, list[str]] = {n: [] for n in single}
        known: dict[str, str] = {}
        for row in self.rows:
            if len(row.cells) != self.width:
                raise DataError(f"{self.path}, line {row.line}: got {len(row.cells)} cells, expected {self.width}.")
            cells = [row.cells[c] for c in chosen]
            try:
                numbers.extend(map(float, cells))
            except ValueError:
                self._refuse(row, chosen)
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
        bad = np.argwhere(~np.isfinite(table))
        if len(bad):
            i, j = bad[0]
            self._refuse_odd(lines[i], chosen[j], table[i, j])
        return lines, table, texts

    def _single(
        self, name: str, cells: list[str], column: int, lines: array[int], is_field: bool
    ) -> tuple[np.ndarray, Classes | None]:
        """A column of whole numbers, of numbers, or of names as whole numbers; a missing label is −1."""
        known = self.known.get(name)
        for line, cell in zip(lines, cells, strict=True):
            if cell.lower() in MISSING and name != "label":
                raise DataError(f"{self._place(line, column)}: got {cell!r}, a missing value. {_FILL}")
        there = [c for c in cells if c.lower() not in MISSING]
        if (isinstance(known, Classes) and known.text) or not all(map(is_number, set(there))) or not there:
            if self.known and known is None and is_field:
                raise DataError(
                    f"{self._place(lines[0], column)}: got names, such as {cells[0][:40]!r}, expected numbers, as in "
                    "the data prepared before."
                )
            named = known if isinstance(known, Classes) else None
            classes = named or Classes.learn(name, np.array(cells), (self.names[column],) if self.header else ())
            return classes.encode(name, np.array(cells)), classes
        values = np.array([UNLABELLED if c.lower() in MISSING else c for c in cells], np.float64)
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
            at = next(i for i, c in enumerate(cells) if c.lower() in MISSING)
            raise DataError(f"{self._place(lines[at], column)}: got {cells[at]!r}, a missing value. {_FILL}")
        return values.astype(np.int64) if whole else values, None

    def _columns(self, wanted: Columns) -> list[int]:
        several = wanted if isinstance(wanted, tuple) else (wanted,)
        return [self._column(c) for c in several]

    def _column(self, wanted: str | int) -> int:
        if isinstance(wanted, int):
            if not -self.width <= wanted < self.width:
                raise DataError(f"{self.path} has no column {wanted}, expected a number from 0 to {self.width - 1}.")
            return wanted % self.width
        if not self.header:
            raise DataError(
                f"{self.path} has no header: got column {wanted!r}, expected a number from 0 to {self.width - 1}, "
                'such as fields={"x": [0, 1], "label": 2}.'
            )
        if self.names.count(wanted) != 1:
            problem = "several columns" if wanted in self.names else "no column"
            raise DataError(
                f"{self.path} has {problem} {wanted!r}. {nearest(wanted, self.names)} Give the columns of each "
                'field: fields={"x": ["…", "…"], "label": "…"}.'
            )
        return self.names.index(wanted)

    def _refuse(self, row: _Row, columns: list[int]) -> None:
        column = next(c for c in columns if not is_number(row.cells[c]))
        cell, first = row.cells[column], row.line == 1 and not self.header
        hint = (
            " If this first line has names, give header=True; only a line without numbers is a header automatically."
            if first
            else ""
        )
        if cell.strip().lower() in MISSING:
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
        return f"{self.path}, line {line}, column {self.names[column] if self.header else column!r}"
