"""What anndata writes into HDF5 files: matrices, columns and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.errors import DataError

if TYPE_CHECKING:
    from ppdgm.language.native import Array

_MASKED = ("nullable-integer", "nullable-boolean", "nullable-string-array")


def read_matrix(node: Any, where: str) -> Array:
    """A dense array, or a sparse matrix by rows; its indices are checked.

    Raises:
        DataError: another kind of matrix.
    """
    if not hasattr(node, "keys"):
        if node.ndim != 2:
            raise DataError(f"{where}: got X of shape {tuple(node.shape)}, expected rows and columns.")
        return node[:]
    import scipy.sparse

    kind = _kind(node)
    made = {"csr_matrix": scipy.sparse.csr_array, "csc_matrix": scipy.sparse.csc_array}.get(kind)
    if made is None:
        raise DataError(f"{where}: got a matrix of the kind {kind!r}, expected dense, csr_matrix or csc_matrix.")
    shape = tuple(int(n) for n in node.attrs["shape"])
    matrix = made((node["data"][:], node["indices"][:], node["indptr"][:]), shape=shape)
    matrix.check_format(full_check=True)
    return matrix.tocsr()


def names_of_rows(group: Any, where: str) -> Any:
    """The names of a table's rows: of obs an array, of var a list."""
    _check_table(group, where)
    names = [str(v) for v in _values(group[group.attrs["_index"]], where)]
    return names if where.endswith("var") else np.array(names)


class Obs:
    """The columns of obs, which `FrameTable` reads like a table of Arrow."""

    def __init__(self, group: Any, where: str):
        _check_table(group, where)
        order = [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs.get("column-order", [])]
        self.column_names = self.columns = order
        self._values = [_values(group[n], f"{where}, column {n}") for n in order]
        self.shape = (len(group[group.attrs["_index"]]), len(order))

    def column(self, place: int) -> ObsColumn:
        """One column."""
        return ObsColumn(self._values[place])


class ObsColumn:
    """Values of one column; a missing one is None."""

    def __init__(self, values: list[object]):
        self.values = values

    def to_pylist(self) -> list[object]:
        """As Python's values."""
        return self.values

    def to_numpy(self) -> np.ndarray:
        """As an array; of objects, if they are text or some are missing."""
        plain = all(isinstance(v, int | float) for v in self.values)
        return np.array(self.values) if plain else np.array(self.values, object)


def _check_table(group: Any, where: str) -> None:
    if not hasattr(group, "keys") or "_index" not in group.attrs:
        raise DataError(f"{where}: got a table of an old version of anndata. Read the file, and write it again.")


def _kind(node: Any) -> str:
    found = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
    return found.decode() if isinstance(found, bytes) else str(found)


def _values(node: Any, where: str) -> list[object]:
    """The values of a column, with None for missing ones."""
    if not hasattr(node, "keys"):
        if "categories" in node.attrs:  # as anndata 0.7 wrote them
            return _of_codes(node[:], _values(node.file[node.attrs["categories"]], where))
        import h5py

        found: list[object] = (node.asstr()[:] if h5py.check_string_dtype(node.dtype) else node[:]).tolist()
        return found
    kind = _kind(node)
    if kind == "categorical":
        return _of_codes(node["codes"][:], _values(node["categories"], where))
    if kind in _MASKED:
        values = _values(node["values"], where)
        return [None if gap else v for v, gap in zip(values, node["mask"][:].tolist(), strict=True)]
    raise DataError(f"{where}: got values of the kind {kind!r}, which can't be read. Leave out the column.")


def _of_codes(codes: np.ndarray, categories: list[object]) -> list[object]:
    if codes.size and codes.max() >= len(categories):
        raise ValueError("a code without a category")
    return [None if c < 0 else categories[c] for c in codes.tolist()]
