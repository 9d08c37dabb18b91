"""Streams: numbers read from the file as they are asked for are those of the array in memory, bit for bit."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppdgm.data import Stream, Transform, as_fields, check_finite, check_rows, load_data, take
from ppdgm.data.prepared import Prepared, coding_of
from ppdgm.data.stream import uniform_rows
from ppdgm.errors import DataError
from ppdgm.models import Bernoulli, Gaussian

RAW = np.random.default_rng(0).integers(0, 256, (40, 3, 2)).astype(np.uint8)
ROWS = np.random.default_rng(1).permutation(40)[:23]
PIXELS = RAW.astype(np.float32) / np.float32(255)
WHAT = {
    "none": (Transform(), "none", RAW.astype(np.float32)),
    "unit": (Transform("unit", 255.0), "none", PIXELS),
    "threshold": (Transform("unit", 255.0), "threshold", (PIXELS >= 0.5).astype(np.float32)),
    "static": (Transform("unit", 255.0), "static", (np.random.default_rng((5, 0)).random(RAW.shape) < PIXELS)),
}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "x.npy"
    np.save(path, RAW)
    return np.load(path, mmap_mode="r")


indices = st.one_of(
    st.lists(st.integers(-23, 22), max_size=30).map(lambda i: np.array(i, int)),
    st.builds(slice, *[st.none() | st.integers(-30, 30)] * 2, st.none() | st.integers(-3, 3).filter(bool)),
    st.lists(st.booleans(), min_size=23, max_size=23).map(np.array),
    st.integers(-23, 22),
    st.lists(st.lists(st.integers(0, 22), min_size=2, max_size=2), min_size=1, max_size=4).map(np.array),
)


@pytest.mark.parametrize("what", WHAT)
@given(index=indices, subset=st.booleans())
@settings(max_examples=60, deadline=None)
def test_indexing_is_that_of_an_array(mapped, what, index, subset):
    transform, binarise, whole = WHAT[what]
    stream = Stream(mapped, ROWS if subset else None, transform, binarise, (5, 0))
    array = whole[ROWS] if subset else whole
    if not subset and isinstance(index, np.ndarray) and index.dtype == bool:
        index = np.append(index, np.ones(17, bool))
    got = stream[index]
    np.testing.assert_array_equal(got, array[index])
    assert got.dtype == np.float32 and got.shape == array[index].shape
    assert type(got) is (np.ndarray if transform is None else Prepared) and coding_of(got) is transform


def test_it_looks_like_an_array(mapped):
    stream = Stream(mapped, ROWS)
    assert (stream.shape, stream.ndim, len(stream), stream.dtype) == ((23, 3, 2), 3, 23, np.float32)
    assert repr(stream) == "Stream((23, 3, 2), float32)"
    np.testing.assert_array_equal(np.asarray(stream), RAW[ROWS])
    np.testing.assert_array_equal(stream.subset([3, 1])[:], RAW[ROWS[[3, 1]]])
    np.testing.assert_array_equal(list(stream), RAW[ROWS])
    np.testing.assert_array_equal(Stream(mapped).subset([3, 1]).subset([1]), RAW[[1]])
    assert stream.astype("float64")[:2].dtype == np.float64
    assert Stream(mapped, dtype=np.uint8)[:2].dtype == np.uint8


@pytest.mark.parametrize("index", [23, -24, [0, 23], 1.5, (0, 1), "a"])
def test_a_wrong_index_is_refused(mapped, index):
    with pytest.raises(IndexError):
        Stream(mapped, ROWS)[index]


def test_a_file_that_was_replaced_is_read_as_it_was_mapped(tmp_path):
    np.save(tmp_path / "x.npy", RAW)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.save(tmp_path / "y.npy", RAW[::-1])
    (tmp_path / "y.npy").replace(tmp_path / "x.npy")
    np.testing.assert_array_equal(Stream(mapped)[:], RAW)


def test_what_is_returned_is_the_callers_own(mapped):
    stream = Stream(mapped, dtype=np.uint8)
    stream[:2][:] = 0
    stream[[1]][:] = 0
    np.testing.assert_array_equal(stream[:], RAW)


@given(rows=st.lists(st.integers(0, 5000), unique=True).map(sorted), width=st.integers(1, 3))
def test_draws_of_some_rows_are_those_of_all(rows, width):
    everything = np.random.default_rng((3, 1)).random((5001, width))
    np.testing.assert_array_equal(uniform_rows((3, 1), np.array(rows, int), (width,)), everything[rows])


def test_data_that_are_single_numbers():
    stream = Stream(np.arange(9), transform=Transform("unit", 2.0))
    assert stream[3] == 1.5 and stream[3].shape == () and stream[[3, 1]].tolist() == [1.5, 0.5]


def test_iteration_keeps_the_order_across_chunks(monkeypatch):
    monkeypatch.setattr("ppdgm.data.stream.CHUNK_BYTES", 6 * 8 * 5)
    np.testing.assert_array_equal(list(Stream(RAW, ROWS)), RAW[ROWS])


def test_chunks_cover_all_data_once_within_bounds(mapped):
    for stream in (Stream(mapped), Stream(mapped, ROWS)):
        found = list(stream.chunks(6))
        assert max(map(len, found)) <= 6
        np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(len(stream)))
    wide = Stream(np.broadcast_to(np.float32(0), (9, 2**22)))
    assert {len(i) * 2**22 * 8 <= 2**25 for i in wide.chunks()} == {True}


# --- fields --------------------------------------------------------------------------------------------------------


def test_fields_stay_on_disk(mapped):
    label = Stream(mapped[:, 0, 0], dtype=np.int64)
    fields = as_fields({"x": mapped, "label": label, "mask": RAW[:, 0] > 9}, "float64")
    assert isinstance(fields["x"], Stream) and isinstance(fields["label"], Stream)
    assert [fields[n].dtype for n in ("x", "label", "mask")] == [np.float64, np.int64, np.float64]
    got = take(fields, [4, 2])
    np.testing.assert_array_equal(got["x"], RAW[[4, 2]])
    np.testing.assert_array_equal(got["label"], RAW[[4, 2], 0, 0])
    np.testing.assert_array_equal(got["mask"], RAW[[4, 2], 0] > 9)
    np.testing.assert_array_equal(as_fields(mapped[5:9])["x"][:], RAW[5:9])


def checked(check, fields, **options):
    with pytest.raises(DataError) as error:
        check_rows(lambda f: check.check("x", f["x"]), fields, **options)
    return str(error.value)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian()])
@given(bad=st.sets(st.integers(0, 22), min_size=1), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_check_in_chunks_says_what_the_whole_would(likelihood, bad, seed):
    x = np.zeros((40, 2))
    x[ROWS[sorted(bad)], seed % 2] = np.nan
    stream = Stream(x, ROWS)
    whole = checked(likelihood, {"x": x[ROWS].astype(np.float32)})
    assert checked(likelihood, {"x": stream}, rows=1 + seed) == whole
    assert f"at index ({min(bad)}, {seed % 2})" in whole and f"{len(bad)} of 23 rows" in whole
    with pytest.raises(DataError) as error:
        check_finite({"x": stream})
    assert f"got nan at index ({min(bad)}, {seed % 2})" in str(error.value)
    assert f"{len(bad)} of 23 rows" in str(error.value)


@given(bad=st.sets(st.integers(0, 22), min_size=1))
@settings(max_examples=30, deadline=None)
def test_what_is_not_finite_is_found_across_chunks(bad):
    x = np.zeros((40, 2))
    x[ROWS[sorted(bad)], 1] = np.inf
    with pytest.MonkeyPatch.context() as patch:
        for module in ("stream", "checks"):
            patch.setattr(f"ppdgm.data.{module}.CHUNK_BYTES", 5 * 2 * 8)
        for field in (x[ROWS], Stream(x, ROWS)):
            with pytest.raises(DataError) as error:
                check_finite({"label": field})
            assert f"'label': got inf at index ({min(bad)}, 1)" in str(error.value)
            assert f"{len(bad)} of 23 rows" in str(error.value)


def test_a_check_of_something_else_is_passed_on(mapped):
    def check(fields):
        raise DataError("Data 'x': the shape is wrong.")

    with pytest.raises(DataError, match="the shape is wrong"):
        check_rows(check, {"x": Stream(mapped)})
    seen = []
    check_rows(lambda f: seen.append(f["x"].shape), {"x": Stream(mapped), "y": np.zeros(40)}, rows=15)
    assert seen == [(15, 3, 2), (15, 3, 2), (10, 3, 2)]


# --- larger than memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["auto", "none", "unit", "levels", "standardise"])
@pytest.mark.parametrize("binarise", ["auto", "threshold", "static", "dynamic"])
@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_streamed_or_loaded_is_the_same(tmp_path, kind, scale, binarise):
    if scale in ("none", "levels", "standardise") and binarise != "auto":
        return
    path = tmp_path / ("x.npy" if kind == "npy" else ".")
    np.save(tmp_path / "x.npy", RAW)
    if kind == "folder":
        np.save(tmp_path / "label.npy", np.arange(40))
        np.save(tmp_path / "mask.npy", RAW[:, 0] > 100)
    loaded, streamed = (load_data(path, scale=scale, binarise=binarise, seed=3, memory=m) for m in (10**6, 1))
    assert streamed.transform == loaded.transform and streamed.event_shape == (3, 2)
    assert repr(streamed) == repr(loaded)[:-1] + ", streamed)"
    for split in ("train", "validation", "test"):
        a, b = (as_fields(getattr(d, split)) for d in (loaded, streamed))
        assert a.keys() == b.keys() == ({"x"} if kind == "npy" else {"x", "mask"})
        for name in a:
            assert isinstance(b[name], Stream) and not isinstance(a[name], Stream)
            np.testing.assert_array_equal(b[name][:], a[name])
        if kind == "folder":
            np.testing.assert_array_equal(streamed.labels[split], loaded.labels[split])
    assert streamed.describe()["range"] is None and streamed.describe()["streamed"]


PEAK = """
import resource, sys
import numpy as np
from ppdgm.data import load_data
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
data = load_data(sys.argv[1], validation=0.01, test=0.01, memory=2**20)
before, order = peak(), np.random.default_rng(0).permutation(len(data.train))
total = sum(float(data.train[order[i:i + 100]].sum()) for i in range(0, 100_000, 100))
for index in data.train.chunks():
    total += float(data.train[index].sum())
print(int(total), peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read the way Linux tells it")
def test_a_large_file_is_never_held_in_memory(tmp_path):
    path = tmp_path / "large.npy"
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (2**18, 1024))  # 256 MiB; sparse on disk
    array[::4096] = 1
    array.flush()
    del array
    run = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    total, grown = map(int, run.stdout.split())
    assert total > 0
    assert grown < 2**27  # half the file; a chunk of 32 MiB, its raw numbers and its copy
