"""Annotated matrices, as of single cells: .h5ad files, read with h5py, and AnnData objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.data.checks import check_fits
from ppdgm.data.choice import warn_left_out
from ppdgm.data.columns import select_columns
from ppdgm.data.exposure import EXPOSURE, totals
from ppdgm.data.frame_table import FrameTable
from ppdgm.data.raw import Raw
from ppdgm.data.source import Columns, Source
from ppdgm.data.stream import is_sparse
from ppdgm.errors import DataError, PackageMissing, nearest

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.data.frames import Frame
    from ppdgm.language.native import Array

_LAYER = "To use a layer: layer='counts' (--set data.layer=counts)."


def is_h5ad(path: Path) -> bool:
    """Whether a file is annotated data, by its name."""
    return path.suffix.lower() == ".h5ad"


def is_annotated(value: object) -> bool:
    """Whether it is an AnnData object."""
    return any(c.__name__ == "AnnData" and c.__module__.startswith("anndata") for c in type(value).__mro__)


def read_h5ad(path: Path, source: Source, known: Codings) -> Raw:
    """The fields of an .h5ad file: x is X or a layer; the others are columns of obs.

    Raises:
        PackageMissing: h5py is not installed.
        DataError: the file is damaged, or does not have what is asked for.
    """
    try:
        import h5py
    except ImportError:
        raise PackageMissing(f"{path}: .h5ad needs h5py: pip install h5py.") from None
    from ppdgm.data.h5 import Obs, names_of_rows, read_matrix

    try:
        with h5py.File(path, "r") as file:
            if "obs" not in file or "var" not in file:
                raise DataError(f"{path}: got an HDF5 file without 'obs' and 'var', expected annotated data.")
            layers = sorted(file["layers"]) if "layers" in file else []
            node = file.get("X")
            node = _layer(str(path), source.layer, layers, node, lambda name: file["layers"][name])
            check_fits(_size(node), str(path), "Save the genes that you need to another file.")
            matrix = read_matrix(node, str(path))
            obs = Obs(file["obs"], f"{path}, obs")
            genes, rows = names_of_rows(file["var"], f"{path}, var"), names_of_rows(file["obs"], f"{path}, obs")
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        told = " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(f"{path} is not a complete .h5ad file ({told}). Write it again with anndata.") from None
    return _raw(str(path), matrix, genes, obs, rows, layers, source, known)


def read_annotated(data: Any, source: Source, known: Codings) -> Raw:
    """The fields of an AnnData object, by the rules of `read_h5ad`.

    Raises:
        DataError: its matrix is in a file, or it does not have what is asked for.
    """
    if data.isbacked:
        raise DataError(f"{source.name}: got data that are backed by a file. Give its path, or data.to_memory().")
    layers = sorted(data.layers)
    matrix = _layer(source.name, source.layer, layers, data.X, data.layers.__getitem__)
    rows = np.array(data.obs_names.astype(str).tolist())
    matrix = matrix.tocsr() if is_sparse(matrix) else np.asarray(matrix)
    return _raw(source.name, matrix, list(map(str, data.var_names)), data.obs, rows, layers, source, known)


def _layer(where: str, layer: str | None, layers: Sequence[str], x: Any, read: Any) -> Any:
    if layer is not None and layer not in layers:
        raise DataError(f"{where}: layer: got {layer!r}. {nearest(layer, layers)}")
    if layer is None and (x is None or getattr(x, "attrs", {}).get("encoding-type") == "null"):
        raise DataError(f"{where} has no X. Choose a layer: layer='…'. {nearest('', layers)}")
    return x if layer is None else read(layer)


def _size(node: Any) -> int:
    found = node.values() if hasattr(node, "values") else [node]
    return sum(int(n.size) * n.dtype.itemsize for n in found)


def _raw(
    where: str,
    matrix: Array,
    genes: list[str],
    obs: Frame,
    rows: np.ndarray,
    layers: Sequence[str],
    source: Source,
    known: Codings,
) -> Raw:
    """The fields: x from the matrix's columns, by the names of var; the others from obs."""
    if source.index is True:
        raise DataError(f"{where}: index: got True, but obs_names are the names of rows. Leave it out.")
    columns = [str(n) for n in obs.columns]
    asked = dict(source.fields) if source.fields is not None else {"x": "x"}
    wanted = asked.pop("x", None)
    bare = asked.get(EXPOSURE) == EXPOSURE and EXPOSURE not in columns
    others = {n: c for n, c in asked.items() if not (n == EXPOSURE and bare)}
    beside = source.model_copy(update={"fields": tuple(others.items())})  # it may have no fields: only labels
    raw = FrameTable(f"{where}, obs", obs, beside, known, first=0).read()
    fields: dict[str, Any] = {}
    names: tuple[str, ...] = ()
    if wanted is not None:
        places = _genes(where, genes, wanted, known)
        fields["x"] = matrix if places == list(range(len(genes))) else matrix[:, places]
        names = tuple(genes[i] for i in places)
    elif bare:
        raise DataError(f"{where}: got the field 'exposure' without x and without a column of that name in obs.")
    if bare:
        others_layers = [name for name in layers if name != source.layer]
        remedy = f"{_LAYER} There is {', '.join(map(repr, others_layers))}" if others_layers else ""
        raw.parts["train"][EXPOSURE] = totals(where, fields["x"], remedy)
    fields |= {n: raw.parts["train"][n] for n in asked}
    named = names if len(set(names)) == len(names) else ()
    its = source.index is None  # obs_names; otherwise a column of obs, or none
    index, name = ({"train": rows}, "") if its else (raw.index if source.index else {}, raw.index_name)
    return Raw({"train": fields}, raw.labels, raw.classes, named, index=index, index_name=name)


def _genes(where: str, genes: list[str], wanted: Columns, known: Codings) -> list[int]:
    """The columns of x: as in data prepared before, by name; or those that are asked for; or all."""
    before, there = getattr(known.get("x"), "columns", ()), set(genes)
    if before and there.issuperset(before):
        wanted_before = set(before)
        warn_left_out(where, [name for name in genes if name not in wanted_before])
        return select_columns(where, genes, len(genes), before)
    if before:
        lost = next(name for name in before if name not in there)
        raise DataError(f"{where} has no {lost!r} in var_names, which the data prepared before had.")
    if wanted in ("x", "X") and wanted not in genes:
        return list(range(len(genes)))
    return select_columns(f"{where}, var", genes, len(genes), wanted)
