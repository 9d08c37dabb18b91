"""Which columns of a table become which fields: those of a source, of data prepared before, or all but the label."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ppdgm.data.columns import is_selection, select_columns
from ppdgm.data.exposure import EXPOSURE
from ppdgm.data.frames import repeated
from ppdgm.data.headers import blank_columns, index_columns
from ppdgm.data.source import Column, Columns, Source
from ppdgm.errors import DataError, listed

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings

LABELS = ("label", "labels")
LABEL, INDEX = "label", "(index)"  # INDEX: names of rows, beside the fields


def warn_left_out(where: Path | str, extra: Sequence[str]) -> None:
    """Warn about columns that the data prepared before did not have."""
    if extra:
        shown = ", ".join(map(repr, extra[:5])) + (", …" if len(extra) > 5 else "")
        told = f"{where}: left out the columns {shown[:200]}, which the data prepared before didn't have."
        warnings.warn(told, UserWarning, stacklevel=2)


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of a table, by field.

    Attributes:
        columns: their numbers; those of the label and of the names of rows too, if these are no fields.
        fields: the names of the fields.
        single: the fields that may be text: one column, [N].
        flat: the fields of numbers that are [N].
        totals: whether the totals of x are the exposure: it is asked for, and no column has it.
    """

    columns: dict[str, list[int]]
    fields: list[str]
    single: list[str]
    flat: list[str]
    totals: bool


@dataclass
class Choice:
    """The columns of a table that a source asks for.

    Attributes:
        where: the table, for messages.
        names: of its columns; empty without a header.
        width: the number of columns.
        source: of it.
        known: the codings of data that were prepared before, by field; the table gets the same columns.
    """

    where: Path | str
    names: Sequence[str]
    width: int
    source: Source
    known: Codings

    def __post_init__(self) -> None:
        self.index = self._index()

    def columns(self) -> ChosenColumns:
        """The columns of each field.

        Raises:
            DataError: there are no such columns, or it is not clear which ones are meant.
        """
        wanted, label = self._wanted()
        skip = self._skipped(wanted, label)
        found = {n: self._columns(c, skip) for n, c in wanted.items()}
        for name, columns in found.items():
            self._check_index(name, columns)
        if "x" in wanted and not self._by_number(wanted["x"]):
            self._check_names(found["x"])
        one = [n for n, c in wanted.items() if not isinstance(c, tuple) and not is_selection(c, self.names)]
        single = [n for n in one if n != "x"]
        if label is not None:
            found[LABEL], single = self._columns(label), [*single, LABEL]
        if self.index is not None:
            found[INDEX], single = [self.index], [*single, INDEX]
        return ChosenColumns(found, list(wanted), single, [n for n in one if n == "x"], self._is_bare(EXPOSURE))

    def by_default(self) -> bool:
        """Whether nothing says which columns are x, and which one names the rows."""
        bare = self.source.fields is None or self._is_bare("x")
        return bare and self.source.index is None and self.index is None and not self._names("x")

    def named(self, columns: Sequence[int]) -> tuple[str, ...]:
        """The names of columns, if they say which is which."""
        names = tuple(self.names[c] for c in columns) if self.names else ()
        return names if len(set(names)) == len(names) else ()

    def _index(self) -> int | None:
        """The column that names the rows."""
        asked, known = self.source.index, getattr(self.known.get("x"), "index", "")
        if asked is None and known and list(self.names).count(known) == 1:
            return list(self.names).index(known)
        if isinstance(asked, str):
            return self._columns(asked)[0]
        return 0 if asked else None

    def _wanted(self) -> tuple[dict[str, Columns], Column | None]:
        """The columns of the fields, and the column of labels beside them.

        They are the ones in the source; or those of data prepared before, by their names; or all but the label.
        """
        source = self.source
        label: Column | None = next((n for n in self.names if n.lower() in LABELS), None)
        known = self._names("label")
        if known and known[0] in self.names:
            label = known[0]
        if label is not None and self.index is not None and self._columns(label) == [self.index]:
            label = None
        if source.fields is not None:
            asked = {n: c for n, c in source.fields if not (n == EXPOSURE and self._is_bare(n))}
            if self._is_bare("label") and label is not None:
                asked["label"] = label
            if self._is_bare("x"):
                chosen = [c for n, c in asked.items() if n != "x" and not is_selection(c, self.names)]
                selected = [c for n, c in asked.items() if n != "x" and is_selection(c, self.names)]
                aside = self._skipped(asked, label)
                aside |= {i for c in selected for i in self._columns(c, aside)}
                asked["x"] = self._left([*chosen, label], aside)
            wanted: dict[str, Columns] = {n: self._by_name(n, c) for n, c in asked.items()}
            taken = "label" in wanted or label in wanted.values()
            return wanted, None if taken else label
        left = self._left([label])
        if names := self._names("x"):
            before = set(names)
            extra = [self.names[i] for i in left if self.names[i] not in before]
            if extra and before.issubset(self.names):
                warn_left_out(self.where, extra)
            return {"x": names}, label
        return {"x": left}, label

    def _is_bare(self, field: str) -> bool:
        """Whether a field is asked for by its own name, which is not a column's: fields=["x", "label"]."""
        named = bool(self.names) and field not in self.names
        return named and dict(self.source.fields or ()).get(field) == field

    def _left(self, taken: Iterable[Columns | None], aside: Iterable[int] = ()) -> tuple[int, ...]:
        """The columns that are neither an index nor taken."""
        out = {i for c in taken if c is not None for i in self._columns(c)} | set(aside)
        out |= set() if self.index is None else {self.index}
        asked = self.source.index
        if isinstance(asked, str) and blank_columns(self.names):
            raise DataError(
                f"{self.where}: got a first column without a name, beside index={asked!r}. To leave it out, choose the "
                "columns of x: fields={'x': '!0'}."
            )
        first = index_columns(self.where, self.names, asked if self.index is None or asked is True else False)
        if left := tuple(i for i in range(first, self.width) if i not in out):
            return left
        raise DataError(f"{self.where} has no columns of data except its index and its label.")

    def _skipped(self, wanted: dict[str, Columns], label: Column | None) -> set[int]:
        """What patterns, ranges and all but never choose: the index, the label, and columns of other fields."""
        named = [c for n, c in wanted.items() if not is_selection(c, self.names) and not self._is_bare(n)]
        named = [c for c in named if not isinstance(c, tuple)]
        found = {i for c in [*named, *([] if label is None else [label])] for i in self._columns(c)}
        if self.source.index is True:
            found |= set(range(index_columns(self.where, self.names, True)))
        return found | (set() if self.index is None else {self.index})

    def _names(self, field: str) -> tuple[str, ...]:
        """The columns of a field in data prepared before, if this table has names too."""
        names = getattr(self.known.get(field), "columns", ()) if self.names else ()
        return names if len(set(names)) == len(names) else ()

    def _check_names(self, columns: Sequence[int]) -> None:
        """Refuse two columns of one name, unless they were chosen by number."""
        names = [self.names[c] for c in columns] if self.names else []
        if (twice := repeated(names)) is not None:
            places = [c for c in columns if self.names[c] == twice]
            raise DataError(
                f"{self.where}: got several columns {twice!r}: numbers {listed(places)}. Give each its own name, or "
                f"choose columns by number: fields={{'x': {list(columns)[:20]}}} (--set 'data.fields={{x = …}}')."
            )

    def _check_index(self, field: str, columns: Sequence[int]) -> None:
        """Refuse fields that take a column that, as the user says, has names of rows."""
        asked = self.source.index
        first = index_columns(self.where, self.names, True) if asked is True else 0
        taken = [c for c in columns if c < first or (isinstance(asked, str) and c == self.index)]
        if taken:
            column, which = self.names[taken[0]] if self.names else taken[0], "the first" if asked is True else "that"
            raise DataError(
                f"{self.where}: index: got {asked!r}, but field {field!r} uses {which} column, {column!r}. Leave out "
                "one of them. Column numbers start at 0, and count the index too."
            )

    def _by_name(self, field: str, wanted: Columns) -> Columns:
        """Columns by number become those with these numbers in data prepared before, which may be elsewhere here.

        So do patterns: they may mean other columns here.
        """
        names, places = self._names(field), wanted if isinstance(wanted, tuple) else (wanted,)
        if names and is_selection(wanted, self.names):
            return names
        if not names or len(names) != len(places) or any(isinstance(c, str) for c in places):
            return wanted
        here = tuple(self.names[c] for c in self._columns(wanted))
        if here == names:
            return wanted
        told = ", ".join(f"{c} is {h!r}, and was {n!r}" for c, h, n in zip(places, here, names, strict=True) if h != n)
        where = f"{self.where}: field {field!r}: column numbers differ from the data prepared before: {told[:200]}"
        if any(list(self.names).count(n) != 1 for n in names):
            raise DataError(f"{where}. Give columns by name.")
        warnings.warn(f"{where}. The names from before are used.", UserWarning, stacklevel=2)
        return names if isinstance(wanted, tuple) else names[0]

    def _by_number(self, wanted: Columns) -> bool:
        several = wanted if isinstance(wanted, tuple) else (wanted,)
        asked = dict(self.source.fields or ()).get("x")
        return asked is not None and not self._is_bare("x") and all(isinstance(c, int) for c in several)

    def _columns(self, wanted: Columns, skip: Iterable[int] = ()) -> list[int]:
        return select_columns(str(self.where), self.names, self.width, wanted, set(skip))
