"""Which columns of a table are meant: by name, number, pattern ("gene_*"), range ("a:d") or all but ("!id")."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ppdgm.data.source import Column, Columns
from ppdgm.errors import DataError, listed, nearest


def is_selection(wanted: Columns, names: Sequence[str]) -> bool:
    """Whether columns are written as a pattern, a range or all but; a column with exactly this name comes first."""
    several = wanted if isinstance(wanted, tuple) else (wanted,)
    return any(isinstance(c, str) and _is_selection(c) and c not in names for c in several)


def select_columns(
    where: str, names: Sequence[str], width: int, wanted: Columns, skip: Collection[int] = ()
) -> list[int]:
    """The numbers of the wanted columns.

    Args:
        where: the table, for messages.
        names: of the columns; empty if the table has none.
        width: the number of columns.
        wanted: names and numbers; patterns, in which * is any text and ? any character; ranges, both ends included;
            and "!…", which leaves out what would be chosen without the "!". A list that begins with "!…" starts with
            all columns.
        skip: columns that patterns, ranges and all but never choose.

    Raises:
        DataError: there is no such column, or several of one name.
    """
    several = wanted if isinstance(wanted, tuple) else (wanted,)
    found: list[int] = []
    places = {name: i for i, name in enumerate(names)} if len(several) > 1 else {}  # there may be thousands
    unique = len(places) == len(names)
    for i, one in enumerate(several):
        if isinstance(one, str) and unique and one in places:
            found.append(places[one])
            continue
        if isinstance(one, int) or one in names or not _is_selection(one):
            found.append(column(where, names, width, one))
            continue
        every = [c for c in range(width) if c not in skip]  # in the table's order
        if one.startswith("!"):
            out = set(_meant(where, names, width, one[1:], range(width)))
            found = [c for c in (every if i == 0 else found) if c not in out]
        else:
            there = set(found)
            found += [c for c in _meant(where, names, width, one, every) if c not in there]
    if not found:
        raise DataError(f"{where}: {listed(map(repr, several))} leaves no column. Choose at least one.")
    return found


def column(where: str, names: Sequence[str], width: int, wanted: Column) -> int:
    """The number of one column, by name or number.

    Raises:
        DataError: there is none, or several.
    """
    if isinstance(wanted, int):
        if not -width <= wanted < width:
            raise DataError(f"{where} has no column {wanted}, expected a number from 0 to {width - 1}.")
        return wanted % width
    if not names:
        raise DataError(
            f"{where} has no header: got column {wanted!r}, expected a number from 0 to {width - 1}, "
            'such as fields={"x": [0, 1], "label": 2}.'
        )
    if (places := [i for i, name in enumerate(names) if name == wanted]) and len(places) > 1:
        raise DataError(
            f"{where} has several columns {wanted!r}: numbers {listed(places)}. Choose by number, such as "
            f'fields={{"x": {places[:1]}}}.'
        )
    if not places:
        raise DataError(
            f"{where} has no column {wanted!r}. {nearest(wanted, names)} Give the columns of each "
            'field: fields={"x": ["…", "…"], "label": "…"}.'
        )
    return places[0]


def _is_selection(text: str) -> bool:
    return any(sign in text for sign in "*?:") or text.startswith("!")


def _meant(where: str, names: Sequence[str], width: int, text: str, among: Collection[int]) -> list[int]:
    """The columns of a pattern, a range, or a single name or number (as after "!")."""
    if text in names or re.fullmatch(r"\d+", text):
        return [column(where, names, width, text if text in names else int(text))]
    if ":" in text and (ends := _ends(where, names, width, text)):
        allowed = set(among)
        return [c for c in range(ends[0], ends[1] + 1) if c in allowed]
    if not ("*" in text or "?" in text):
        column(where, names, width, text)  # refuses it
    if not names:
        raise DataError(f"{where} has no header: got {text!r}, but patterns need names. Give numbers: 'x': '0:9'.")
    pattern = re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
    if not any(pattern.fullmatch(name) for name in names):
        raise DataError(f"{where} has no column like {text!r}. Its columns are {listed(map(repr, names))}.")
    allowed = set(among)
    return [i for i, name in enumerate(names) if i in allowed and pattern.fullmatch(name)]


def _ends(where: str, names: Sequence[str], width: int, text: str) -> tuple[int, int] | None:
    """The first and the last column of a range; None if this is a pattern with a ":"."""
    places = {name: i for i, name in enumerate(names)} if names else {str(i): i for i in range(width)}
    found = set()
    for at in (i for i, sign in enumerate(text) if sign == ":"):
        first, last = text[:at].strip(), text[at + 1 :].strip()
        if (first in places or not first) and (last in places or not last):
            found.add((places.get(first, 0), places.get(last, width - 1)))
    if len(found) > 1:
        raise DataError(f"{where}: got {text!r}, which is more than one range here. List the columns.")
    if not found and not ("*" in text or "?" in text):
        first, _, last = text.partition(":")
        lost = next((n for n in (first.strip(), last.strip()) if n and n not in places), text)
        raise DataError(f"{where}: got the range {text!r}, but there is no column {lost!r}. {nearest(lost, places)}")
    ends = next(iter(found), None)
    for name in (part.strip() for part in text.split(":")):
        if ends and list(names).count(name) > 1:
            column(where, names, width, name)  # refuses it
    if ends and ends[0] > ends[1]:
        raise DataError(f"{where}: got the range {text!r}, whose first column comes after its last. Swap them.")
    return ends
