"""idx files, as MNIST's: a header with type and shape, then big-endian numbers; also gzipped."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.checks import check_fits
from ppdgm.data.transform import floating
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from io import BufferedIOBase

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path, memory: int, sha256: str | None = None) -> np.ndarray:
    """The array of an idx file; memory-mapped if it isn't gzipped and would need more than `memory` bytes.

    Args:
        path: of the file.
        memory: in bytes.
        sha256: the checksum that the unpacked file must have.

    Raises:
        DataError: the file is not an idx file, is incomplete or damaged, or has another checksum.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            head, dtype, shape = _header(file, path)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            whole = path.stat().st_size - len(head) if not packed else None
            if whole is not None and whole != size:
                raise DataError(
                    f"{path}: got {whole} bytes of data, expected {size}, from its header. {_again(sha256)}"
                )
            if whole is not None and size // dtype.itemsize * floating(dtype).itemsize > memory:
                _check(_hash(path), sha256, path)
                return np.memmap(path, dtype, "r", len(head), shape)
            check_fits(size, str(path), "Unpack it: unpacked idx files are streamed.")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}. {_again(sha256)}") from None
    if len(content) != size:
        got = len(content) if len(content) < size else f"more than {size}"
        raise DataError(f"{path}: got {got} bytes of data, expected {size}, from its header. {_again(sha256)}")
    digest = hashlib.sha256(head)
    digest.update(content)
    _check(digest.hexdigest(), sha256, path)
    return np.frombuffer(content, dtype).reshape(shape)


def is_idx(head: bytes) -> bool:
    """Whether a file that starts with these bytes is an idx file."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _TYPES and 1 <= head[3] <= 8


def _header(file: BufferedIOBase, path: Path) -> tuple[bytes, np.dtype, tuple[int, ...]]:
    head = file.read(4)
    if not is_idx(head):
        raise DataError(
            f"{path} is not an idx file: it starts with {head.hex(' ') or 'nothing'}, expected 00 00, type, axes."
        )
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path} is incomplete: its header must have {head[3]} axes. Get the file again.")
    return head + sizes, np.dtype(_TYPES[head[2]]), tuple(int(n) for n in np.frombuffer(sizes, ">u4"))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(got: str, expected: str | None, path: Path) -> None:
    if expected is not None and got != expected:
        raise DataError(f"{path}: the unpacked content has sha256 {got}, expected {expected}. {_again(expected)}")


def _again(sha256: str | None) -> str:
    return (
        "Get the file again." if sha256 is None else "Delete the file, so that it is downloaded again, or replace it."
    )
