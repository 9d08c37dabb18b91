"""Folders of images: subfolders are classes, or splits with classes below them."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.checks import check_fits
from ppdgm.data.pictures import read_picture
from ppdgm.data.transform import floating
from ppdgm.errors import DataError
from ppdgm.files import cache_folder

if TYPE_CHECKING:
    from ppdgm.data.source import Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
PICTURES = ("size", "crop", "colour", "background", "frame")  #: the fields of a `Source` that are for images
_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_QUIET = 2.0  # seconds before progress is shown


def read_images(path: Path, source: Source) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...], str]:
    """The images of a folder by split, as "x", [N, H, W] or in colour [N, 3, H, W]; their classes as "label";
    "grey" or "rgb".

    If they need more than `source.memory` bytes, they are written to the cache once, as .npy, and memory-mapped.

    Raises:
        DataError: no images, different sizes, or a damaged file; the message names the file.
    """
    folders = {s: next((path / n for n in names if (path / n).is_dir()), None) for s, names in _SPLITS.items()}
    splits = {s: f for s, f in folders.items() if f is not None} or {"train": path}
    if "train" not in splits:
        raise DataError(f"{path}: got the folders {', '.join(splits)}, expected 'train' too.")
    files = {s: _files(f) for s, f in splits.items()}
    for split, found in files.items():
        if not found:
            raise DataError(f"{splits[split]}: got no images, expected files ending in {', '.join(SUFFIXES)}.")
    classes = tuple(sorted({c for found in files.values() for _, c in found if c is not None}))
    _check_folders(files, classes)
    first_path = files["train"][0][0]
    first = read_picture(first_path, source)
    count = sum(len(f) for f in files.values())
    streamed = count * first.size * floating(first.dtype).itemsize > source.memory
    if not streamed:
        check_fits(count * first.nbytes, str(path), "Give memory=… (--set data.memory=…): more is streamed from disk.")
    parts = {}
    for split, found in files.items():
        paths = [f for f, _ in found]
        read = _mapped if streamed else _stack
        parts[split] = {"x": read(paths, first, first_path, source)}
        if classes:
            parts[split]["label"] = np.array([classes.index(c) for _, c in found if c is not None], np.int64)
    return parts, classes, "rgb" if first.ndim == 3 else "grey"


def _files(folder: Path) -> list[tuple[Path, str | None]]:
    """Images with their classes, in order of their names."""
    is_image = lambda p: p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    loose: list[tuple[Path, str | None]] = [(p, None) for p in sorted(folder.iterdir()) if is_image(p)]
    return loose + [(p, f.name) for f in below for p in sorted(f.rglob("*")) if is_image(p)]


def _check_folders(files: dict[str, list[tuple[Path, str | None]]], classes: tuple[str, ...]) -> None:
    loose = [p for found in files.values() for p, c in found if c is None]
    if loose and classes:
        raise DataError(
            f"{loose[0]}: got an image outside the folders of classes ({', '.join(classes[:4])}). Move or remove it."
        )


def _stack(files: list[Path], first: np.ndarray, first_path: Path, source: Source) -> np.ndarray:
    found = np.empty((len(files), *first.shape), first.dtype)
    _fill(found, files, first, first_path, source)
    return found


def _mapped(files: list[Path], first: np.ndarray, first_path: Path, source: Source) -> np.ndarray:
    """The same from a file in the cache, which is written if these files in this form are not there yet.

    Raises:
        DataError: there is no room for it.
    """
    folder = cache_folder() / "pictures"
    target = folder / f"{_key(files, first, source)}.npy"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        size = len(files) * first.nbytes
        if size > (free := shutil.disk_usage(folder).free):
            raise DataError(
                f"{first_path.parent}: these images need {size / 2**30:.1f} GiB in {folder}, but its disk has "
                f"{free / 2**30:.1f} GiB. Name another folder with XDG_CACHE_HOME, or give a smaller size=…."
            )
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
        os.close(handle)
        try:
            written = np.lib.format.open_memmap(name, "w+", first.dtype, (len(files), *first.shape))
            _fill(written, files, first, first_path, source)
            written.flush()
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        print(f"{len(files)} images are in {target}, from which they are streamed.", file=sys.stderr)
    found: np.ndarray = np.load(target, mmap_mode="r", allow_pickle=False)
    return found


def _key(files: list[Path], first: np.ndarray, source: Source) -> str:
    """Differs if a file's name, size or time of change, or the form of the pictures, does."""
    told = [str(first.shape), str(first.dtype), *(str(getattr(source, n)) for n in PICTURES)]
    for path in files:
        facts = path.stat()
        told.append(f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]


def _fill(found: np.ndarray, files: list[Path], first: np.ndarray, first_path: Path, source: Source) -> None:
    """Read the files into an array, several at a time; the first file in order that can't be read is reported."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders run without Python's lock
        try:
            pictures = pool.map(lambda path: read_picture(path, source), files)
            for i, (path, image) in enumerate(zip(_shown(files), pictures, strict=True)):
                if image.shape != first.shape or image.dtype != first.dtype:
                    raise DataError(_told(path, image, first, first_path))
                found[i] = image
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _shown(files: list[Path]) -> Iterator[Path]:
    """The files, with a line on a terminal that counts them, if they take a while."""
    began = last = time.monotonic()
    for i, path in enumerate(files):
        now = time.monotonic()
        if sys.stderr.isatty() and now - began > _QUIET and now - last > 0.2:
            print(f"\rReading {path.parent}: {i} of {len(files)} images\x1b[K", end="", file=sys.stderr, flush=True)
            last = now
        yield path
    if last > began:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _told(path: Path, image: np.ndarray, first: np.ndarray, first_path: Path) -> str:
    colours, sizes = image.ndim != first.ndim, image.shape[-2:] != first.shape[-2:]
    size = ",".join(map(str, first.shape[-2:]))
    ways = [
        *(["colour='grey' or 'rgb' (--set data.colour=grey)"] if colours else []),
        *([f"size=({size}) (--set data.size=[{size}])"] if sizes else []),
    ]
    fix = f"Choose {' and '.join(ways)}." if ways else "Convert all to one form."
    return f"{path}: got {_size(image)}, expected {_size(first)}, like {first_path.name}. {fix}"


def _size(image: np.ndarray) -> str:
    colour, bits = "in colour" if image.ndim == 3 else "grey", 8 * image.dtype.itemsize
    return f"{image.shape[-2]}×{image.shape[-1]}, {colour}, {bits} bits"
