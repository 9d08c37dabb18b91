"""Names of classes and the whole numbers used for them: learned from training data, and kept with a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ppdgm.data.headers import is_missing
from ppdgm.data.prepared import Prepared, coding_of
from ppdgm.errors import DataError, closest
from ppdgm.language.native import Array

UNLABELLED = -1


@dataclass(frozen=True)
class Classes:
    """The meaning of the whole numbers of a field.

    Attributes:
        names: of the classes, from 0.
        text: whether the field contains these names in the user's data, and not the whole numbers.
        columns: the table's column that it came from, by name.
    """

    names: tuple[str, ...]
    text: bool = True
    columns: tuple[str, ...] = ()
    scales = False  # after rows are joined, a whole number is still a code

    @classmethod
    def learn(cls, name: str, words: np.ndarray, columns: tuple[str, ...] = ()) -> Classes:
        """The classes of a field of text, in alphabetical order; missing labels are not a class."""
        unique = [str(w) for w in np.unique(words)]
        return cls(tuple(w for w in unique if not _missing(name, w)), True, columns)

    def encode(self, name: str, words: Array) -> Prepared:
        """Names as whole numbers; a missing label (−1, NaN, None, empty) becomes −1.

        Raises:
            DataError: a name that is not known; the message gives its first index.
        """
        words = np.asarray(words)
        unique, back = np.unique(words.astype(str), return_inverse=True)
        codes = {n: i for i, n in enumerate(self.names)}
        found = np.array([UNLABELLED if _missing(name, w) else codes.get(w, -2) for w in unique.tolist()], np.int64)
        back = back.reshape(words.shape)
        if (found == -2).any():
            bad = int(np.argmax(found == -2))
            at = tuple(int(i) for i in np.argwhere(back == bad)[0])
            word = str(unique[bad])[:40]
            known = ", ".join(n[:40] for n in self.names[:10]) + (", …" if len(self.names) > 10 else "")
            hint = f" Did you mean {close!r}?" if (close := closest(word, self.names)) else ""
            raise DataError(
                f"Data {name!r}: got the class {word!r} at index {at}, expected one of the classes of the training "
                f"data: {known or 'none'}.{hint}"
            )
        return Prepared(found[back], self)

    def decode(self, codes: Array) -> np.ndarray:
        """The names of whole numbers; an empty text for −1. A mean is named as the class nearest to it.

        Raises:
            DataError: there is no such class: a model may draw more of them than the data have.
        """
        at = np.rint(np.asarray(codes, np.float64))
        if (bad := ~((at >= UNLABELLED) & (at < len(self.names)))).any():
            raise DataError(
                f"got class {at[bad][0]:g}, but the data have only the {len(self.names)} classes "
                f"{', '.join(n[:40] for n in self.names[:10])}. Let the model draw only these; or use "
                "units='prepared', which gives numbers."
            )
        found: np.ndarray = np.array([*self.names, ""])[at.astype(np.int64)]
        return found

    def enter(self, name: str, values: Array) -> Array:
        """Rows as codes; the rows may be names, codes of other classes, or already codes.

        Raises:
            DataError: names that are not known.
        """
        its = coding_of(values)
        if isinstance(its, Classes) and its.names != self.names:
            codes = np.asarray(values)
            words = np.array([*its.names, "-1"])[np.clip(codes, -1, len(its.names) - 1)]
            return self.encode(name, words)
        if isinstance(its, Classes):
            return values
        array = values if isinstance(values, np.ndarray) else _as_array(values)
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8", "replace")
        if array.dtype.kind == "O" and any(isinstance(v, str) for v in array.ravel()):
            array = np.array(["" if v is None else str(v) for v in array.ravel()]).reshape(array.shape)
        return self.encode(name, array) if array.dtype.kind in "US" else values

    def to_table(self) -> dict[str, list[str] | bool]:
        """Its plain values."""
        return {"names": list(self.names), "text": self.text, "columns": list(self.columns)}

    @classmethod
    def from_table(cls, field: str, table: object) -> Classes:
        """The classes of `to_table()`.

        Raises:
            DataError: it is not such a table.
        """
        if isinstance(table, Mapping):
            names, columns, text = table.get("names"), table.get("columns", []), table.get("text", True)
            words = isinstance(names, list) and isinstance(columns, list)
            if words and all(isinstance(w, str) for w in (*names, *columns)) and isinstance(text, bool):  # type: ignore[misc]  # lists by now
                return cls(tuple(names), text, tuple(columns))  # type: ignore[arg-type]  # also lists by now
        raise DataError(f"Classes of {field!r}: got {str(table)[:80]}, expected a table of names.")


def as_labels(name: str, array: Array) -> Array:
    """Labels that are whole numbers, some of them missing as NaN, with −1 for these; all other arrays unchanged."""
    if name != "label" or array.dtype.kind != "f" or not (gaps := np.isnan(array)).any():
        return array
    there = array[~gaps]
    whole = (there == np.rint(there)).all() and (np.abs(there) < 2**53).all()
    return np.where(gaps, UNLABELLED, array).astype(np.int64) if whole else array


def _missing(name: str, word: str) -> bool:
    return name == "label" and (is_missing(word) or word.strip() in ("-1", "-1.0"))


def _as_array(values: object) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError):  # not an array: refused when fields are read
        return np.empty(0)
