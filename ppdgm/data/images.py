"""Folders of images: subfolders are classes, or splits with classes below them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.checks import check_fits
from ppdgm.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_ORIENTATION = 0x0112  # EXIF's tag for how to turn a picture; 1: not at all
_ENDS = {b"\x89PNG": b"IEND\xaeB`\x82", b"GIF8": b";"}  # the end of a file, by its first bytes
_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def read_images(path: Path) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """The images of a folder by split, as "x", [N, H, W] or in colour [N, 3, H, W]; their classes as "label".

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
    first = _open(files["train"][0][0])
    count = sum(len(f) for f in files.values())
    check_fits(count * first.nbytes, str(path), "Save it as an array with np.save: .npy files are streamed.")
    parts = {}
    for split, found in files.items():
        parts[split] = {"x": _stack([f for f, _ in found], first, files["train"][0][0])}
        if classes:
            parts[split]["label"] = np.array([classes.index(c) for _, c in found if c is not None], np.int64)
    return parts, classes


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


def _open(path: Path) -> np.ndarray:
    """Whole numbers [H, W], or [3, H, W] in colour, turned as the picture's EXIF says.

    Raises:
        DataError: the file is damaged, or contains more than such an array can hold; the message names the file.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError("Image folders need the package 'pillow', which is not installed: pip install pillow") from None
    try:
        content = path.read_bytes()
        _check_whole(content)
        with Image.open(io.BytesIO(content)) as image:
            wide = any(";16" in str(tile[3]) for tile in image.tile)
            if lost := _lost(image, wide):
                raise DataError(f"{path}: {lost}.")
            turned = image.getexif().get(_ORIENTATION, 1) != 1
            upright: Image.Image = ImageOps.exif_transpose(image) if turned else image
            grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
            converted: Image.Image = upright.convert("L") if image.mode in ("1", "LA") else upright
            pixels = np.asarray(converted if grey else upright.convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # any error that the decoder raises for a damaged file
        raise DataError(f"{path} is not a complete image: {error}. Replace or remove it.") from None
    pixels = pixels.astype(np.uint16 if wide else pixels.dtype.newbyteorder("="), copy=False)
    return pixels if grey else np.moveaxis(pixels, -1, 0)


def _lost(image: Image.Image, wide: bool) -> str:
    """What an array [H, W] or [3, H, W] of an opened image's numbers would leave out, or nothing."""
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a camera's, with previews
    if frames > 1:
        return f"got {frames} frames or pages, expected one image. Save each in a separate file"
    if wide and not image.mode.startswith("I"):
        return (
            "got a colour picture with 16 bits per channel, but Pillow reads only 8. Save it with 8 bits, or save all "
            "pictures as an array with np.save"
        )
    clear = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if clear and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]  # of one channel: (low, high)
        return "got transparent pixels, expected opaque ones. Put the picture on a background, without alpha"
    return ""


def _check_whole(content: bytes) -> None:
    """Refuse a file without the end that its format requires, or without bytes that its header announces.

    Decoders accept a file whose last checksum, or the padding of whose last row, is cut off.
    """
    end = next((end for start, end in _ENDS.items() if content.startswith(start)), b"")
    told = {b"BM": content[2:6], b"RI": content[4:8]}.get(content[:2], b"")
    if not content.rstrip(b"\0\r\n").endswith(end) or len(content) < int.from_bytes(told, "little"):
        raise ValueError("image file is truncated")


def _stack(files: list[Path], first: np.ndarray, first_path: Path) -> np.ndarray:
    found = np.empty((len(files), *first.shape), first.dtype)
    for i, path in enumerate(files):
        image = _open(path)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise DataError(
                f"{path}: got {_size(image)}, expected {_size(first)}, like {first_path.name}. Convert all to one form."
            )
        found[i] = image
    return found


def _size(image: np.ndarray) -> str:
    colour, bits = "in colour" if image.ndim == 3 else "grey", 8 * image.dtype.itemsize
    return f"{image.shape[-2]}×{image.shape[-1]}, {colour}, {bits} bits"
