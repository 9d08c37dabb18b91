"""Whatever is wrong with data is said in one line: which, where, and what to do."""

import re

import numpy as np
import pytest
from PIL import Image

from ppdgm.data import Transform, as_fields, check_finite, load_data
from ppdgm.errors import DataError, PpdgmError
from ppdgm.inference.evaluation.estimates import check_fields
from ppdgm.models import PPCA

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
NAN = np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 0.5)


def npy(array):
    return lambda folder: np.save(folder / "d.npy", array, allow_pickle=True)


def npz(**named):
    return lambda folder: np.savez(folder / "d.npz", **named)


def text(content, name="d.csv"):
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def images(**files):
    def write(folder):
        for name, image in files.items():
            path = folder / "d" / name.replace("_", "/")
            path = path.with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image) if isinstance(image, bytes) else Image.fromarray(image).save(path)

    return write


def empty_folder(folder):
    (folder / "d").mkdir()


def damaged(name, keep, **named):
    def write(folder):
        np.save(folder / name, np.arange(90.0)) if name.endswith("npy") else np.savez(folder / name, x=np.arange(90.0))
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return write


FILES = {
    # name: (what is written, what is loaded, options, what is said)
    "nan": (npy(NAN), "d.npy", {}, ["Data 'x': got nan at index (2, 1), expected finite numbers. 1 of 4 rows"]),
    "inf to levels": (
        npy(np.full((4, 3), -np.inf)),
        "d.npy",
        {"memory": 1, "scale": "levels"},
        ["got -inf at index (0, 0)"],
    ),
    "nan in a stream": (npy(NAN), "d.npy", {"memory": 1, "binarise": "static"}, ["got nan at index (2, 1)"]),
    "nan to standardise": (npy(NAN), "d.npy", {"memory": 1, "scale": "standardise"}, ["got nan at index (2, 1)"]),
    "nan in a label": (npz(x=np.ones((4, 3)), label=[0, 1, np.inf, 1]), "d.npz", {}, ["'label'", "index (2,)"]),
    "nan in a split": (npz(x_train=np.ones((9, 3)), x_test=NAN), "d.npz", {}, ["'x of test'", "index (2, 1)", "of 4"]),
    "no data": (npy(np.empty((0, 3))), "d.npy", {}, ["empty array of shape (0, 3), expected at least one row"]),
    "data without numbers": (npy(np.empty((3, 0))), "d.npy", {}, ["empty array of shape (3, 0)"]),
    "a number": (npy(np.float64(3)), "d.npy", {}, ["got the single number 3.0, expected an array of rows"]),
    "objects": (
        npy(np.array([{}, []], object)),
        "d.npy",
        {},
        ["d.npy: got Python objects", "np.save(path, np.asarray"],
    ),
    "rows of different lengths": (npy(np.array([[1], [2, 3]], object)), "d.npy", {}, ["Python objects"]),
    "objects in npz": (npz(x=np.array([{}], object)), "d.npz", {}, ["Python objects as 'x'", "np.save(path"]),
    "text": (npy(np.array(["a", "b"])), "d.npy", {}, ["Data 'x': got text, expected real numbers"]),
    "complex numbers": (npy(np.array([1j])), "d.npy", {}, ["got complex128, expected real numbers"]),
    "dates": (npy(np.array(["2020-01-01"], "M8[D]")), "d.npy", {}, ["got datetime64[D]"]),
    "different lengths": (npz(x=np.ones((4, 2)), mask=np.ones(3)), "d.npz", {}, ["fields of {'x': 4, 'mask': 3} rows"]),
    "too few labels": (npz(x=np.ones((4, 2)), label=np.ones(3)), "d.npz", {}, ["fields of {'x': 4, 'label': 3} rows"]),
    "another shape": (
        npz(x_train=np.ones((9, 2)), x_test=np.ones((9, 3))),
        "d.npz",
        {},
        ["'x of test'", "(3,)", "(2,)"],
    ),
    "another type": (npz(x_train=np.ones((9, 2)), x_test=np.ones((9, 2), "u1")), "d.npz", {}, ["uint8", "float64"]),
    "no training data": (npz(x_test=np.ones(3)), "d.npz", {}, ["got arrays 'x_test', expected fields such as 'x'"]),
    "a split twice": (
        npz(train=np.ones(9), x_train=np.ones(9)),
        "d.npz",
        {},
        ["several arrays 'x' for train", "'x_train'"],
    ),
    "fields of a split": (
        npz(x_train=np.ones(9), mask_train=np.ones(9), x_test=np.ones(9)),
        "d.npz",
        {},
        ["got fields ['x'] for test, expected ['x', 'mask'], as for train"],
    ),
    "no x": (npz(a=np.ones(3), b=np.ones(3)), "d.npz", {}, ["arrays 'a', 'b', expected one named 'x'", "fields={"]),
    "no such array": (
        npz(image=np.ones(3)),
        "d.npz",
        {"fields": {"x": "imag"}},
        ["no array 'imag'. Did you mean 'image'?"],
    ),
    "a column of an array": (
        npz(x=np.ones(3)),
        "d.npz",
        {"fields": {"x": [0]}},
        ["got (0,), expected the name of an array"],
    ),
    "an empty npz": (npz(), "d.npz", {}, ["none"]),
    "half an npy": (damaged("d.npy", 0.5), "d.npy", {}, ["d.npy is not a complete .npy file"]),
    "half an npy, streamed": (damaged("d.npy", 0.5), "d.npy", {"memory": 1}, ["d.npy is not a complete .npy file"]),
    "a piece of an npy": (damaged("d.npy", 0.05), "d.npy", {}, ["d.npy is not a complete .npy file"]),
    "half an npz": (damaged("d.npz", 0.5), "d.npz", {}, ["d.npz is not a complete .npz file"]),
    "an empty file": (text("", "d.npy"), "d.npy", {}, ["d.npy is not a complete .npy file"]),
    "another kind of file": (text("hello", "d.bin"), "d.bin", {}, ["expected .npy, .npz, .csv", "np.save"]),
    "no file": (
        empty_folder,
        "e.npy",
        {},
        ["No file or folder", "e.npy' in ", ". Known: collapse-diagonal, collapse-full, digits"],
    ),
    "an empty folder": (empty_folder, "d", {}, ["got no images, expected files ending in .png"]),
    "negative numbers to unit": (
        npy(np.array([3, -1])),
        "d.npy",
        {"scale": "unit"},
        ["got -1 at index (1,)", "scale='unit'"],
    ),
    "levels of fractions": (npy(np.array([3, 1.5])), "d.npy", {"scale": "levels"}, ["got 1.5 at index (1,)", "0..255"]),
    "levels above 255": (npy(np.array([3, 256])), "d.npy", {"scale": "levels"}, ["got 256 at index (1,)"]),
    "binarise what is not in [0, 1]": (
        npy(np.array([0.5, 2])),
        "d.npy",
        {"binarise": "static"},
        ["2.0 at index (1,)", "'unit'"],
    ),
    "binarise what is standardised": (
        npy(np.array([0.5, 2])),
        "d.npy",
        {"binarise": "dynamic", "scale": "standardise"},
        ["Got scale='standardise', but binarise needs x in [0, 1]. Give scale='unit'"],
    ),
    "standardise huge numbers": (npy(np.array([1e308, -1e308])), "d.npy", {"scale": "standardise"}, ["too large"]),
    "standardise tiny numbers": (  # the first is no constant, though its variance is 0 in float64
        npy(np.arange(4.0)[:, None] * [1e-170, 1]),
        "d.npy",
        {"scale": "standardise"},
        ["x[:, 0]", "too small"],
    ),
    "two names of labels": (
        npz(x=np.ones(9), y=np.arange(9), label=np.zeros(9, int)),
        "d.npz",
        {},
        ["got arrays 'y' and 'label'", 'fields={"x": "x", "label": "y"}'],
    ),
    "scale without x": (
        npz(a=np.ones(9)),
        "d.npz",
        {"fields": {"y": "a"}, "scale": "unit"},
        ["got scale or binarise, but there is no field 'x'"],
    ),
    "nothing left": (
        npy(np.ones(9)),
        "d.npy",
        {"validation": 5, "test": 4},
        ["validation=5, test=4", "got 9 rows, and none is left"],
    ),
    "more than there are": (npy(np.ones(9)), "d.npy", {"test": 10}, ["test=10", "got 9 rows, and none is left"]),
    "fractions of too much": (
        npy(np.ones(10)),
        "d.npy",
        {"validation": 0.5, "test": 0.5},
        ["0.5", "got 10 rows, and none is left"],
    ),
    "a fraction of too little": (
        npy(np.ones(9)),
        "d.npy",
        {"test": 0.01},
        ["the fraction 0.01 of 9 rows, which is no row"],
    ),
    "more than the split has": (
        npz(x_train=np.ones(9), x_test=np.ones(4)),
        "d.npz",
        {"test": 5},
        ["test: got 5, expected at most 4, the rows"],
    ),
    # tables
    "a word": (
        text("a,b\n1,2\n3,x\n"),
        "d.csv",
        {},
        ["d.csv, line 3, column 'b': got 'x', expected a number", "\"label\": 'b'"],
    ),
    "a quotation without end": (
        text('a,note\n1,x\n2,"y\n3,z\n4,z\n'),
        "d.csv",
        {"fields": {"x": ["a"]}},
        ["d.csv, line 3: got a quotation mark", "that is not closed"],
    ),
    "rows within a quotation": (
        text('a,label\n1,"big\n2,small"\n3,big\n'),
        "d.csv",
        {},
        ["line 3, column 'label': got 'big\\n2", "Is a quotation mark missing?"],
    ),
    "an index that is data too": (
        text("id,a,b\n7,1,2\n8,3,4\n"),
        "d.csv",
        {"index": True, "fields": {"x": [0, 1]}},
        ["index: got True, but field 'x' uses the first column, 'id'"],
    ),
    "a word without header": (text("1,2\n3,x\n"), "d.csv", {}, ["line 2, column 1: got 'x'", '"label": 1']),
    "a word in the first line": (
        text("1x,2\n3,4\n"),
        "d.csv",
        {},
        ["line 1: got 1x, 2", "header=True or header=False (--header or --no-header)"],
    ),
    "nothing in a cell": (
        text("a,b\n1,2\n,3\n"),
        "d.csv",
        {},
        ["line 3, column 'a': got '', a missing value. Fill it in"],
    ),
    "whole numbers beyond a float's": (
        text("a,b\n1,2\n3,9007199254740993\n"),
        "d.csv",
        {"fields": {"x": ["a"], "b": "b"}},
        ["line 3, column 'b': got 9007199254740993, a whole number beyond 2⁵³"],
    ),
    "NA": (text("a,b\n1,2\n3,NA\n"), "d.csv", {}, ["line 3, column 'b': got 'NA', a missing value"]),
    "NaN": (text("a,b\n\n1,2\n3,NaN\n"), "d.csv", {}, ["line 4, column 'b': got nan, expected a finite number"]),
    "infinity": (text("a,b\n1,2\n3,1e999\n"), "d.csv", {}, ["line 3, column 'b': got inf"]),
    "Python's underscore": (
        text("a,b\n1,2\n3,1_0\n"),
        "d.csv",
        {},
        ["line 3, column 'b': got '1_0', expected a number"],
    ),
    "a short row": (text("a,b\n1,2\n3\n"), "d.csv", {}, ["line 3: got 1 cells, expected 2"]),
    "a long row": (text("1,2\n3,4,5\n"), "d.csv", {}, ["line 2: got 3 cells, expected 2"]),
    "an empty table": (text("\n\n"), "d.csv", {}, ["d.csv: got an empty file"]),
    "a header alone": (text("a,b\n"), "d.csv", {}, ["d.csv has a header, but no rows"]),
    "a missing name": (
        text("a,g\n1,x\n2,\n"),
        "d.csv",
        {"fields": {"x": "a", "g": "g"}},
        ["line 3, column 'g': got '', a missing value"],
    ),
    "an infinite label": (text("a,label\n1,1\n2,inf\n"), "d.csv", {}, ["line 3, column 'label': got inf"]),
    "no such column": (
        text("age,b\n1,2\n"),
        "d.csv",
        {"fields": {"x": "aeg"}},
        ["no column 'aeg'. Did you mean 'age'?"],
    ),
    "a column twice": (text("a,a\n1,2\n"), "d.csv", {"fields": {"x": "a"}}, ["several columns 'a'"]),
    "a name without header": (
        text("1,2\n"),
        "d.csv",
        {"fields": {"x": "a"}},
        ["has no header: got column 'a', expected a number from 0 to 1"],
    ),
    "a number too large": (
        text("1,2\n"),
        "d.csv",
        {"fields": {"x": [0, 2]}},
        ["no column 2, expected a number from 0 to 1"],
    ),
    "another encoding": (text("a,b\n1,é\n".encode("latin-1")), "d.csv", {}, ["is not text in UTF-8"]),
    "no text": (text(b"a,b\n1,\0\n"), "d.csv", {}, ["d.csv"]),
    # images
    "another size": (
        images(a=GREY, b=GREY, c=GREY[:2]),
        "d",
        {},
        ["c.png: got 2×4, grey, 8 bits, expected 3×4", "like a.png"],
    ),
    "another mode": (
        images(a=GREY, b=np.stack([GREY] * 3, -1)),
        "d",
        {},
        ["b.png: got 3×4, in colour", "expected 3×4, grey"],
    ),
    "half an image": (images(a=GREY, b=b"\x89PNG\r\n\x1a\n0000"), "d", {}, ["b.png is not a complete image"]),
    "no class": (images(a=GREY, cat_b=GREY), "d", {}, ["a.png: got an image outside the folders of classes (cat"]),
    "no training images": (images(test_a=GREY), "d", {}, ["got the folders test, expected 'train' too"]),
    "an empty split": (images(train_a=GREY), "d", {}, []),
}


@pytest.mark.parametrize("case", FILES)
def test_mistakes_in_files(tmp_path, case):
    write, name, options, words = FILES[case]
    write(tmp_path)
    if case == "an empty split":
        (tmp_path / "d" / "test").mkdir()
        words = ["test: got no images"]
    with pytest.raises(DataError) as error:
        load_data(tmp_path / name, **options)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert not re.search(r"np\.\w+\d\(", str(error.value))  # numbers as people write them


CALLS = {
    "a name": (lambda: load_data("mnst"), "Unknown data set 'mnst'. Did you mean 'mnist'?"),
    "no home": (lambda: load_data("~nobody-of-this-name/x.npy"), "~nobody-of-this-name/x.npy can't be found"),
    "no text": (lambda: load_data("a\0b"), "Unknown data set 'a\\x00b'."),
    "a name too long": (lambda: load_data("a" * 5000), "File name too long"),
    "no name": (lambda: load_data(3), "the single number 3, expected an array of rows"),
    "an empty name": (lambda: load_data(""), "Source.name: got ''"),
    "an old option": (
        lambda: load_data("digits", binarised=True),
        "Source has no field 'binarised'. Did you mean 'binarise'?",
    ),
    "a scale": (lambda: load_data("digits", scale="uint"), "Source.scale: got 'uint'"),
    "all of it": (
        lambda: load_data("digits", test=1.0),
        "to have all rows in one split, give validation=0, test=0 and use data.train.",
    ),
    "all rows": (
        lambda: load_data("digits", test=1797),
        "To have all rows in one split, give validation=0, test=0 and use data.train.",
    ),
    "a fraction": (
        lambda: load_data("digits", test=1.5),
        "Source.test: got 1.5; expected a fraction between 0 and 1, a number of rows or None.",
    ),
    "a negative number": (lambda: load_data("digits", test=-1), "Source.test: got -1; expected a fraction"),
    "yes": (lambda: load_data("digits", validation=True), "Source.validation: got True"),
    "fields": (lambda: load_data("digits", fields="x"), "Source.fields: got 'x'; expected fields with their arrays"),
    "no fields": (lambda: load_data("digits", fields={}), "Source.fields: got {}"),
    "a field twice": (lambda: load_data("digits", fields=[("x", "x"), ("x", "label")]), "Source.fields: got"),
    "a field of nothing": (lambda: load_data("digits", fields={"x": []}), "Source.fields: got {'x': []}"),
    "a field of a number": (lambda: load_data("digits", fields={"x": 1.5}), "Source.fields: got {'x': 1.5}"),
    "an unknown array": (lambda: load_data("digits", fields={"x": "lable"}), "no array 'lable'. Did you mean 'label'?"),
    "no bytes": (lambda: load_data("digits", memory=0), "Source.memory: got 0"),
    "a transform": (
        lambda: load_data("digits", transform={"kind": "unit"}),
        "transform: got dict, expected a Transform",
    ),
    "a transform of another shape": (
        lambda: load_data("digits", transform=Transform("standardise", 1.0, np.zeros(3), np.ones(3)), binarise="none"),
        "got data of shape (8, 8), expected (3,)",
    ),
    "binarised levels": (lambda: load_data("digits", scale="levels", binarise="static"), "Give scale='unit'"),
    "too much": (lambda: load_data("digits", validation=1500, test=297), "got 1797 rows, and none is left to train on"),
}


@pytest.mark.parametrize("case", CALLS)
def test_mistakes_in_calls(case):
    call, message = CALLS[case]
    with pytest.raises(PpdgmError) as error:
        call()
    assert message in str(error.value)


ARRAYS = {
    "no rows": (np.empty((0, 2)), "Data 'x': got an empty array of shape (0, 2), expected at least one row"),
    "no fields": ({}, "got fields of no rows"),
    "different lengths": ({"x": [1.0], "y": [1, 2]}, "got fields of {'x': 1, 'y': 2} rows"),
    "too large": ([[0.0], [-1e300]], "Data 'x': got -1e+300 at index (1, 0), expected numbers that fit float32"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_mistakes_in_arrays(case):
    data, message = ARRAYS[case]
    with pytest.raises(DataError) as error:
        as_fields(data)
    assert message in str(error.value)


def test_a_whole_set_where_a_split_is_meant():
    with pytest.raises(DataError, match=r"got Dataset\('digits'.*data\.train"):
        as_fields(load_data("digits"))


def test_one_row_where_rows_are_meant():
    program = PPCA(event_shape=(3,), latent=1)
    with pytest.raises(DataError, match=r"one row of shape \(3,\).*x\[None\]"):
        check_fields(program, as_fields([1.0, 2.0, 3.0]))


def test_every_field_has_to_be_finite():
    for name in ("x", "label", "mask"):
        fields = as_fields({"x": [1.0, 2.0], "label": [0.0, 1.0], "mask": [1.0, 1.0]}, "float64")
        fields[name][1] = np.inf
        with pytest.raises(DataError, match=rf"Data '{name}': got inf at index \(1,\)"):
            check_finite(fields)
