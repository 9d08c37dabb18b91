"""Arrays that know how they were prepared: the scale of their numbers, the classes of their codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ppdgm.data.frames import is_frame
from ppdgm.language.native import Array, Index

MIXED = "mixed"  # the coding of rows that were joined from different ones, or from prepared rows and others
RESCALED = "rescaled"  # the coding of results of prepared rows that may be on another scale: 2x − 1
UNKNOWN = {
    MIXED: "got joined rows that were prepared in different ways, or partly not prepared",
    RESCALED: "got rows that were computed from prepared ones, and may be on another scale",
}

_JOINS = {"concatenate", "stack", "vstack", "hstack", "dstack", "column_stack", "append", "insert", "block"}
_KEEPS = {
    *("where", "repeat", "take", "tile", "roll", "flip", "flipud", "fliplr", "rot90", "delete", "compress", "copy"),
    *("split", "array_split", "vsplit", "reshape", "squeeze", "expand_dims", "transpose", "moveaxis", "swapaxes"),
    *("broadcast_to", "atleast_1d", "atleast_2d", "atleast_3d", "clip", "round", "around", "nan_to_num", "sort", "pad"),
    *(
        "take_along_axis",
        "extract",
        "resize",
        "unique",
        "hsplit",
        "dsplit",
        "unstack",
        "partition",
        "diagonal",
        "ravel",
    ),
    *("broadcast_arrays", "sliding_window_view", "select", "choose", "linspace", "astype", "matrix_transpose"),
}
_PLACES = {"mean", "average", "median", "quantile", "percentile", "min", "max", "amin", "amax"}  # on the rows' scale
_KEEPS |= _PLACES | {f"nan{name}" for name in _PLACES}


_SAME = {"clip", "rint", "positive", "conjugate", "maximum", "minimum", "fmax", "fmin"}  # on the rows' scale too
_MOVES = {"roll", "flip", "flipud", "fliplr", "rot90", "transpose", "matrix_transpose", "moveaxis", "swapaxes", "sort"}


class Prepared(np.ndarray):
    """An array with the `Transform` or the `Classes` that its numbers came from, as `load_data` returns them.

    Otherwise it is a NumPy array. Indices, copies, noise, masks, means, and joining rows of one kind keep the coding;
    comparisons and sums have none. Other arithmetic may lead to another scale (x · sd + mean, 2x − 1), and so may an
    operation that moves dimensions with different scales: then the coding is RESCALED, and you are asked about it.
    Some results of NumPy have no coding: `np.asarray(rows)`, `np.array([row, row])`, `rng.permutation(rows)`, and
    `np.load` of a saved array. `Prepared(rows, coding)` gives them one.
    """

    coding: object

    def __new__(cls, array: Array, coding: object) -> Prepared:
        """The same numbers, with a coding."""
        found = np.asarray(array).view(cls)
        found.coding = coding
        return found

    def __array_finalize__(self, parent: object) -> None:
        self.coding = getattr(parent, "coding", None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Array, **kwargs: Any) -> Array:
        out = kwargs.get("out")
        bare = {} if out is None else {"out": tuple(_bare(o) for o in out)}
        found = getattr(ufunc, method)(*map(_bare, inputs), **{**kwargs, **bare})
        coding = _shared(list(_arrays(inputs)), False)
        if coding is not None and not _same_scale(ufunc.__name__, inputs):
            coding = RESCALED
        if out is not None:
            for array in (o for o in out if isinstance(o, Prepared)):
                array.coding = coding
            return out[0] if len(out) == 1 else out
        keeps = method == "__call__" and ufunc.signature is None
        return _coded(found, coding) if keeps else found

    def __getitem__(self, index: Index) -> Array:
        found = super().__getitem__(index)
        if isinstance(index, tuple) and isinstance(found, Prepared) and found.shape[1:] == self.shape[1:]:
            found.coding = self.coding if all(map(_is_whole, index[1:])) else _moved(self.coding)
        return found

    def __array_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> Array:
        if not all(issubclass(t, np.ndarray) for t in types):
            return NotImplemented
        found = func(*_bare(args), **_bare(kwargs))
        if kwargs.get("out") is not None:
            return kwargs["out"]
        name = getattr(func, "__name__", "")
        if name not in _JOINS | _KEEPS:
            return found
        coding = _shared(list(_arrays((args, kwargs))), name in _JOINS)
        return _coded(found, _moved(coding) if name in _MOVES else coding)

    def mean(self, *args: Any, **kwargs: Any) -> Array:
        """As for any array; means of rows are on their scale."""
        return self._place("mean", *args, **kwargs)

    def min(self, *args: Any, **kwargs: Any) -> Array:
        """As for any array, on the rows' scale."""
        return self._place("min", *args, **kwargs)

    def max(self, *args: Any, **kwargs: Any) -> Array:
        """As for any array, on the rows' scale."""
        return self._place("max", *args, **kwargs)

    def _place(self, name: str, *args: Any, **kwargs: Any) -> Array:
        found = getattr(_bare(self), name)(*args, **_bare(kwargs))
        return found if kwargs.get("out") is not None else _coded(found, self.coding)

    def __reduce__(self) -> tuple[type[Prepared], tuple[np.ndarray, object]]:
        return Prepared, (np.asarray(self), self.coding)

    def __deepcopy__(self, memo: object) -> Prepared:
        return Prepared(np.array(self), self.coding)


def coding_of(array: object) -> object:
    """The coding of an array or a Stream; None of others, such as a table with a column of that name."""
    return None if is_frame(array) else getattr(array, "coding", None)


def gathered(data: Array | Mapping[str, Array]) -> dict[str, Array]:
    """Named arrays; a single array is x. Lists of prepared rows become one prepared array."""
    named = data if isinstance(data, Mapping) else {"x": data}
    return {n: _gathered(v) for n, v in named.items()}


def _gathered(value: Array) -> Array:
    if not (type(value) in (list, tuple) and any(coding_of(v) is not None for v in value)):
        return value
    try:
        return np.stack(value)
    except (ValueError, TypeError):  # of different shapes: refused when fields are read
        return value


def _bare(value: Array) -> Array:
    """Without codings, also inside lists."""
    if isinstance(value, Prepared):
        return value.view(np.ndarray)
    if isinstance(value, dict):
        return {n: _bare(v) for n, v in value.items()}
    return type(value)(map(_bare, value)) if type(value) in (list, tuple) else value


def _arrays(value: Array) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif type(value) in (list, tuple):
        for inner in value:
            yield from _arrays(inner)
    elif isinstance(value, dict):
        yield from _arrays(tuple(value.values()))


def _shared(arrays: list[np.ndarray], joined: bool) -> object:
    """The coding that arrays have in common; if rows are joined, each must have it."""
    codings = [c for c in map(coding_of, arrays) if c is not None]
    if not codings:
        return None
    alike = all(c == codings[0] for c in codings[1:])
    whole = not joined or len(codings) == len(arrays) or not getattr(codings[0], "scales", True)
    return codings[0] if alike and whole else MIXED


def _same_scale(name: str, inputs: Iterable[Array]) -> bool:
    """Whether the result of an operation on rows is on their scale: with noise of the rows' shape, or a mask."""
    if name in ("add", "subtract"):
        return all(np.ndim(i) > 1 for i in inputs) and len({np.shape(i) for i in inputs}) == 1
    others = [np.asarray(i) for i in inputs if coding_of(i) is None]
    return name in _SAME or (name == "multiply" and bool(others) and all(((o == 0) | (o == 1)).all() for o in others))


def _moved(coding: object) -> object:
    """The coding of rows whose dimensions were moved: unknown if each dimension has its own scale."""
    return coding if getattr(coding, "mean", None) is None else RESCALED


def _is_whole(index: object) -> bool:
    return index is Ellipsis or index is None or (isinstance(index, slice) and index == slice(None))


def _coded(found: Array, coding: object) -> Array:
    if isinstance(found, list | tuple):
        return type(found)(_coded(f, coding) for f in found)
    numbers = isinstance(found, np.ndarray) and found.ndim > 0 and found.dtype.kind in "fiu"
    return Prepared(found, coding) if numbers else found
