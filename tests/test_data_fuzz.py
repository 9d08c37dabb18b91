"""Whatever there is in a file, the answer is a data set or one line that says what is wrong."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ppdgm.data import Dataset, Source, Stream, as_fields, load_data
from ppdgm.errors import PpdgmError

options = st.fixed_dictionaries(
    {},
    optional={
        "scale": st.sampled_from(["auto", "none", "unit", "levels", "standardise"]),
        "binarise": st.sampled_from(["auto", "none", "threshold", "static", "dynamic"]),
        "validation": st.integers(0, 3) | st.floats(0.1, 0.9),
        "test": st.integers(0, 3) | st.floats(0.1, 0.9),
        "memory": st.sampled_from([1, 2**30]),
        "fields": st.sampled_from(
            [["x"], ["x", "label"], {"y": "x"}, {"x": "arr_0"}, {"x": [0]}, {"x": 0, "label": 1}]
        ),
    },
)
kinds = st.one_of(
    arrays.floating_dtypes(endianness="?"),
    arrays.integer_dtypes(),
    arrays.unsigned_integer_dtypes(),
    arrays.boolean_dtypes(),
    arrays.complex_number_dtypes(),
    arrays.unicode_string_dtypes(max_len=3),
    arrays.byte_string_dtypes(max_len=3),
    arrays.datetime64_dtypes(),
)
anything = arrays.arrays(kinds, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def loads_or_says_why(path, chosen):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            data = load_data(path, **chosen)
        except PpdgmError as error:
            assert "\n" not in str(error)
            return
    assert isinstance(data, Dataset) and isinstance(data.source, Source) and repr(data)
    data.describe()
    for split in (data.train, data.validation, data.test):
        if split is not None:
            fields = as_fields(split, "float64")
            assert all(np.isfinite(a).all() for a in fields.values() if not isinstance(a, Stream))
    x = data.train["x"] if isinstance(data.train, dict) and "x" in data.train else data.train
    if data.source.binarise in ("static", "threshold") and not isinstance(x, dict):
        assert set(np.unique(x)) <= {0, 1}


@given(array=anything, chosen=options)
@fuzzed
def test_any_array_in_npy(array, chosen):
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", array)
        loads_or_says_why(Path(folder) / "x.npy", chosen)


names = st.sampled_from(["x", "label", "mask", "x_train", "x_test", "train", "y", "arr_0"])


@given(named=st.dictionaries(names, anything, max_size=3), chosen=options)
@fuzzed
def test_any_arrays_in_npz(named, chosen):
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "x.npz", **named)
        loads_or_says_why(Path(folder) / "x.npz", chosen)


cells = st.one_of(
    st.floats().map(str), st.integers().map(str), st.text(max_size=4), st.sampled_from(["", "NA", '"', "1_0"])
)
tables = st.lists(st.lists(cells, max_size=4).map(",".join), max_size=5).map("\n".join)


@given(content=tables | st.text(max_size=40), chosen=options)
@fuzzed
@example(content="0.0,8.98846567431158e+307,0.0", chosen={})  # a difference that overflows
def test_any_text_in_a_table(content, chosen):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.csv").write_text(content, encoding="utf-8", errors="replace", newline="")
        loads_or_says_why(Path(folder) / "x.csv", chosen)


STARTS = [
    b"",
    b"\x93NUMPY\x01\x00",
    b"PK\x03\x04",
    b"\0\0\x08\x01",
    b"\0\0\x0d\x02\0\0\0\1\0\0\0\1",
    b"\x1f\x8b\x08\0",
    b"\x89PNG",
]
NAMES = ["x.npy", "x.npz", "x-idx1", "x-idx1.gz", "x.csv", "x.bin", "images/x.png"]


@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=60), name=st.sampled_from(NAMES), chosen=options)
@fuzzed
def test_any_bytes_in_any_file(start, rest, name, chosen):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(start + rest)
        loads_or_says_why(path.parent if name.startswith("images") else path, chosen)


@given(where=st.integers(0, 2000), value=st.integers(0, 255), name=st.sampled_from(["x.npy", "x.npz"]))
@fuzzed
def test_any_byte_of_a_file_may_be_damaged(where, value, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        np.save(path, np.arange(90.0).reshape(30, 3)) if name == "x.npy" else np.savez(
            path, x=np.arange(90.0), label=np.arange(90)
        )
        content = bytearray(path.read_bytes())
        content[where % len(content)] = value
        path.write_bytes(content)
        loads_or_says_why(path, {})


@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2) | anything, st.lists
    )
)
@fuzzed
def test_any_value_as_fields(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fields = as_fields(data)
        except PpdgmError:
            return
    assert fields["x"].dtype == np.float32 and len(fields["x"]) > 0
