"""Files that are cut short, at every byte, or have too much: none is read as whole."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from ppdgm.data.arrays import read_npy, read_npz
from ppdgm.data.idx import read_idx
from ppdgm.data.images import read_images
from ppdgm.data.source import Source
from ppdgm.errors import DataError

X = np.arange(60, dtype="f4").reshape(12, 5)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 6), np.uint8)


def packed(save, *args, **options):
    buffer = io.BytesIO()
    save(buffer, *args, **options)
    return buffer.getvalue()


IDX = b"\0\0\x0d\x02" + struct.pack(">II", *X.shape) + X.astype(">f4").tobytes()
MEMORY = 2**30
FILES = {  # by name: content, how it is read, and whether memory-mapping it is another way
    "x.npy": (packed(np.save, X), lambda p: read_npy(p, MEMORY)),
    "mapped.npy": (packed(np.save, X), lambda p: read_npy(p, 1)),
    "x.npz": (packed(np.savez, x=X), read_npz),
    "x-idx2": (IDX, lambda p: read_idx(p, MEMORY)),
    "mapped-idx2": (IDX, lambda p: read_idx(p, 1)),
    "x-idx2.gz": (gzip.compress(IDX), lambda p: read_idx(p, MEMORY)),
    **{
        f"images/x{suffix}": (
            packed(Image.fromarray(PIXELS).save, format),
            lambda p: read_images(p.parent, Source(name=str(p.parent))),
        )
        for suffix, format in (
            (".png", "PNG"),
            (".jpg", "JPEG"),
            (".gif", "GIF"),
            (".bmp", "BMP"),
            (".webp", "WEBP"),
            (".pgm", "PPM"),
        )
    },
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_short_is_refused(name, tmp_path):
    content, read = FILES[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    read(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=path.name):
            read(path)


@pytest.mark.parametrize("name", [n for n in FILES if "/" not in n and "npz" not in n])
def test_what_comes_after_the_data_is_told(name, tmp_path):
    """Two arrays in one file, say, of which the first alone would be read."""
    content, read = FILES[name]
    path = tmp_path / name
    path.write_bytes(content + (gzip.compress(b"more") if name.endswith("gz") else b"more"))
    with pytest.raises(DataError, match=f"{name}.* bytes of data, expected 240, from its header"):
        read(path)


@pytest.mark.parametrize("change", [(b"(12, 5)", b"(11, 5)"), (b"(12, 5)", b"(13, 5)"), (b"<f4", b"<f2")])
def test_a_member_of_an_archive_has_the_size_of_its_header(change, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", packed(np.save, X).replace(*change))
    with pytest.raises(
        DataError, match=r"x\.npz, x\.npy is not a complete \.npy file: got 240 bytes of data, expected"
    ):
        read_npz(tmp_path / "x.npz")
