"""Tables of mixed columns: their numbers, and the kinds of columns that the likelihood `Table` leaves to the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data import Dataset, Prepared, Stream, Transform
from ppdgm.data.column import Column
from ppdgm.data.frames import is_frame
from ppdgm.data.mixed import decode_table, learn_columns
from ppdgm.data.prepared import coding_of
from ppdgm.models.likelihoods import Table
from ppdgm.program import AnyProgram, Program

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data
    from ppdgm.data.dataset import Split


def table_of(program: AnyProgram) -> Table | None:
    """The program's likelihood, if it is a `Table`."""
    found = getattr(program, "likelihood", None)
    return found if isinstance(program, Program) and isinstance(found, Table) else None


def with_columns(program: AnyProgram, data: Data | Dataset) -> tuple[AnyProgram, Data | Dataset]:
    """The program with the kinds of all columns, and the data as numbers that remember what they mean.

    Kinds that the program says are kept; the others are those of the data's columns, by the rules of `learn_columns`.

    Raises:
        DataError: a column fits no kind; or the program names a column that the data do not have.
    """
    likelihood = table_of(program)
    if likelihood is None:
        return program, data
    if isinstance(data, Dataset):
        return _with_dataset(program, likelihood, data)
    fields = dict(data) if isinstance(data, Mapping) else {"x": data}
    x = fields.get("x")
    coding = coding_of(x)
    if x is None or isinstance(x, Stream | np.memmap):
        return program, data
    if isinstance(coding, Transform) and coding.table:
        return _with_kinds(program, likelihood, coding.table), data
    try:
        plain = not is_frame(x) and np.asarray(x).dtype.kind in "fiub"
    except (ValueError, TypeError, RuntimeError):  # no array: refused when fields are read
        return program, data
    if plain and (np.ndim(x) != 2 or len(likelihood.columns) == np.shape(x)[1]):
        return program, data
    table = learn_columns(x, likelihood.columns, coding.columns if isinstance(coding, Transform) else ())
    transform = transform_of(table, type(x).__module__.partition(".")[0] if is_frame(x) else "")
    given = transform.apply(x)
    return _with_kinds(program, likelihood, table), {**fields, "x": given} if isinstance(data, Mapping) else given


def transform_of(table: Sequence[Column], library: str) -> Transform:
    """How rows of these columns become numbers."""
    return Transform("table", columns=tuple(c.name for c in table), table=tuple(table), library=library)


def _with_kinds(program: AnyProgram, likelihood: Table, table: Sequence[Column]) -> AnyProgram:
    columns = tuple(map(str, table))
    return program if likelihood.columns == columns else program.replace(likelihood=likelihood.replace(columns=columns))  # type: ignore[union-attr]  # `table_of` has looked


def _with_dataset(program: AnyProgram, likelihood: Table, data: Dataset) -> tuple[AnyProgram, Dataset]:
    table, told = data.transform.table, likelihood.columns
    if not told and table:
        return _with_kinds(program, likelihood, table), data
    splits = {n: getattr(data, n) for n in ("train", "validation", "test")}
    xs = {n: s["x"] if isinstance(s, Mapping) else s for n, s in splits.items() if s is not None}
    if any(isinstance(x, Stream) for x in xs.values()) or next(iter(xs.values())).ndim != 2:
        return program, data
    if tuple(map(str, table)) == told or (not table and len(told) == data.event_shape[0]):
        return program, data
    own = {n: decode_table(table, np.asarray(x)) for n, x in xs.items()}
    table = learn_columns(np.concatenate([*own.values()]), told, data.transform.columns)
    transform = replace(data.transform, kind="table", table=table, columns=tuple(c.name for c in table))
    again = {n: _put(splits[n], transform.apply(x)) for n, x in own.items()}
    train, validation, test = (again.get(n) for n in splits)
    coded = replace(data, transform=transform, train=train, validation=validation, test=test)
    return _with_kinds(program, likelihood, table), coded


def _put(split: Split, x: Prepared) -> Split:
    return {**split, "x": x} if isinstance(split, Mapping) else x
