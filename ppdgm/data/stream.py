"""Arrays larger than memory: rows are read, prepared and returned when they are asked for."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.data.prepared import Prepared
from ppdgm.data.transform import Transform, floating
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from ppdgm.language.native import Array, Index

CHUNK_BYTES = 2**25  # the most bytes that a pass over the data holds at a time
_ARGUMENTS = ("rows", "transform", "binarise", "seed", "dtype", "coding")  # of a Stream, except its array


def is_sparse(value: object) -> bool:
    """Whether it is one of SciPy's sparse matrices or arrays."""
    return hasattr(value, "nnz") and hasattr(value, "tocsr")


class Stream:
    """Rows of an array, prepared when they are read; it looks like an array, but is not held in memory.

    Args:
        array: [M, *event_shape], memory-mapped or in memory; or a sparse matrix [M, D], whose rows become dense.
        rows: which rows of `array`, in which order; all of them by default.
        transform: of the raw numbers.
        binarise: "none", "threshold" or "static", after the transform. A static draw depends only on `seed` and the
            row's number in `array`.
        seed: of static draws.
        dtype: of what is returned; by default floating.
        coding: how the numbers that are read were prepared, if not by `transform`.
    """

    def __init__(
        self,
        array: np.ndarray,
        rows: np.ndarray | None = None,
        transform: Transform | None = None,
        binarise: str = "none",
        seed: tuple[int, ...] = (0,),
        dtype: DTypeLike | None = None,
        coding: Transform | None = None,
    ):
        self.array = array
        self.coding = transform if coding is None else coding  # rows that are read from it carry this coding
        self.rows, self.transform, self.binarise, self.seed = rows, transform, binarise, seed
        self.dtype = np.dtype(dtype) if dtype is not None else floating(array.dtype)
        self.shape: tuple[int, ...] = (array.shape[0] if rows is None else len(rows), *array.shape[1:])
        self._source = _rows_of(array)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def _known(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.coding is None else Prepared(rows, self.coding)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Stream({self.shape}, {self.dtype})"

    def __iter__(self) -> Iterator[np.ndarray]:
        step = self._step(None)
        return (row for i in range(0, len(self), step) for row in self[i : i + step])

    def __reduce__(self) -> tuple[Callable[..., Stream], tuple[object, ...]]:
        """A copy opens the file again: a handle belongs to one process, and is closed with its owner."""
        changes = {n: getattr(self, n) for n in _ARGUMENTS}
        array = self.array if is_sparse(self.array) else _place(self.array) or np.asarray(self.array)
        return _revived, (array, changes)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.load()).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index: Index) -> np.ndarray:
        """The rows at an index, a slice, or an array of indices or of booleans."""
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            if self.rows is None and chosen.step == 1:
                return self._known(self._read(slice(chosen.start, max(chosen.stop, chosen.start))))
            return self._known(self._gather(np.arange(chosen.start, chosen.stop, chosen.step)))
        if isinstance(index, tuple):
            raise IndexError(f"got {len(index)} indices, expected one: read rows first, stream[rows][..., column]")
        wanted = np.asarray(index)
        if wanted.dtype == bool:
            wanted = np.arange(len(self))[wanted]
        if wanted.size == 0:
            wanted = wanted.astype(np.int64)
        if wanted.dtype.kind not in "iu":
            raise IndexError(f"got an index {index!r}, expected whole numbers or a slice")
        if wanted.size and not (-len(self) <= wanted.min() and wanted.max() < len(self)):
            raise IndexError(f"got an index up to {wanted.max()}, expected less than {len(self)}")
        found = self._gather(np.where(wanted < 0, wanted + len(self), wanted).reshape(-1))
        return self._known(found.reshape((*wanted.shape, *self.shape[1:])))

    def subset(self, index: Index) -> Stream:
        """The stream of some of the rows; nothing is read."""
        return self.like(rows=(np.arange(len(self)) if self.rows is None else self.rows)[index])

    def astype(self, dtype: DTypeLike | None) -> Stream:
        """The stream of the same numbers in another type."""
        return self.like(dtype=dtype)

    def load(self) -> np.ndarray:
        """All of it, as an array in memory."""
        found = np.empty(self.shape, self.dtype)
        for index in self.chunks():
            found[index] = self[index]
        return self._known(found)

    def chunks(self, rows: int | None = None) -> Iterator[np.ndarray]:
        """Indices that cover all rows once, nearly in the order of the file; each piece has limited size."""
        step = self._step(rows)
        order = np.arange(len(self)) if self.rows is None else np.argsort(self.rows, kind="stable")
        return (np.sort(order[i : i + step]) for i in range(0, len(self), step))

    def _step(self, rows: int | None) -> int:
        """The number of rows that may be held at once, as float64."""
        return min(rows or len(self), max(1, CHUNK_BYTES // (8 * max(int(np.prod(self.shape[1:])), 1))))

    def like(self, **changes: Any) -> Stream:
        """The stream of the same file with other arguments; nothing is read."""
        now = {n: getattr(self, n) for n in _ARGUMENTS}
        return Stream(self.array, **{**now, **changes})

    def _gather(self, index: np.ndarray) -> np.ndarray:
        """Each row is read once, in the order of the file."""
        rows = index if self.rows is None else self.rows[index]
        unique, back = np.unique(rows, return_inverse=True)
        if len(unique) and len(unique) == unique[-1] - unique[0] + 1:
            return self._read(slice(int(unique[0]), int(unique[-1]) + 1))[back]
        return self._read(unique)[back]

    def _read(self, rows: slice | np.ndarray) -> np.ndarray:
        raw = self._source[rows]
        x = np.array(raw, self.dtype) if self.transform is None else self.transform.scaled(raw)
        if self.binarise == "threshold":
            x = x >= 0.5
        elif self.binarise == "static":
            x = uniform_rows(self.seed, _numbers(rows), self.shape[1:]) < x
        return x.astype(self.dtype, order="C", copy=False)


def uniform_rows(seed: tuple[int, ...], rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The `rows`, ascending, of `np.random.default_rng(seed).random((M, *shape))`; the others are not drawn."""
    width = int(np.prod(shape))
    found = np.empty((len(rows), width))
    bits = np.random.PCG64(seed)
    generator, at = np.random.Generator(bits), 0
    for start, stop in _runs(rows):
        bits.advance((int(rows[start]) - at) * width)  # one number each: the generator jumps to the row
        generator.random(out=found[start:stop])
        at = int(rows[start]) + stop - start
    return found.reshape(len(rows), *shape)


def _rows_of(array: Array) -> np.ndarray | _File | _Dense:
    """What an array's rows are read from: its file, if the array is the whole of it, and the file is still there."""
    if is_sparse(array):
        return _Dense(array)
    if _place(array) and hasattr(os, "preadv"):
        file = _File(array)
        if file[slice(0, 1)].tobytes() == array[:1].tobytes():  # the file was not replaced since
            return file
    return array.view(np.ndarray)


def _place(array: Array) -> tuple[Any, ...]:
    """What is needed to open an array's file again, if the array is the whole of it and the file is there; else ()."""
    mapped = isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.mode == "r"
    if mapped and array.flags.c_contiguous and os.path.isfile(str(array.filename)):
        return os.path.abspath(str(array.filename)), array.dtype, "r", array.offset, array.shape
    return ()


def _revived(place: tuple[Any, ...] | np.ndarray, changes: dict[str, Any]) -> Stream:
    return Stream(np.memmap(*place) if isinstance(place, tuple) else place, **changes)


class _Dense:
    """The rows of a sparse matrix, as dense ones."""

    def __init__(self, matrix: Array):
        self.matrix = matrix.tocsr()

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        found: np.ndarray = self.matrix[rows].toarray()
        return found


class _File:
    """The rows of a memory-mapped array, read from its file at their places.

    Pages of a map that were read count as this process's memory, and the process crashes if the file becomes shorter.
    """

    def __init__(self, array: Array):
        self.name, self.offset, self.shape, self.dtype = array.filename, array.offset, array.shape, array.dtype
        self.width = array[:1].nbytes
        self.handle = os.open(str(self.name), os.O_RDONLY)
        weakref.finalize(self, os.close, self.handle)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        rows = _numbers(rows)
        found = np.empty((len(rows), self.width), np.uint8)
        view = found.reshape(-1).data
        for start, stop in _runs(rows):
            first, end = start * self.width, stop * self.width
            place = self.offset + int(rows[start]) * self.width
            while first < end:
                got = os.preadv(self.handle, [view[first:end]], place)
                if got == 0:
                    raise DataError(f"{self.name} became shorter while it was read. Load the data again.")
                first, place = first + got, place + got
        return found.view(self.dtype).reshape(len(rows), *self.shape[1:])


def _numbers(rows: slice | np.ndarray) -> np.ndarray:
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Runs of consecutive rows, ascending: the first place, and the place after the last, of each run."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    return list(zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True)) if len(rows) else []
