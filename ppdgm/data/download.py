"""Files of known sets: found in the user's folder or in the cache, or downloaded; their content is checked."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import BinaryIO

from ppdgm.data.sets import KnownDataset
from ppdgm.errors import DataError
from ppdgm.files import cache_folder

TIMEOUT, _BLOCK = 30.0, 2**18


def find_file(entry: KnownDataset, name: str) -> Path:
    """The file `name` of a set, gzipped or not.

    It is looked for in $PPDGM_DATA and in the cache. If it is in neither, it is downloaded to the cache.

    Raises:
        DataError: it can't be found or downloaded; the message says what was tried, and where to put which files.
    """
    cache = cache_folder() / entry.name
    folders = [cache]
    if given := os.environ.get("PPDGM_DATA"):
        folders = [Path(given) / entry.name, Path(given), cache]
    for folder in folders:
        for file in (name, f"{name}.gz", name.replace("-idx", ".idx")):
            if (folder / file).is_file():
                return folder / file
    try:
        return _download(entry, name, cache)
    except (OSError, http.client.HTTPException) as error:
        tried = ", ".join(map(str, folders)) + ("" if given else " ($PPDGM_DATA is not set)")
        answered = isinstance(error, urllib.error.HTTPError)
        reason = error if answered else getattr(error, "reason", None) or error
        raise DataError(
            f"{entry.name}: {name} is not in {tried}, and {entry.mirror}{name}.gz can't be downloaded ({reason}). Put "
            f"{', '.join(f'{n}.gz' for n in entry.sha256)} into a folder {entry.name}, and set PPDGM_DATA to the "
            "folder that contains it."
        ) from None


def _download(entry: KnownDataset, name: str, folder: Path) -> Path:
    """A file from the set's mirror; it is put in `folder` only when it is complete and correct."""
    url, target = f"{entry.mirror}{name}.gz", folder / f"{name}.gz"
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            got, expected = _receive(url, file, f"Downloading {entry.name}: {name}.gz")
            file.flush()
            os.fsync(file.fileno())
        if expected is not None and got != expected:
            raise DataError(f"{url}: the download ended after {got} of {expected} bytes. Try again.")
        _verify(Path(temporary), entry.sha256[name], url)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def _receive(url: str, file: BinaryIO, title: str) -> tuple[int, int | None]:
    """The number of bytes that were received, and the number that was announced."""
    try:
        answer = urllib.request.urlopen(url, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    with answer:
        length = answer.headers.get("Content-Length")
        total, got = int(length) if length and length.isdigit() else None, 0
        while block := answer.read(_BLOCK):
            file.write(block)
            got += len(block)
            _show(f"{title}, {got / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB"))
    _show(f"{title}, {got / 1e6:.1f} MB", last=True)
    return got, total


def _show(text: str, last: bool = False) -> None:
    """A line that is overwritten on a terminal, and written once elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{text:<79}", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last:
        print(text, file=sys.stderr, flush=True)


def _verify(path: Path, sha256: str, url: str) -> None:
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{url}: got a damaged file ({error}). Try again.") from None
    if digest.hexdigest() != sha256:
        raise DataError(f"{url}: the unpacked content has sha256 {digest.hexdigest()}, expected {sha256}. Try again.")
