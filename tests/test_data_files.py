"""Files: what is written by NumPy, by the csv module, by PIL or by hand comes back as it was."""

import gzip
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ppdgm.data import Source, as_fields, load_data
from ppdgm.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
LABEL = RNG.integers(0, 3, 30)
WHOLE = {"validation": 0, "test": 0}
DTYPES = ["<f4", ">f4", "f2", "f8", "u1", "<i2", ">i4", "i8", "u8", "?"]
IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def idx_bytes(array, code=8):
    header = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(IDX_TYPES[code]).tobytes()


def whole(path, **options):
    return load_data(path, **WHOLE, **options)


# --- NumPy's -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 2**30])
@pytest.mark.parametrize("dtype", DTYPES)
def test_npy_of_every_type(tmp_path, dtype, memory):
    x = np.round(X * 20).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    data = whole(tmp_path / "x.npy", scale="none", memory=memory)
    assert np.array_equal(np.asarray(data.train), x) and data.train.dtype.isnative
    assert data.train.dtype == (
        np.float64 if np.dtype(dtype).itemsize > 2 and dtype not in ("<f4", ">f4") else np.float32
    )
    assert data.event_shape == (4,) and data.labels == {}


def test_a_path_may_be_an_object_or_start_at_home(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert np.array_equal(whole("~/x.npy").train, whole(tmp_path / "x.npy").train)
    (tmp_path / "x.npy").rename(tmp_path / "array")  # what it is shows in how it starts
    assert np.array_equal(whole(tmp_path / "array").train, X)


def test_npz_of_named_fields(tmp_path):
    mask = X > 0
    np.savez(tmp_path / "x.npz", x=X, label=LABEL, mask=mask)
    data = load_data(tmp_path / "x.npz")
    order = np.random.default_rng(0).permutation(30)
    assert list(data.train) == ["x", "mask"]
    for name, rows in {"train": order[:24], "validation": order[24:27], "test": order[27:]}.items():
        assert np.array_equal(getattr(data, name)["x"], X[rows])
        assert np.array_equal(getattr(data, name)["mask"], mask[rows])
        assert np.array_equal(data.labels[name], LABEL[rows])
    asked = load_data(tmp_path / "x.npz", fields={"x": "x", "y": "label"})
    assert list(asked.train) == ["x", "y"] and np.array_equal(asked.train["y"], data.labels["train"])


@pytest.mark.parametrize(
    "names", [("x_train", "x_test", "label_train", "label_test"), ("train_X", "test_X", "y_train", "test_y")]
)
def test_npz_that_is_split_already(tmp_path, names):
    arrays = (X, X[:7] + 1, LABEL, LABEL[:7])
    np.savez_compressed(tmp_path / "x.npz", **dict(zip(names, arrays, strict=True)))
    data = load_data(tmp_path / "x.npz")
    order = np.random.default_rng(0).permutation(30)
    assert np.array_equal(data.train, X[order[:27]]) and np.array_equal(data.validation, X[order[27:]])
    assert np.array_equal(data.test, X[:7] + 1) and np.array_equal(data.labels["test"], LABEL[:7])
    few = load_data(tmp_path / "x.npz", test=3, validation=0)
    assert few.validation is None and len(few.train) == 30
    rows = np.random.default_rng(0).permutation(7)[:3]
    assert np.array_equal(few.test, X[rows] + 1) and np.array_equal(few.labels["test"], LABEL[rows])


def test_npz_of_whole_splits(tmp_path):
    np.savez(tmp_path / "x.npz", train=X, validation=X[:3], test=X[:2])
    data = load_data(tmp_path / "x.npz")
    assert [len(a) for a in (data.train, data.validation, data.test)] == [30, 3, 2]
    np.savez(tmp_path / "y.npz", X)
    assert np.array_equal(whole(tmp_path / "y.npz").train, X)


def test_labels_in_words(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=X, x_test=X, label_train=np.array(["b", "a"] * 15), label_test=["c"] * 30)
    data = load_data(tmp_path / "x.npz", validation=0)
    assert data.classes == {"label": ("a", "b", "c")}
    assert data.labels["train"].tolist() == [1, 0] * 15 and data.labels["test"].tolist() == [2] * 30
    assert data.describe()["labels"] == {"train": {"a": 15, "b": 15}, "test": {"c": 30}}
    field = load_data(tmp_path / "x.npz", validation=0, fields=["x", "label"])
    assert field.train["label"].tolist() == field.labels["train"].tolist() == [1, 0] * 15


def test_folder_of_npy(tmp_path):
    for name, array in {"x_train": X, "x_test": X[:5], "label_train": LABEL, "label_test": LABEL[:5]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    data = load_data(tmp_path, validation=0)
    assert np.array_equal(data.train, X) and np.array_equal(data.labels["test"], LABEL[:5])


# --- idx -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", IDX_TYPES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("memory", [1, 2**30])
def test_idx(tmp_path, code, packed, memory):
    x = np.round(RNG.normal(size=(5, 3, 2)) * 20).astype(IDX_TYPES[code])
    path = tmp_path / ("x-idx3.gz" if packed else "x-idx3")
    path.write_bytes(gzip.compress(idx_bytes(x, code)) if packed else idx_bytes(x, code))
    data = whole(path, scale="none", memory=memory)
    assert np.array_equal(np.asarray(data.train), x) and data.event_shape == (3, 2)
    assert ("streamed" in repr(data)) == (memory == 1 and not packed)


def test_folder_of_idx(tmp_path):
    x = RNG.integers(0, 256, (20, 3, 2)).astype("u1")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(x)))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx_bytes(np.arange(20) % 3))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(x[:4]))
    data = load_data(tmp_path, validation=0, scale="levels", fields={"x": "x"})
    assert np.array_equal(data.train, x) and np.array_equal(data.test, x[:4])
    assert data.labels["train"].tolist() == [i % 3 for i in range(20)] and "test" not in data.labels


# --- tables --------------------------------------------------------------------------------------------------------

ROWS = [[0.5, -1, 2e3], [1, 2, 3], [4, 5, 6]]
TABLES = {
    "header": ("t.csv", "a,b,c\n0.5,-1,2e3\n1,2,3\n4,5,6\n", {}),
    "no header": ("t.csv", "0.5,-1,2e3\n1,2,3\n4,5,6", {}),
    "tabs": ("t.tsv", "a\tb\tc\n0.5\t-1\t2e3\n1\t2\t3\n4\t5\t6\n", {}),
    "semicolons": ("t.csv", "a;b;c\r\n0.5;-1;2e3\r\n1;2;3\r\n4;5;6\r\n", {}),
    "quotes, blanks and a mark": ("t.csv", '\ufeff"a","b","c, d"\n\n "0.5", -1 ,2e3\n1,2,"3"\n\n4,5,6\n\n', {}),
    "by name": ("t.csv", "c,id,a,b\n2e3,9,0.5,-1\n3,9,1,2\n6,9,4,5\n", {"fields": {"x": ["a", "b", "c"]}}),
    "by number": ("t.csv", "2e3,x,0.5,-1\n3,x,1,2\n6,x,4,5\n", {"fields": {"x": [2, -1, 0]}}),
    "label aside": ("t.csv", "a,Label,b,c\n0.5,x,-1,2e3\n1,y,2,3\n4,x,5,6\n", {}),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables(tmp_path, case):
    name, text, options = TABLES[case]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    data = whole(tmp_path / name, **options)
    assert data.train.tolist() == ROWS and data.event_shape == (3,)
    assert (data.classes, len(data.labels)) == (({"label": ("x", "y")}, 1) if case == "label aside" else ({}, 0))


def test_fields_of_a_table(tmp_path):
    path = tmp_path / "iris.csv"
    path.write_text("a,b,weight,species,n\n1,2,0.5,setosa,3\n3,4,1,virginica,4\n5,6,2,setosa,5\n")
    fields = {"x": ["b", "a"], "label": "species", "w": "weight", "n": "n"}
    data = whole(path, fields=fields)
    assert data.train["x"].tolist() == [[2, 1], [4, 3], [6, 5]] and data.train["w"].tolist() == [0.5, 1, 2]
    assert data.train["label"].tolist() == [0, 1, 0] and data.classes["label"] == ("setosa", "virginica")
    assert data.train["n"].tolist() == [3, 4, 5]
    assert [as_fields(data.train)[n].dtype.kind for n in ("x", "label", "w", "n")] == ["f", "i", "f", "i"]
    assert data.labels["train"].tolist() == [0, 1, 0]
    assert whole(path, fields={"x": "weight"}).train.tolist() == [0.5, 1, 2]
    again = load_data(Source.from_toml(data.source.to_toml()))
    assert again.train["x"].tolist() == data.train["x"].tolist()


# What pandas writes of `DataFrame([[0.5, -1.5], …])`, named or not, with and without its index.
NAMELESS = "0,1\n0.5,-1.5\n1.5,2.5\n2.5,3.5\n3.5,4.5\n4.5,5.5\n"
INDEXED = ",0,1\n0,0.5,-1.5\n1,1.5,2.5\n2,2.5,3.5\n3,3.5,4.5\n4,4.5,5.5\n"
NAMED = INDEXED.replace(",0,1", ",a,b")
TABLE = [[0.5, -1.5], [1.5, 2.5], [2.5, 3.5], [3.5, 4.5], [4.5, 5.5]]
COUNTED = [[float(i), *row] for i, row in enumerate(TABLE)]
COMMAS = np.random.default_rng(3).normal(size=40)


@pytest.mark.parametrize("form", ["{:.1f}", "{:.2f}", "{:.6f}", "{:g}", "{:.3g}"])
@pytest.mark.parametrize("count", [5, 40])
def test_a_column_with_decimal_commas_is_not_two_columns(tmp_path, form, count):
    cells = [form.format(abs(v) * 10).replace(".", ",") for v in COMMAS[:count]]
    cells = [c if "," in c else f"{c},0" for c in cells]
    (tmp_path / "t.csv").write_text("\n".join(cells))
    with pytest.raises(DataError, match=r"two columns, or one with decimal commas\? For two, give fields"):
        load_data(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("\n".join(cells[:2]).replace(cells[0], "-0,5"))
    with pytest.raises(DataError, match="decimal commas"):
        load_data(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("\n".join(cells))
    data = load_data(tmp_path / "t.csv", fields={"x": [0, 1]}, validation=0, test=0)
    assert data.train.tolist() == [[float(a), float(b)] for a, b in (c.split(",") for c in cells)]


def test_two_columns_of_whole_numbers_are_two(tmp_path):
    """Of 20 tables of counts none is asked about: some end in 0, and others have other lengths; nor one of signs."""
    rng = np.random.default_rng(0)
    for made in [*(rng.poisson(10, (60, 2)) for _ in range(20)), rng.integers(-9, 9, (60, 2))]:
        (tmp_path / "t.csv").write_text("\n".join(f"{a},{b}" for a, b in made.tolist()))
        assert load_data(tmp_path / "t.csv", validation=0, test=0).train.tolist() == made.tolist()


ASKED = {  # a table's text, what is asked of it, what either answer makes of it
    "pandas without names": (NAMELESS, "header", TABLE, [[0, 1], *TABLE]),
    "pandas' names in quotes": (NAMELESS.replace("0,1", '"0","1"'), "header", TABLE, [[0, 1], *TABLE]),
    "years": ("2001,2002,2003\n4,4,5\n", "header", [[4, 4, 5]], [[2001, 2002, 2003], [4, 4, 5]]),
    "wavelengths": ("350.5,351,351.5\n.1,.3,.2\n", "header", [[0.1, 0.3, 0.2]], [[350.5, 351, 351.5], [0.1, 0.3, 0.2]]),
    "whole numbers above others": ("7,3\n0.5,0.1\n", "header", [[0.5, 0.1]], [[7, 3], [0.5, 0.1]]),
    "one column": ("0\n3\n5\n", "header", [[3], [5]], [[0], [3], [5]]),
    "an index without a name": (NAMED, "index", TABLE, COUNTED),
    "an index of pandas' second writing": (NAMED.replace(",a", "Unnamed: 0,a"), "index", TABLE, COUNTED),
    "an index with a name": ("i" + NAMED, "index", TABLE, COUNTED),
    "an index without header": (NAMED.partition("\n")[2], "index", TABLE, COUNTED),
    "an index from 1": ("i,a\n1,5\n2,6\n3,7\n4,8\n5,1\n", "index", [[5], [6], [7], [8], [1]], None),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_a_header_of_numbers_and_an_index_are_asked_for(tmp_path, case):
    text, what, yes, no = ASKED[case]
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=rf"{what}=True or {what}=False \(--{what} or --no-{what}\)"):
        whole(tmp_path / "t.csv")
    data = whole(tmp_path / "t.csv", **{what: True})
    assert data.train.tolist() == yes
    assert load_data(Source.from_toml(data.source.to_toml())).train.tolist() == yes
    if no is not None:
        assert whole(tmp_path / "t.csv", **{what: False}).train.tolist() == no


LABELLED = "a,b,{}\n" + "".join(f"{7 * i % 5},{i / 2},{'uv'[i % 2] if i % 3 else ''}\n" for i in range(12))


@pytest.mark.parametrize("label", ["label", "Labels"])
def test_bare_names_are_the_label_and_all_other_columns(tmp_path, label):
    """fields=["x", "label"], as of named arrays; a missing label is −1."""
    (tmp_path / "d.csv").write_text(LABELLED.format(label))
    options = {"validation": 0, "test": 0}
    found = load_data(tmp_path / "d.csv", fields=["x", "label"], **options).train
    asked = load_data(tmp_path / "d.csv", fields={"x": ["a", "b"], "label": label}, **options).train
    i = np.arange(12)
    assert np.array_equal(found["x"], np.stack([7 * i % 5, i / 2], 1)) and np.array_equal(found["x"], asked["x"])
    assert np.array_equal(found["label"], np.where(i % 3, i % 2, -1)) and np.array_equal(found["label"], asked["label"])
    assert load_data(tmp_path / "d.csv", fields=["x"], **options).train.shape == (12, 2)
    (tmp_path / "d.csv").write_text(LABELLED.format(label).replace("a,b", "x,b"))
    assert load_data(tmp_path / "d.csv", fields=["x", "label"], **options).train["x"].shape == (12,)  # a column x


def test_bare_names_where_the_first_column_may_be_an_index(tmp_path):
    rows = "".join(f"{i},{i / 2},{i % 3}\n" for i in range(12))
    (tmp_path / "d.csv").write_text(f"n,a,label\n{rows}")
    with pytest.raises(DataError, match=r"'n', that counts the rows.*index=True or index=False"):
        load_data(tmp_path / "d.csv", fields=["x", "label"])
    for index, columns in ((True, 1), (False, 2)):
        found = load_data(tmp_path / "d.csv", fields=["x", "label"], index=index, validation=0, test=0)
        assert found.train["x"].shape == (12, columns) and found.train["label"].tolist() == [i % 3 for i in range(12)]


@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
def test_packed_tables(tmp_path, name):
    text = LABELLED.format("label").replace(",", "\t" if name == "d.tsv" else ",")
    (tmp_path / name).write_text(text)
    whole = gzip.compress(text.encode())
    (tmp_path / f"{name}.gz").write_bytes(whole)
    for fields in (None, ["x", "label"]):
        found = [load_data(tmp_path / n, fields=fields, header=True).train for n in (name, f"{name}.gz")]
        left, right = (as_fields(f) for f in found)
        assert left.keys() == right.keys() and all(np.array_equal(left[n], right[n]) for n in left)
    for cut, told in ((whole[:40], "not a complete gzip file"), (b"a,b\n1,2\n", "Not a gzipped file")):
        (tmp_path / f"{name}.gz").write_bytes(cut)
        with pytest.raises(DataError, match=told):
            load_data(tmp_path / f"{name}.gz")


def test_a_blank_index_beside_names_that_are_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(INDEXED)
    with pytest.raises(DataError, match="line 1: got '', 0, 1, which may be names"):
        whole(path)
    with pytest.raises(DataError, match=r"first column without a name, like an index that pandas .* index=True"):
        whole(path, header=True)
    assert whole(path, header=True, index=True).train.tolist() == TABLE
    words = "".join(f"{w}{line}\n" for w, line in zip(",abcde"[1:], NAMED.split("\n")[1:6], strict=True))
    path.write_text(",a,b\n" + words)  # names of rows
    assert whole(path, index=True).train.tolist() == TABLE
    path.write_text("g,a,2001\nx,4,5\nx,3,7\ny,2,8\n")  # a name above words hides no names above numbers
    with pytest.raises(DataError, match="line 1: got g, a, 2001"):
        whole(path, fields={"x": [1, 2]})
    assert whole(path, fields={"x": ["a", "2001"]}, header=True).train.tolist() == [[4, 5], [3, 7], [2, 8]]


@pytest.mark.parametrize(
    "text", ["0,0,1\n1,0,1\n", "1,2\n3,4\n", "5.1,3.5,1.4\n4.9,3,1.4\n", "0.1,2\n3,4.5\n", "0,1,1\n0.5,2,2\n"]
)
def test_tables_that_leave_no_question(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert whole(tmp_path / "t.csv").train.tolist() == np.loadtxt(text.split(), delimiter=",").tolist()


def test_what_is_said_of_a_table_is_of_tables_alone(tmp_path):
    np.save(tmp_path / "x.npy", X)
    for name, option in ((tmp_path / "x.npy", "header"), ("digits", "index")):
        with pytest.raises(DataError, match=rf"{option}: got True, but .* is not a table"):
            load_data(name, **{option: True})


# --- images --------------------------------------------------------------------------------------------------------


def draw(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


GREY = RNG.integers(0, 256, (6, 5, 4)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)


def test_grey_images(tmp_path):
    for i in range(6):
        draw(tmp_path / f"{i}.png", GREY[i])
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("nor this")
    data = whole(tmp_path)
    assert np.array_equal(data.train, GREY.astype(np.float32) / np.float32(255)) and data.labels == {}
    assert np.array_equal(whole(tmp_path, scale="levels").train, GREY)


def test_images_in_colour_by_class(tmp_path):
    for i in range(6):
        draw(tmp_path / ("cat" if i % 2 else "ant") / f"{i}.bmp", COLOUR[i])
    data = whole(tmp_path, scale="none")
    order = [0, 2, 4, 1, 3, 5]
    assert np.array_equal(data.train, np.moveaxis(COLOUR[order], -1, 1)) and data.event_shape == (3, 5, 4)
    assert data.labels["train"].tolist() == [0, 0, 0, 1, 1, 1] and data.classes == {"label": ("ant", "cat")}
    assert whole(tmp_path, fields=["x", "label"]).train["label"].tolist() == [0, 0, 0, 1, 1, 1]


def test_images_by_split_and_class(tmp_path):
    for i in range(6):
        draw(tmp_path / ("val" if i < 2 else "train") / ("b" if i % 2 else "a") / f"{i}.png", GREY[i])
    draw(tmp_path / "val" / "c" / "0.png", GREY[0])
    data = load_data(tmp_path, test=0, scale="none")
    assert np.array_equal(data.train, GREY[[2, 4, 3, 5]]) and np.array_equal(data.validation, GREY[[0, 1, 0]])
    assert data.labels["train"].tolist() == [0, 0, 1, 1] and data.labels["validation"].tolist() == [0, 1, 2]
    assert data.classes == {"label": ("a", "b", "c")}


def test_other_kinds_of_images(tmp_path):
    draw(tmp_path / "bits" / "1.png", GREY[0] > 99)
    deep = RNG.integers(0, 2**16, (5, 4)).astype(np.uint16)
    draw(tmp_path / "deep" / "1.png", deep)
    opaque = np.concatenate([COLOUR[0], np.full((5, 4, 1), 255, np.uint8)], -1)
    draw(tmp_path / "clear" / "1.png", opaque)
    (tmp_path / "palette").mkdir()
    Image.fromarray(COLOUR[0] // 128 * 255).convert("P", palette=Image.Palette.ADAPTIVE).save(
        tmp_path / "palette" / "1.gif"
    )
    assert np.array_equal(whole(tmp_path / "bits").train[0], GREY[0] > 99)
    assert np.array_equal(whole(tmp_path / "deep", scale="none").train[0], deep)
    np.testing.assert_allclose(whole(tmp_path / "deep").train[0], deep / 65535, rtol=1e-6)
    assert np.array_equal(whole(tmp_path / "clear", scale="none").train[0], np.moveaxis(COLOUR[0], -1, 0))
    assert np.array_equal(
        whole(tmp_path / "palette", scale="none").train[0], np.moveaxis(COLOUR[0] // 128 * 255, -1, 0)
    )


def tiff(pixels, order):
    """A grey TIFF of 16 bits, written by hand, in either order of its bytes ("<" or ">")."""
    (height, width), data = pixels.shape, pixels.astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def test_the_order_of_bytes_changes_no_scale(tmp_path):
    deep = RNG.integers(0, 2**16, (6, 5, 4))
    for order in "<>":
        np.save(tmp_path / f"{order}.npy", deep.astype(f"{order}u2"))
        (tmp_path / order).mkdir()
        (tmp_path / order / "0.tif").write_bytes(tiff(deep[0], order))
        for scale in ("auto", "unit"):
            np.testing.assert_allclose(whole(tmp_path / f"{order}.npy", scale=scale).train, deep / 65535, rtol=1e-6)
        np.testing.assert_allclose(whole(tmp_path / order).train, deep[:1] / 65535, rtol=1e-6)


@pytest.mark.parametrize("order", [1, -1])
def test_splits_of_different_widths_have_the_scale_of_the_wider(tmp_path, order):
    deep, pale = RNG.integers(0, 2**16, (6, 5, 4)).astype(np.uint16), GREY
    train, test = (deep, pale)[::order]
    np.savez(tmp_path / "x.npz", x_train=train, x_test=test)
    data = load_data(tmp_path / "x.npz", validation=0)
    np.testing.assert_allclose(data.train, train / 65535, rtol=1e-6)
    np.testing.assert_allclose(data.test, test / 65535, rtol=1e-6)


def png_of_16_bits(pixels):
    """A PNG of 16 bits per channel, [H, W, 3], written by hand."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("kind", ["frames.gif", "pages.tif", "deep.png", "clear.png", "clear_grey.png"])
def test_images_that_hold_more_than_their_array_are_refused(tmp_path, kind):
    path, told = tmp_path / kind, {"f": "3 frames", "p": "3 frames", "d": "16 bits", "c": "transparent"}[kind[0]]
    if kind == "deep.png":
        path.write_bytes(png_of_16_bits(RNG.integers(0, 2**16, (5, 4, 3))))
    elif kind.startswith("clear"):
        few = COLOUR[0] if kind == "clear.png" else GREY[0][..., None]
        draw(path, np.concatenate([few, 255 * (GREY[0][..., None] > 99)], -1).astype(np.uint8))
    else:
        draw(path, GREY[0], save_all=True, append_images=[Image.fromarray(g) for g in GREY[1:3]])
    with pytest.raises(DataError, match=told):
        whole(tmp_path)


@pytest.mark.parametrize(
    ("orientation", "turned"), [(1, GREY[0]), (3, np.rot90(GREY[0], 2)), (6, np.rot90(GREY[0], -1))]
)
def test_images_are_turned_as_their_exif_says(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    draw(tmp_path / "1.png", GREY[0], exif=exif)
    assert np.array_equal(whole(tmp_path, scale="none").train[0], turned)


# --- what does not fit into memory ----------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_with_advice(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=X)
    (tmp_path / "x.csv").write_text("1,2\n")
    (tmp_path / "x-idx1.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(2000))))
    draw(tmp_path / "images" / "1.png", GREY[0])
    monkeypatch.setattr("os.sysconf", lambda name: 1)  # one page of one byte
    for name in ("x.npz", "x.csv", "x-idx1.gz", "images"):
        with pytest.raises(DataError, match=r"this machine has .* streamed"):
            load_data(tmp_path / name)


def test_an_array_in_fortran_order_is_loaded_but_not_streamed(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    assert np.array_equal(whole(tmp_path / "x.npy").train, X)
    with pytest.raises(DataError, match="Fortran order"):
        load_data(tmp_path / "x.npy", memory=1)


def test_memory_that_runs_out_while_reading(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    (tmp_path / "x.csv").write_text("1,2\n")
    monkeypatch.setattr("ppdgm.data.tables.read_table", full)
    with pytest.raises(DataError, match=r"does not fit into memory\. Save it as \.npy"):
        load_data(tmp_path / "x.csv")


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    data = whole(path, memory=1)
    with path.open("r+b") as file:
        file.truncate(300)
    with pytest.raises(DataError, match=r"x\.npy became shorter"):
        data.train[:]
