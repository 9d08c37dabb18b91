"""Checkpoint files: arrays and a page of JSON in one safetensors file that contains its own checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ppdgm.errors import CheckpointError, nearest

if TYPE_CHECKING:
    from ppdgm.specs import Table

FORMAT = 2
_BLANK = b"0" * 64
_MARK = b'"sha256":"'


def pack(arrays: Mapping[str, np.ndarray], page: Mapping[str, object]) -> bytes:
    """The content of a checkpoint file: arrays by name, and a page of plain values.

    The checksum is that of the whole file with 64 zeros in place of the checksum, so any changed byte is found.
    """
    whole = {n: np.ascontiguousarray(a).reshape(np.shape(a)) for n, a in arrays.items()}
    content = save_arrays(
        whole, {"format": str(FORMAT), "page": json.dumps(page, sort_keys=True), "sha256": _BLANK.decode()}
    )
    place = content.index(_MARK + _BLANK) + len(_MARK)
    return content[:place] + _digest(content) + content[place + len(_BLANK) :]


def unpack(content: bytes, path: Path) -> tuple[dict[str, np.ndarray], Table]:
    """Arrays and page of a checkpoint file.

    Raises:
        CheckpointError: truncated, damaged, of a newer version, or not a checkpoint of ppdgm.
    """
    header = _header(content, path)
    about = header.get("__metadata__", {})
    told = isinstance(about, dict) and all(isinstance(about.get(n), str) for n in ("format", "page", "sha256"))
    if not told:
        raise CheckpointError(f"{path} is not a ppdgm checkpoint: it has arrays, but no description of them.")
    place = content.find(_MARK) + len(_MARK)
    blank = content[:place] + _BLANK + content[place + len(_BLANK) :]
    if _digest(blank).decode() != about["sha256"] or content[place : place + 64] != about["sha256"].encode():
        raise CheckpointError(f"{path} is damaged: its checksum does not match its content.")
    if about["format"] != str(FORMAT):
        raise CheckpointError(
            f"{path} has format {about['format']}, this version of ppdgm reads {FORMAT}. Update ppdgm."
        )
    try:
        return dict(load_arrays(content)), json.loads(about["page"])
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:  # nested too deeply; a new type
        raise CheckpointError(f"{path} is damaged: {error}.") from None


def checksum(content: bytes) -> str:
    """The checksum that is written in a packed file."""
    place = content.index(_MARK) + len(_MARK)
    return content[place : place + len(_BLANK)].decode()


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], Table]:
    """Arrays and page of the checkpoint file at `path`; raises as `unpack` does."""
    try:
        return unpack(path.read_bytes(), path)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read ({error.strerror}).") from None


def group(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays whose names start with `@name/`, under the rest of their names."""
    prefix = f"@{name}/"
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def grouped(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays under the names `@name/…`; parameters are stored beside them under their own names."""
    return {f"@{name}/{n}": a for n, a in arrays.items()}


def matching(
    expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], path: Path | None = None
) -> dict[str, np.ndarray]:
    """`got`, if it has the names and shapes of `expected` (it may have buffers beside them)."""
    where = f"{path}: " if path else ""
    for name, value in expected.items():
        if name not in got:
            raise CheckpointError(f"{where}parameter {name!r} is missing. {nearest(name, got)}")
        if np.shape(got[name]) != np.shape(value):
            raise CheckpointError(
                f"{where}parameter {name!r}: got shape {np.shape(got[name])}, expected {np.shape(value)}."
            )
    return {n: np.asarray(v) for n, v in got.items()}


def check_same_arrays(expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays whose names, shapes and types differ from those of others.

    Libraries rely on these: torch's fused optimisers write past the end of a state that is smaller than its parameter.

    Raises:
        CheckpointError: names the first array that differs.
    """
    for name in [*expected, *got]:
        if name not in got:
            raise CheckpointError(f"array {name!r} is missing.")
        if name not in expected:
            raise CheckpointError(f"array {name!r} does not belong to this run. {nearest(name, expected)}")
        like, array = np.asarray(expected[name]), np.asarray(got[name])
        number = like.ndim == 0 and like.dtype.kind in "biuf" and array.dtype.kind in "biuf"
        if like.shape != array.shape or not (like.dtype == array.dtype or number):
            found, wanted = (f"{a.dtype} of shape {a.shape}" for a in (array, like))
            raise CheckpointError(f"array {name!r}: got {found}, expected {wanted}.")


def _header(content: bytes, path: Path) -> Table:
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise CheckpointError(f"{path} is damaged: it has {len(content)} bytes, and ends inside its header.")
    try:
        found = json.loads(content[8 : 8 + size])
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is damaged, or not a checkpoint: its header is not JSON.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: its header is not a table.")
    return found


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
