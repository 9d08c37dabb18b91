"""Rows that come one by one or in minibatches (torch data sets and loaders, iterables), put together as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.data.kinds import numbers
from ppdgm.errors import DataError, shown

if TYPE_CHECKING:
    from ppdgm.language.native import Array

_TAKEN = 1000  # rows that are read at a time
_SAVE = (
    "Rows that are drawn in random order, and again after a resume, must be at hand. Save them to an array that is "
    "streamed: np.lib.format.open_memmap('x.npy', 'w+', dtype, shape); or allow more: load_data(…, memory=bytes)."
)


def is_torch_data(value: object) -> bool:
    """Whether it is a Dataset or a DataLoader of torch."""
    return _class(value, "Dataset") or _class(value, "DataLoader")


def is_minibatches(value: object) -> bool:
    """Whether it is an iterable of a known number of minibatches, and no array, list or mapping."""
    home = type(value).__module__.partition(".")[0]
    array = any(hasattr(value, n) for n in ("__array__", "__array_interface__", "nnz", "shape", "keys"))
    plain = home in ("builtins", "collections", "numpy", "array", "datasets") or isinstance(
        value, list | tuple | Mapping | str
    )
    return not array and not plain and hasattr(value, "__iter__") and hasattr(value, "__len__")


def read_rows(value: Any, where: str, memory: int) -> dict[str, np.ndarray]:
    """The arrays of a torch Dataset or DataLoader, or of an iterable of minibatches: "x", "label", or by their names.

    A pair is (x, label). The order is that of the data set: `fit` shuffles rows itself, with the run's seed.

    Args:
        value: the object.
        where: what it is, for messages.
        memory: the most bytes of all rows.

    Raises:
        DataError: rows that are random, of several forms, or too many.
    """
    if _class(value, "DataLoader"):
        return _joined(_of_loader(value, where), where, memory)
    if _class(value, "IterableDataset"):
        return _joined(_one_by_one(value, where), where, memory)
    if _class(value, "Dataset"):
        return _joined(_of_items(value, where, None), where, memory)
    return _joined(_Checked(value, where), where, memory)


def batch_size_of(value: object) -> int | None:
    """The size of a DataLoader's minibatches."""
    size = getattr(value, "batch_size", None) if _class(value, "DataLoader") else None
    return size if isinstance(size, int) else None


def _class(value: object, name: str) -> bool:
    return any(c.__name__ == name and c.__module__.startswith("torch.utils.data") for c in type(value).__mro__)


def _of_loader(loader: Any, where: str) -> Iterator[object]:
    """Minibatches of the loader's data set, in its order, as its collate_fn makes them."""
    if _class(loader.dataset, "IterableDataset"):
        yield from loader
        return
    own = [type(s).__name__ for s in (loader.sampler, loader.batch_sampler) if s is not None]
    known = ("SequentialSampler", "RandomSampler", "BatchSampler")
    odd = next((n for n in own if n not in known), None)
    if odd is None and getattr(loader.sampler, "replacement", False):
        odd = "RandomSampler with replacement"
    if odd is None and len(getattr(loader.sampler, "data_source", loader.dataset)) != len(loader.sampler):
        odd = "sampler of some of the rows"
    if odd is not None:
        raise DataError(
            f"{where}: got a loader with a {odd}, but fit draws minibatches itself, each row once in an epoch. Give "
            "its rows: loader.dataset, or torch.utils.data.Subset(loader.dataset, rows)."
        )
    if loader.batch_size is None:
        yield from _of_items(loader.dataset, where, loader.collate_fn)
        return
    yield from _of_items(loader.dataset, where, loader.collate_fn, loader.batch_size)


def _of_items(
    data: Any, where: str, collate: Callable[[Any], object] | None, size: int | None = None
) -> Iterator[object]:
    """Minibatches of a map-style data set, in its order.

    Raises:
        DataError: it has no length or no rows, or a row is another one when it is read again.
    """
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise DataError(f"{where}: got a data set without __len__ and __getitem__, expected rows 0, 1, … N − 1.")
    if not (number := len(data)):
        raise DataError(f"{where}: got no rows, expected at least one.")
    for row in {0, number // 2, number - 1}:
        first, again = (_named(data[row], where) for _ in range(2))
        same = lambda a, b: np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        if first.keys() != again.keys() or not all(same(first[n], again[n]) for n in first):
            raise DataError(
                f"{where}: got another row {row} each time that it is read, as with random crops or noise. A run must "
                "see the same rows again when it goes on. Leave out the random part, or give arrays, in which it is "
                "drawn once."
            )
    for start in range(0, number, size or _TAKEN):
        rows = [data[i] for i in range(start, min(start + (size or _TAKEN), number))]
        if size is not None and collate is not None:
            yield collate(rows)
        else:
            yield _stacked([_named(row if collate is None else collate(row), where) for row in rows], where, start)


def _one_by_one(rows: Iterable[object], where: str) -> Iterator[object]:
    """Minibatches of rows that only come in order."""
    held: list[dict[str, np.ndarray]] = []
    start = 0
    for row in rows:
        held.append(_named(row, where))
        if len(held) == _TAKEN:
            yield _stacked(held, where, start)
            held, start = [], start + _TAKEN
    if held:
        yield _stacked(held, where, start)


def _stacked(rows: list[dict[str, np.ndarray]], where: str, start: int) -> dict[str, np.ndarray]:
    first = rows[0]
    for i, row in enumerate(rows):
        same = row.keys() == first.keys() and all(row[n].shape == a.shape for n, a in first.items())
        if not same:
            forms = [{n: a.shape for n, a in r.items()} for r in (row, first)]
            raise DataError(f"{where}: got row {start + i} with {forms[0]}, expected {forms[1]}, as in others before.")
    return {n: np.stack([row[n] for row in rows]) for n in first}


def _joined(batches: Any, where: str, memory: int) -> dict[str, np.ndarray]:
    """All minibatches in one array for each field.

    Raises:
        DataError: fields differ, have different numbers of rows, or need more than `memory` bytes.
    """
    found: dict[str, list[np.ndarray]] = {}
    size, count = 0, 0
    for batch in batches:
        named = _named(batch, where)
        count += 1
        if found and named.keys() != found.keys():
            raise DataError(f"{where}: got a minibatch of {list(named)}, expected {list(found)}, as before.")
        if any(a.ndim == 0 for a in named.values()) or len({len(a) for a in named.values()}) != 1:
            shapes = {n: a.shape for n, a in named.items()}
            raise DataError(f"{where}: got a minibatch of shapes {shapes}, expected [B, …] with the same B in each.")
        for name, array in named.items():
            before = found.setdefault(name, [])
            if before and before[0].shape[1:] != array.shape[1:]:
                got, expected = array.shape[1:], before[0].shape[1:]
                raise DataError(f"{where}: got {name!r} of shape {got}, expected {expected}, as before.")
            before.append(array)
            size += array.nbytes
        if size > memory:
            raise DataError(f"{where}: got rows of more than {memory:,} bytes, the limit of memory. {_SAVE}")
    if not found:
        raise DataError(f"{where}: got no rows, expected at least one.")
    if hasattr(batches, "__len__") and len(batches) != count:
        raise DataError(f"{where}: got {count} minibatches, but its length is {len(batches)}. Make them the same.")
    return {n: np.concatenate(arrays) for n, arrays in found.items()}


class _Checked:
    """Minibatches of an iterable; a row in the place of a minibatch would be read as several rows."""

    def __init__(self, batches: Any, where: str):
        self.batches, self.where = batches, where

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[object]:
        for batch in self.batches:
            shapes = {n: a.shape for n, a in _named(batch, self.where).items() if n != "label"}
            if all(len(shape) < 2 for shape in shapes.values()):
                raise DataError(
                    f"{self.where}: got items of shapes {shapes}, expected minibatches [B, …]. If an item is one row, "
                    "put the rows together: np.stack(list(rows))."
                )
            yield batch


def _named(row: Any, where: str) -> dict[str, np.ndarray]:
    """The arrays of a row or a minibatch, by name."""
    if isinstance(row, Mapping):
        fields = dict(row)
    elif hasattr(row, "_fields"):  # a named tuple
        fields = row._asdict()
    elif isinstance(row, tuple | list) and not all(isinstance(v, int | float) for v in row):
        if len(row) > 2:
            raise DataError(
                f"{where}: got rows of {len(row)} parts, expected x, or (x, label). Name them: return a dictionary, "
                "{'x': …, 'mask': …}."
            )
        fields = dict(zip(("x", "label"), row, strict=False))
    else:
        fields = {"x": row}
    return {str(n): _array(str(n), v, where) for n, v in fields.items()}


def _array(name: str, value: Array, where: str) -> np.ndarray:
    if hasattr(value, "getbands"):
        return pixels(value, where)
    if isinstance(value, str) or (isinstance(value, list | tuple) and value and isinstance(value[0], str)):
        return np.asarray(value)
    try:
        found = numbers(name, value)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return found


def pixels(image: Any, where: str) -> np.ndarray:
    """A picture of Pillow as whole numbers: grey [H, W], in colour [3, H, W].

    Raises:
        DataError: it has other channels.
    """
    mode = image.mode
    if mode == "1":
        return np.asarray(image.convert("L"))
    if mode in ("L", "I", "F") or mode.startswith("I;16"):
        found = np.asarray(image)
        return found.astype(found.dtype.newbyteorder("="))
    if mode == "RGB":
        return np.moveaxis(np.asarray(image), -1, 0)
    raise DataError(
        f"{where}: got a picture of the kind {shown(mode)}, expected grey or RGB. Convert it: image.convert('RGB')."
    )
