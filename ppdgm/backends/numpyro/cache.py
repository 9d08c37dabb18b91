"""What JAX compiles is kept on disk, so that a program that was compiled once starts at once in every later process."""

from __future__ import annotations

import os
import platform
import time
import zlib
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import jax

from ppdgm.errors import PpdgmError
from ppdgm.files import cache_folder

SWITCH = "PPDGM_COMPILATION_CACHE"
MOST_BYTES = 2**29  # some ten thousand programs
DAY = 24 * 3600


@cache
def keep_compiled() -> None:
    """Let JAX keep compiled programs in the user's cache folder, which several processes may share.

    $PPDGM_COMPILATION_CACHE names another folder, or is "off". A folder that the user chose for JAX stays as it is.

    Raises:
        PpdgmError: the folder that $PPDGM_COMPILATION_CACHE names can't be written.
    """
    choice = os.environ.get(SWITCH, "")
    if choice.lower() == "off" or jax.config.jax_compilation_cache_dir:
        return
    folder = Path(choice or cache_folder() / "jax") / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _trim_daily(folder, MOST_BYTES)
        _remove_damaged(folder)
    except OSError as error:
        if choice:
            raise PpdgmError(
                f"{SWITCH}: can't write to {choice!r} ({error.strerror}). Name another folder, or set it to off."
            ) from None
        return  # nothing that was asked for is lost
    # JAX's own limit reads every file's time whenever it writes one: 0.1 s with 500 files.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _trim_daily(folder: Path, most: int) -> None:
    """Once a day, remove what was not used for longest, down to `most` bytes."""
    mark = folder / "trimmed"
    if mark.exists() and time.time() - mark.stat().st_mtime < DAY:
        return
    mark.touch()
    found = [(max(s.st_atime, s.st_mtime), s.st_size, file) for file in folder.glob("*-cache") if (s := _stat(file))]
    left = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if size and left <= most:  # an empty file is what a killed process began to write
            continue
        file.unlink(missing_ok=True)  # another process may trim too
        left -= size


def _remove_damaged(folder: Path) -> None:
    """Remove what can't be unpacked of the files written since the last look: of a killed process, or of a full disk.

    JAX writes no file that is there: it would warn, and compile that program, in every later process.
    """
    mark = folder / "checked"
    since = stat.st_mtime - 2 if (stat := _stat(mark)) else 0.0  # some file systems count in two seconds
    mark.touch()
    for file in folder.glob("*-cache"):
        if (stat := _stat(file)) and stat.st_mtime >= since and not _is_whole(file):
            file.unlink(missing_ok=True)  # if another process is still writing it, only this entry is lost


def _is_whole(file: Path) -> bool:
    """Whether what JAX packed can be unpacked; True if it was packed by a library that isn't here."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return True
    unpack, failure = zlib.decompress, zlib.error
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            library = import_module("zstandard")
        except ImportError:
            return True
        unpack, failure = library.ZstdDecompressor().decompress, library.ZstdError
    try:
        return len(unpack(content)) > 0
    except failure:
        return False


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def _processor() -> str:
    """A name for this kind of processor: from a home that machines share, JAX would run what another can't execute."""
    facts = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        facts += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return sha256("\n".join(facts).encode()).hexdigest()[:12]
