"""NumPy's files: .npy, .npz, and folders of .npy. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ppdgm.data.checks import check_fits
from ppdgm.data.raw import by_split
from ppdgm.data.transform import floating
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile

_PLAIN = "Save it as numbers: np.save(path, np.asarray(rows, dtype=np.float32))."


def read_npy(path: Path, memory: int) -> np.ndarray:
    """The array of an .npy file; memory-mapped if it would need more than `memory` bytes.

    Raises:
        DataError: the file is not an .npy file, is damaged, or contains Python objects.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(file)
            if dtype.hasobject:
                raise DataError(f"{path}: got Python objects, expected numbers. {_PLAIN}")
            _check_size(path.stat().st_size - file.tell(), shape, dtype, str(path))
        if dtype.kind not in "fbiu" or int(np.prod(shape, dtype=object)) * floating(dtype).itemsize <= memory:
            return np.load(path, allow_pickle=False)
        if fortran and len(shape) > 1:
            raise DataError(
                f"{path}: got an array in Fortran order that is too large to load. Save it in C order, to stream it."
            )
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # any error that NumPy raises for a damaged file
        raise DataError(f"{path} is not a complete .npy file: {_line(error)}. Save or copy it again.") from None


def read_npz(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of an .npz file, by split.

    Raises:
        DataError: the file is not an .npz file, is damaged, contains Python objects, or is larger than the memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            check_fits(size, str(path), "Save its arrays as .npy files in a folder: these are streamed.")
            for member in members:
                _check_member(archive, member, path)
            if {"format", "shape", "data"} <= {Path(member.filename).stem for member in members}:
                return {"train": {"x": _sparse(path)}}
        with np.load(path, allow_pickle=False) as arrays:
            named = {name: _member(arrays, name, path) for name in arrays.files}
    except DataError:
        raise
    except Exception as error:  # any error that zipfile and NumPy raise for a damaged file
        raise DataError(f"{path} is not a complete .npz file: {_line(error)}. Save or copy it again.") from None
    return by_split(named, str(path))


def read_npy_folder(path: Path, memory: int) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a folder of .npy files, named after the files, by split."""
    files = sorted(p for p in path.iterdir() if p.suffix == ".npy" and not p.name.startswith("."))
    return by_split({p.stem: read_npy(p, memory) for p in files}, str(path))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _check_size(got: int, shape: tuple[int, ...], dtype: np.dtype, where: str) -> None:
    """Refuse data whose size is not the one in their header; data after them would be left out without a warning."""
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if got != size:
        raise DataError(
            f"{where} is not a complete .npy file: got {got} bytes of data, expected {size}, from its header. "
            "Save or copy it again."
        )


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    with archive.open(member) as file:
        if not member.filename.endswith(".npy") or file.read(6) != b"\x93NUMPY":
            return  # not an array: refused elsewhere as what it is
        file.seek(0)
        shape, _, dtype = _header(file)
        if not dtype.hasobject:
            _check_size(member.file_size - file.tell(), shape, dtype, f"{path}, {member.filename}")


def _sparse(path: Path) -> Any:
    """The matrix that `scipy.sparse.save_npz` wrote; its indices are checked, because SciPy does not."""
    import scipy.sparse

    matrix = scipy.sparse.load_npz(path)
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    return scipy.sparse.csr_array(matrix)


def _member(arrays: NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(arrays[name])
    except ValueError as error:
        if "pickle" in str(error):
            raise DataError(f"{path}: got Python objects as {name!r}, expected numbers. {_PLAIN}") from None
        raise


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
