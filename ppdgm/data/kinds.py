"""Data as an array of real numbers; for everything else, an error that says what it is and what to do with it."""

from __future__ import annotations

import numbers as abstract
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import numpy as np

from ppdgm.data.frames import arrays_of, columns_of, in_order, is_frame, names_of
from ppdgm.errors import DataError, listed, shown
from ppdgm.language.native import Array

_FLOATS = ("bfloat16", "float8_", "float6_", "float4_")  # types that NumPy lacks: JAX has them from ml_dtypes
_INTEGERS = ("int4", "uint4", "int2", "uint2", "int1", "uint1")
_PAD = "Pad them to one length, and give their lengths or a mask as another field."


def numbers(name: str, value: object, columns: Sequence[str] = ()) -> np.ndarray:
    """Real numbers as an array, of any shape. A table's columns are the last axis, and its missing values are NaN.

    Args:
        name: of the field, for messages.
        value: an array, or something that NumPy makes an array of: lists, tensors on a CPU, tables of numbers.
        columns: names; a table's columns are put in their order.

    Raises:
        DataError: text, dates, complex numbers, sparse matrices, files and others; with what they are, and what to do.
    """
    if told := _no_array(value):
        raise refusal(name, *told)
    if is_frame(value):
        return _of_frame(name, value, columns)
    try:
        array = np.asarray(_of_torch(value))
    except Exception as error:  # ragged lists, and errors of other libraries' arrays
        raise refusal(name, *_unreadable(value, error)) from None
    found: np.ndarray = as_numbers(name, array)
    return found


def as_numbers(name: str, array: Array) -> Array:
    """An array (or a Stream) whose type is one of real numbers, or whose objects are real numbers.

    Raises:
        DataError: it isn't.
    """
    kind = array.dtype.kind
    if kind == "O":
        return _of_objects(name, np.asarray(array))
    if array.dtype.name.startswith(_FLOATS):
        return array.astype(np.float32)  # which holds each of their numbers
    if array.dtype.name in _INTEGERS:
        return array.astype(np.int32)
    if kind not in "fbiu":
        raise refusal(name, *_other_type(name, array.dtype))
    return array


def refusal(name: str, got: str, do: str) -> DataError:
    """The error that says what a field contains, and what to do."""
    return DataError(f"Data {name!r}: got {got}, expected real numbers. {do}")


def _no_array(value: object) -> tuple[str, str] | None:
    """For values that are no array at all: what they are, and what to do; None for others."""
    homes = {c.__module__.partition(".")[0] + "." + c.__name__ for c in type(value).__mro__}
    if value is None:
        return "nothing (None)", "Give an array of rows, or a dictionary of named arrays."
    if isinstance(value, str | bytes | PurePath):
        return f"the text {shown(str(value))}", "If it is a file, read it with ppdgm.load_data(path)."
    if hasattr(value, "nnz") and hasattr(value, "toarray"):
        return f"a sparse matrix ({type(value).__name__})", "Give a dense one, x.toarray()."
    if homes & {"torch.Dataset", "torch.DataLoader"}:
        return f"a {type(value).__name__}", "Give its arrays: np.stack([np.asarray(x) for x, *_ in dataset])."
    if isinstance(value, Iterator):
        return f"a {type(value).__name__}, which gives its rows only once", "Give them together: np.stack(list(rows))."
    if isinstance(value, Mapping):
        return "a dictionary within a field", "Give each field one array: {'x': x, 'label': y}."
    if isinstance(value, set | frozenset):
        return "a set, which has no order", "Give a list or an array."
    return None


def _unreadable(value: object, error: Exception) -> tuple[str, str]:
    if isinstance(value, list | tuple) and isinstance(error, ValueError):
        shapes = [tuple(v.shape) for v in value if hasattr(v, "shape")]
        if len(shapes) == len(value) and len({s[:1] for s in shapes}) == 1:
            return f"arrays of shapes {listed(map(str, shapes))} in one field", "Name them: {'x': x, 'label': y}."
        return "rows of different lengths", _PAD
    told = str(error).partition("\n")[0].rstrip(".")
    return f"{shown(value)}, which NumPy can't read ({told})", "Give a NumPy array."


def _of_torch(value: Any) -> Any:
    """A tensor without its gradient, on the CPU, in a type that NumPy has; everything else unchanged."""
    if not (type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")):
        return value
    tensor = value.detach().cpu()
    known = not str(tensor.dtype).removeprefix("torch.").startswith(_FLOATS)
    return tensor if known else tensor.float()


def _other_type(name: str, dtype: np.dtype) -> tuple[str, str]:
    """For a type that isn't one of real numbers: what it is, and what to do."""
    kind = dtype.kind
    if kind in "UST":
        if name.startswith("label"):
            return "text", (
                "Number the classes from 0: names, label = np.unique(words, return_inverse=True). "
                "−1 is a missing label."
            )
        return (
            "text",
            "If it is numbers written as text, give x.astype('float64'). Leave out other columns.",
        )
    if kind == "c":
        return f"{dtype}", "Give the real and imaginary parts: np.stack([x.real, x.imag], -1)."
    if kind in "Mm":
        return f"{dtype}", "Give times as numbers: (t - t.min()).astype('m8[s]').astype(float) is in seconds."
    if dtype.names is not None:
        columns = listed(dtype.names)
        return (
            f"records with the columns {columns}",
            "Give one array: np.lib.recfunctions.structured_to_unstructured(x).",
        )
    return f"{dtype}", "Give an array of real numbers."


def _of_frame(name: str, frame: Any, wanted: Sequence[str]) -> np.ndarray:
    """The columns of a table, side by side; the wanted ones in their order, if the table has names."""
    columns, values = columns_of(frame), arrays_of(frame)
    if wanted:
        values, columns = in_order(name, names_of(frame), values, wanted), tuple(wanted)
    found, wrong = [], {}
    for i, column in enumerate(values):
        try:
            found.append(as_numbers(name, column))
        except DataError:
            told = columns[i] if columns else str(i)
            kind = column.dtype.kind
            wrong[told] = _first_other(column) if kind == "O" else "text" if kind in "UST" else str(column.dtype)
    if wrong:
        first, what = next(iter(wrong.items()))
        more = f"; also {listed(map(repr, list(wrong)[1:]))}" if len(wrong) > 1 else ""
        raise refusal(name, f"a table whose column {first!r} has {what}{more}", f"Leave out such columns{_how(frame)}")
    return np.stack(found, -1) if found else np.empty((len(frame), 0))


def _how(frame: object) -> str:
    """How columns of other values are left out, or made numbers."""
    if hasattr(frame, "iloc"):
        return (
            " with frame.select_dtypes('number'), or make them numbers: frame[column].astype('category').cat.codes "
            "numbers classes from 0, with −1 for missing ones."
        )
    return ", or make them numbers: np.unique(column, return_inverse=True)[1] numbers classes from 0."


def _of_objects(name: str, array: np.ndarray) -> np.ndarray:
    """An array of Python's own numbers; None and pandas' NA become NaN."""
    flat = array.ravel().tolist()
    kinds = {*map(type, flat)}
    if not all(_is_real(k) or _is_missing(k) for k in kinds):
        told = _first_other(array)
        do = "Leave these out, or make them numbers."
        raise refusal(name, f"Python objects: {told}", _other_type(name, np.dtype("U"))[1] if "text" in told else do)
    missing = [k for k in kinds if _is_missing(k)]
    if missing:
        flat = [np.nan if type(v) in missing else v for v in flat]
    whole = not missing and all(issubclass(k, abstract.Integral | np.bool_) for k in kinds)
    try:
        return np.array(flat, np.int64 if whole else np.float64).reshape(array.shape)
    except OverflowError:
        raise refusal(name, "whole numbers beyond 64 bits", "Give smaller ones, or floating numbers.") from None


def _first_other(array: np.ndarray) -> str:
    """The first object that is not a number, with its index."""
    for index, value in np.ndenumerate(array):
        if not (_is_real(type(value)) or _is_missing(type(value))):
            kind = "text" if isinstance(value, str) else type(value).__name__
            return f"{kind}, such as {shown(value)} at index {index}"
    return "no numbers"


def _is_real(kind: type) -> bool:
    return issubclass(kind, abstract.Real | np.bool_ | Decimal)


def _is_missing(kind: type) -> bool:
    return kind is type(None) or kind.__name__ in ("NAType", "NaTType")
