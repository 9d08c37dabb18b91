"""Sets by name: from the user's folder, the cache, or a mirror; never anything but the right bytes."""

import gzip
import hashlib
import os
import struct
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ppdgm.data import catalogue, load_data
from ppdgm.data.sets import SETS
from ppdgm.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = {
    "train": RNG.integers(0, 256, (40, 3, 3)).astype(np.uint8),
    "t10k": RNG.integers(0, 256, (9, 3, 3)).astype(np.uint8),
}
LABELS = {"train": np.arange(40) % 10, "t10k": np.arange(9) % 10}


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


FILES = {f"{s}-images-idx3-ubyte": idx_bytes(x) for s, x in PIXELS.items()}
FILES |= {f"{s}-labels-idx1-ubyte": idx_bytes(y) for s, y in LABELS.items()}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A small set in MNIST's place, no folder of the user's, and a cache and a mirror of our own."""
    sums = {n: hashlib.sha256(content).hexdigest() for n, content in FILES.items()}
    mirror = (tmp_path / "mirror").as_uri() + "/"
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], sha256=sums, mirror=mirror, validation=10))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("PPDGM_DATA", raising=False)


def put(folder, packed=True, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **changed}.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return folder


def check(data):
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(data.train, PIXELS["train"][order[:30]] / np.float32(255))
    assert np.array_equal(data.validation, PIXELS["train"][order[30:]] / np.float32(255))
    assert np.array_equal(data.test, PIXELS["t10k"] / np.float32(255))
    assert np.array_equal(data.labels["validation"], LABELS["train"][order[30:]])
    assert np.array_equal(data.labels["test"], LABELS["t10k"])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["mnist", ""])
@pytest.mark.parametrize("memory", [1, 2**30])
def test_from_a_folder_of_the_users(tmp_path, monkeypatch, packed, below, memory):
    put(tmp_path / "mine" / below, packed)
    monkeypatch.setenv("PPDGM_DATA", str(tmp_path / "mine"))
    data = load_data("mnist", binarise="none", memory=memory)
    check(data)
    assert ("streamed" in repr(data)) == (memory == 1 and not packed)


def test_drawn_once_unless_told_otherwise(tmp_path, monkeypatch):
    put(tmp_path / "mine" / "mnist")
    monkeypatch.setenv("PPDGM_DATA", str(tmp_path / "mine"))
    order = np.random.default_rng(0).permutation(40)
    drawn = np.random.default_rng((0, 0)).random((40, 3, 3)) < PIXELS["train"] / np.float32(255)
    test = np.random.default_rng((0, 2)).random((9, 3, 3)) < PIXELS["t10k"] / np.float32(255)
    data, dynamic = load_data("mnist"), load_data("mnist", binarise="dynamic")
    assert data.source.binarise == "static" and data.binarise == "none"
    assert np.array_equal(data.train, drawn[order[:30]]) and np.array_equal(data.test, test)
    assert (
        np.array_equal(dynamic.train, PIXELS["train"][order[:30]] / np.float32(255)) and dynamic.binarise == "dynamic"
    )
    assert np.array_equal(dynamic.validation, drawn[order[30:]]) and np.array_equal(dynamic.test, test)
    levels = load_data("mnist", scale="levels")
    assert np.array_equal(levels.test, PIXELS["t10k"]) and levels.source.binarise == "none"
    assert len(load_data("mnist", test=4).test) == 4 and load_data("mnist", test=0).test is None


# --- the mirror ----------------------------------------------------------------------------------------------------


def test_downloaded_once_and_kept(tmp_path, capsys):
    mirror = put(tmp_path / "mirror")
    check(load_data("mnist", binarise="none"))
    told = capsys.readouterr().err
    assert [told.count(f"Downloading mnist: {n}.gz") for n in FILES] == [1] * 4
    for file in mirror.iterdir():
        file.unlink()
    check(load_data("mnist", binarise="none"))
    assert capsys.readouterr().err == ""
    assert sorted(os.listdir(tmp_path / "cache" / "ppdgm" / "mnist")) == sorted(f"{n}.gz" for n in FILES)


def test_nowhere_to_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("PPDGM_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError) as error:
        load_data("mnist")
    text = str(error.value)
    for word in (tmp_path / "mine" / "mnist", tmp_path / "cache", "mirror/train-images-idx3-ubyte.gz", "PPDGM_DATA"):
        assert str(word) in text
    assert all(f"{n}.gz" in text for n in FILES) and "\n" not in text
    monkeypatch.delenv("PPDGM_DATA")
    with pytest.raises(DataError, match=r"\$PPDGM_DATA is not set"):
        load_data("mnist")


class Mirror(BaseHTTPRequestHandler):
    """Sends a file; with `fault`, a part of it, other bytes, or an error."""

    fault = ""

    def do_GET(self):
        content = gzip.compress(FILES[self.path.strip("/").removesuffix(".gz")])
        if self.fault == "missing":
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        sent = {"half": content[: len(content) // 2], "other": content[::-1], "wrong": gzip.compress(b"0" * 49)}
        self.wfile.write(sent.get(self.fault, content).ljust(len(content) if self.fault == "wrong" else 0, b"\0"))

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], mirror=address))
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_http(mirror):
    check(load_data("mnist", binarise="none"))


@pytest.mark.parametrize(
    "fault, message",
    {"half": r"of \d+ bytes|IncompleteRead", "other": "damaged", "wrong": "sha256", "missing": "404"}.items(),
)
def test_a_bad_download_leaves_nothing_behind(tmp_path, mirror, monkeypatch, fault, message):
    monkeypatch.setattr(Mirror, "fault", fault)
    with pytest.raises(DataError, match=message) as error:
        load_data("mnist")
    assert f"{mirror}train-images-idx3-ubyte.gz" in str(error.value)
    assert list((tmp_path / "cache" / "ppdgm" / "mnist").iterdir()) == []
    monkeypatch.setattr(Mirror, "fault", "")
    check(load_data("mnist", binarise="none"))


def test_a_mirror_that_does_not_answer(monkeypatch, mirror):
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], mirror="http://127.0.0.1:9/"))
    with pytest.raises(DataError, match="can't be downloaded"):
        load_data("mnist")


# --- damaged files -------------------------------------------------------------------------------------------------

IMAGES = "train-images-idx3-ubyte"
WHOLE = FILES[IMAGES]
DAMAGED = {
    "another set": (WHOLE[:-1] + b"\7", "sha256"),
    "cut short": (WHOLE[:-1], "expected 360, from its header"),
    "too long": (WHOLE + b"\7", "expected 360, from its header"),
    "not an idx file": (b"<html>not found</html>", "is not an idx file: it starts with 3c 68"),
    "empty": (b"", "is not an idx file: it starts with nothing"),
    "half a header": (WHOLE[:9], "is incomplete: its header must have"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_named(tmp_path, monkeypatch, case, packed):
    content, message = DAMAGED[case]
    folder = put(tmp_path / "mine" / "mnist", packed, **{IMAGES: content})
    monkeypatch.setenv("PPDGM_DATA", str(tmp_path / "mine"))
    for memory in (1, 2**30):
        with pytest.raises(DataError) as error:
            load_data("mnist", memory=memory)
        assert message in str(error.value) and str(folder / IMAGES) in str(error.value)


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_damage_to_a_gzipped_file_is_found(tmp_path, monkeypatch, where, how):
    folder = put(tmp_path / "mine" / "mnist")
    monkeypatch.setenv("PPDGM_DATA", str(tmp_path / "mine"))
    file = folder / f"{IMAGES}.gz"
    content = bytearray(file.read_bytes())
    at = int(where * len(content))
    content[at] ^= 1
    file.write_bytes(content if how == "flipped" else content[:at])
    with pytest.raises(DataError, match=IMAGES):
        load_data("mnist")


# --- the real ones -------------------------------------------------------------------------------------------------

real = pytest.mark.skipif("PPDGM_DATA" not in os.environ, reason="PPDGM_DATA names no folder with the real files")
SHARED = os.environ.get("PPDGM_DATA", "")


@real
@pytest.mark.parametrize("name, mean", [("mnist", 0.1307), ("fashion-mnist", 0.2860)])
def test_the_real_sets(monkeypatch, tmp_path, name, mean):
    monkeypatch.undo()
    monkeypatch.setenv("PPDGM_DATA", SHARED)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data, entry = load_data(name, binarise="dynamic"), catalogue()[name]
    assert [len(a) for a in (data.train, data.validation, data.test)] == [50_000, 10_000, 10_000]
    assert data.event_shape == entry.shape == (28, 28)
    grey = load_data(name, binarise="none", validation=0)
    assert abs(grey.train.mean() - mean) < 5e-5  # as published, to four places
    assert np.bincount(grey.labels["train"], minlength=10).sum() == entry.rows["train"] == 60_000
    assert abs(load_data(name).train.mean() - data.train.mean()) < 5 * 0.5 / np.sqrt(50_000 * 784)  # five errors
