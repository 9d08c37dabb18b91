"""One picture of a file as whole numbers: upright, on a background, in grey or colour, in one size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from ppdgm.data.source import Source

_ORIENTATION = 0x0112  # EXIF's tag for how to turn a picture; 1: not at all
_ENDS = {b"\x89PNG": b"IEND\xaeB`\x82", b"GIF8": b";"}  # the end of a file, by its first bytes
_GREY = ("1", "L", "LA", "I", "F")


def read_picture(path: Path, source: Source) -> np.ndarray:
    """Whole numbers [H, W], or [3, H, W] in colour, turned as the picture's EXIF says, prepared as a source asks.

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
            _choose_frame(image, source, path)
            deep = any(";16" in str(tile[3]) for tile in image.tile)
            if lost := _lost(image, deep, source):
                raise DataError(f"{path}: {lost}.")
            turned = image.getexif().get(_ORIENTATION, 1) != 1
            upright: Image.Image = ImageOps.exif_transpose(image) if turned else image
            grey = image.mode in _GREY or image.mode.startswith("I;16")
            if _clear(upright):
                upright = _on_background(upright, str(source.background))
            return _as_array(upright, grey, deep, source)
    except DataError:
        raise
    except Exception as error:  # any error that the decoder raises for a damaged file
        raise DataError(f"{path} is not a complete image: {error}. Replace or remove it.") from None


def _as_array(image: Image.Image, grey: bool, deep: bool, source: Source) -> np.ndarray:
    to_grey = grey if source.colour == "auto" else source.colour == "grey"
    if grey and image.mode not in ("1", "LA", "RGB"):  # numbers as they are, also those of 16 bits and more
        pixels = np.asarray(_resized(image, source))
    else:
        pixels = np.asarray(_resized(image.convert("L" if to_grey else "RGB"), source))
    pixels = pixels.astype(np.uint16 if deep else pixels.dtype.newbyteorder("="), copy=False)
    if to_grey:
        return pixels
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else np.stack([pixels] * 3)


def _resized(image: Image.Image, source: Source) -> Image.Image:
    """The picture in the size that a source asks for: by averages of the pixels below each new one (bilinear)."""
    from PIL import Image, ImageOps

    if source.size is None or (image.height, image.width) == tuple(source.size):
        return image
    height, width = source.size
    how = Image.Resampling.BILINEAR
    wide = image.mode not in ("L", "RGB", "F")  # Pillow averages these only as floating numbers
    averaged: Image.Image = Image.fromarray(np.asarray(image).astype(np.float32)) if wide else image
    if source.crop == "centre":
        found = ImageOps.fit(averaged, (width, height), how)
    else:
        found = averaged.resize((width, height), how)
    return Image.fromarray(np.rint(np.asarray(found)).astype(np.asarray(image).dtype)) if wide else found


def _choose_frame(image: Image.Image, source: Source, path: Path) -> None:
    """Go to the frame that a source asks for.

    Raises:
        DataError: there are several and none was chosen, or it is not there.
    """
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a camera's, with previews
    if source.frame is None and frames > 1:
        raise DataError(
            f"{path}: got {frames} frames or pages, expected one image. Save each in a separate file, or choose one: "
            "frame=0 (--set data.frame=0)."
        )
    if source.frame is not None and source.frame >= frames:
        raise DataError(f"{path}: got {frames} frames, so there is no frame {source.frame}; the first one is 0.")
    if source.frame:
        image.seek(source.frame)


def _lost(image: Image.Image, deep: bool, source: Source) -> str:
    """What an array [H, W] or [3, H, W] of an opened image's numbers would leave out, or nothing."""
    if deep and not image.mode.startswith("I"):
        return (
            "got a colour picture with 16 bits per channel, but Pillow reads only 8. Save it with 8 bits, or save all "
            "pictures as an array with np.save"
        )
    if deep and "transparency" in image.info:
        return "got 16 bits with a transparent colour. Save it without transparency, or with 8 bits"
    if image.mode == "LAB":
        return "got the colour space LAB, expected grey, RGB or CMYK. Save it in one of them"
    if source.background is None and _clear(image):
        return (
            "got transparent pixels, expected opaque ones. Choose what is behind them: background='white' "
            "(--set data.background=white), 'black' or 'grey'"
        )
    return ""


def _clear(image: Image.Image) -> bool:
    """Whether some pixels are transparent."""
    may = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return may and image.convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]  # of one channel: (low, high)


def _on_background(image: Image.Image, colour: str) -> Image.Image:
    """A picture with transparent pixels in front of a colour, before any other change, as RGB."""
    from PIL import Image

    front = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", front.size, colour), front).convert("RGB")


def _check_whole(content: bytes) -> None:
    """Refuse a file without the end that its format requires, or without bytes that its header announces.

    Decoders accept a file whose last checksum, or the padding of whose last row, is cut off.
    """
    end = next((end for start, end in _ENDS.items() if content.startswith(start)), b"")
    told = {b"BM": content[2:6], b"RI": content[4:8]}.get(content[:2], b"")
    if not content.rstrip(b"\0\r\n").endswith(end) or len(content) < int.from_bytes(told, "little"):
        raise ValueError("image file is truncated")
