"""Data that are given to `load_data` in Python, and columns by pattern, range and name: as from a file, or refused."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from planted import WIDTH, fit_of
from test_comparing import cli

import ppdgm
from ppdgm.data import Source, Transform, load_data
from ppdgm.data.columns import is_selection, select_columns
from ppdgm.data.frames import columns_of
from ppdgm.errors import DataError, SpecError
from ppdgm.models import PPCA

RNG = np.random.default_rng(0)
NAMES = ["cell", "g_1", "g_2", "age", "g_3", "species"]
TABLE = pd.DataFrame(RNG.normal(size=(40, 3)) * [1, 10, 100], columns=["g_1", "g_2", "g_3"]).assign(
    cell=[f"c{i}" for i in range(40)], age=RNG.integers(0, 90, 40), species=RNG.choice(["fir", "oak", None], 40)
)[NAMES]
MAKE = {
    "pandas": lambda t: t,
    "polars": pl.from_pandas,
    "arrow": lambda t: pa.Table.from_pandas(t, preserve_index=False),
}
HOW = {"fields": {"x": "g_*", "label": "species", "age": "age"}, "index": "cell", "scale": "standardise", "test": 10}
PROGRAM = PPCA(event_shape=(3,), latent=1)


def fields_of(data, part):
    found = getattr(data, part)
    return found if isinstance(found, dict) else {"x": found}


def check_same(one, other):
    assert (
        one.codings["x"] == other.codings["x"]
        and one.classes == other.classes
        and one.transform.index == other.transform.index
    )
    for part in ("train", "validation", "test"):
        a, b = fields_of(one, part), fields_of(other, part)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].dtype == b[name].dtype
        if one.index:
            np.testing.assert_array_equal(one.index[part], other.index[part])


@pytest.mark.parametrize("library", MAKE)
def test_a_table_in_memory_is_read_like_its_file(library, tmp_path):
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    filed, given = load_data(tmp_path / "t.csv", **HOW), load_data(MAKE[library](TABLE), **HOW)
    check_same(given, filed)
    assert given.source.given_in_python and not filed.source.given_in_python
    rows = np.array([int(n[1:]) for n in given.index["test"]])
    np.testing.assert_array_equal(given.test["age"], TABLE["age"][rows])
    raw = given.transform.invert(given.test["x"])
    np.testing.assert_allclose(raw, TABLE[["g_1", "g_2", "g_3"]].to_numpy()[rows], rtol=1e-5)
    with pytest.raises(DataError, match="this table always has names"):
        load_data(MAKE[library](TABLE), header=True)
    with pytest.raises(DataError, match=r"row 0, column species: got .*expected numbers"):
        load_data(MAKE[library](TABLE), fields={"x": ["g_1", "species"]})


def test_arrays_are_read_like_their_file(tmp_path):
    x, label = RNG.integers(0, 256, (30, 4, 4)).astype(np.uint8), RNG.integers(0, 3, 30)
    np.savez(tmp_path / "d.npz", x_train=x[:20], label_train=label[:20], x_test=x[20:], label_test=label[20:])
    arrays = {"x_train": x[:20], "label_train": label[:20], "x_test": x[20:], "label_test": label[20:].tolist()}
    for how in ({"fields": ["x", "label"]}, {"scale": "levels"}, {"binarise": "static", "seed": 3}):
        check_same(load_data(arrays, **how), load_data(tmp_path / "d.npz", **how))
    np.save(tmp_path / "x.npy", x)
    check_same(load_data(x), load_data(tmp_path / "x.npy"))
    named = load_data({"x": TABLE[["g_1", "g_2"]], "id": TABLE["cell"]}, index="id", test=5)
    assert named.transform.columns == ("g_1", "g_2") and set(named.index["test"]) < set(TABLE["cell"])


@pytest.mark.parametrize("missing", [[-1, 0], [np.nan, 0.0], [None, 0], ["", "0"], [None, "0"], ["NaN", "0"]])
def test_missing_labels_are_the_same_everywhere(missing, tmp_path):
    """−1, NaN, None and empty, in Python and in each kind of file."""
    x, label = np.arange(8.0)[:, None], missing * 4
    table = pd.DataFrame({"a": x[:, 0], "label": label})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    how = {"fields": ["x", "label"], "validation": 0, "test": 0}
    sources = [{"x": x, "label": label}, {"x": x, "label": table["label"]}, table, pl.from_pandas(table)]
    sources += [tmp_path / "t.csv", tmp_path / "t.parquet"]
    if None not in label:
        np.savez(tmp_path / "t.npz", x=x, label=label)
        sources.append(tmp_path / "t.npz")
    for source in sources:
        data = load_data(source, **how)
        np.testing.assert_array_equal(np.asarray(data.train["label"]), [-1, 0] * 4)
        assert data.train["label"].dtype == np.int64


def test_a_run_on_given_data_goes_on_with_the_same_data(tmp_path, monkeypatch):
    """Its recipe says that the data were given in Python; the command line needs them in a file."""
    monkeypatch.chdir(tmp_path)
    how = {"fields": {"x": "g_*"}, "index": "cell", "scale": "standardise"}
    data = load_data(TABLE, **how)
    ppdgm.fit(PROGRAM, data, steps=4, batch_size=20, progress=False, out="run")
    again = ppdgm.resume("run", TABLE, steps=8, progress=False)
    whole = ppdgm.fit(PROGRAM, data, steps=8, batch_size=20, progress=False)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    assert again.data.given_in_python and again.data.fields == (("x", "g_*"),)
    with pytest.raises(DataError, match="given in Python, and are not saved"):
        ppdgm.resume("run", steps=9, progress=False)
    with pytest.raises(DataError, match=r"given in Python \(pandas DataFrame\).*--data PATH"):
        load_data(again.data)
    assert "got its data in Python" in cli("evaluate", "run", code=3).output
    assert "the run got them in Python" in cli("fit", "run/recipe.toml", "--out", "new", code=2).output
    TABLE.sample(frac=1.0, random_state=0).to_csv("t.csv", index=False)
    cli("encode", "run", "--data", "t.csv", "--out", "codes.parquet", "--k", 2)
    found = pd.read_parquet("codes.parquet").set_index("cell").loc[TABLE["cell"]]
    codes = again.encode(TABLE[["g_3", "cell", "g_1", "g_2"]])
    assert list(codes.index) == list(TABLE["cell"]) and codes.index.name == "cell"
    np.testing.assert_allclose(found["z[0]"], codes["z[0]"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("library", MAKE)
def test_names_of_rows_come_back(library):
    fit = fit_of("exact")
    names = tuple("abcdef")
    fit.codings = {"x": Transform(columns=names, index="id")}
    x = RNG.normal(size=(9, WIDTH))
    frame = MAKE[library](pd.DataFrame(x, columns=names).assign(id=[f"r{i}" for i in range(9)])[["f", "id", *"abcde"]])
    for found in (fit.encode(frame), fit.reconstruct(frame), fit.scores(frame, k=2)):
        if library == "pandas":
            assert list(found.index) == [f"r{i}" for i in range(9)] and found.index.name == "id"
        else:
            assert columns_of(found)[0] == "id"
            assert np.asarray(found["id"]).tolist() == [f"r{i}" for i in range(9)]
    np.testing.assert_array_equal(np.asarray(fit.reconstruct(frame)["b"]), fit.reconstruct(x)[:, 1])


CHOICES = {  # of a, b, c1, c2, label, d; the label is left out of all but what is named
    "c*": "c1 c2",
    "?": "a b d",
    "a:c1": "a b c1",
    "c1:": "c1 c2 d",
    ":b": "a b",
    "!b": "a c1 c2 d",
    ("!b", "!c*"): "a d",
    ("d", "a:b", "!a"): "d b",
    ("c*", "c1:d"): "c1 c2 d",
    ("!c1:d",): "a b",
    ("!0", "!1"): "c1 c2 d",
    ("a", "label"): "a label",
    "*": "a b c1 c2 d",
}


@pytest.mark.parametrize("wanted", CHOICES)
def test_columns_by_pattern_range_and_all_but(wanted):
    names = ["a", "b", "c1", "c2", "label", "d"]
    found = select_columns("t", names, 6, wanted, skip={4})
    assert [names[i] for i in found] == CHOICES[wanted].split()
    frame = pd.DataFrame(np.zeros((20, 6)) + RNG.normal(size=(20, 1)), columns=names)
    assert load_data(frame, fields={"x": wanted}).transform.columns == tuple(CHOICES[wanted].split())


def test_columns_without_names_and_names_like_patterns():
    assert select_columns("t", [], 5, "1:3") == [1, 2, 3]
    assert select_columns("t", [], 5, ("!0", "!4")) == [1, 2, 3]
    names = ["a*", "ab", "!x", "x", "u:v", "u", "v"]
    assert select_columns("t", names, 7, ("a*", "!x", "u:v")) == [0, 2, 4]  # these are columns
    assert not is_selection(("a*", "u:v"), names) and is_selection("u*", names)


def test_columns_that_do_not_exist_are_named():
    for wanted, told in {
        "e*": "no column like 'e\\*'",
        "a:e": "no column 'e'",
        "b:a": "whose first column comes after its last",
        "!e": "no column 'e'",
        ("a", "!a"): "leaves no column",
        "!9": "no column 9",
    }.items():
        with pytest.raises(DataError, match=told):
            select_columns("t", ["a", "b", "c"], 3, wanted)
    with pytest.raises(DataError, match="patterns need names"):
        select_columns("t", [], 3, "a*")
    with pytest.raises(DataError, match="several columns 'a': numbers 0, 2"):
        select_columns("t", ["a", "b", "a"], 3, "a:b")


def test_patterns_on_the_command_line(tmp_path, monkeypatch):
    """By --fields and in a recipe, as in Python; several covariates."""
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("t.csv", index=False)
    fields = {"x": "g_*", "covariates": ["age", "g_1"], "label": "species"}
    expected = load_data("t.csv", fields=fields, index="cell").describe()
    assert expected["fields"]["covariates"]["shape"] == [2]
    flags = ["--fields", "x=g_*", "--fields", "covariates=age,g_1", "--fields", "label=species"]
    told = cli("data", "t.csv", *flags, "--set", "index=cell", "--json").stdout
    assert told == cli("data", "t.csv", "--set", "fields={x='g_*', covariates=['age','g_1'], label='species'}",
                       "--set", "index=cell", "--json").stdout  # fmt: skip
    assert '"covariates"' in told
    run = ["fit", "ppca", "--data", "t.csv", "--fields", "x=g_*", "--set", "data.index=cell", "--steps", 2, "--quiet"]
    cli(*run, "--set", "program.latent=1", "--out", "run")
    assert ppdgm.load("run").transform.columns == ("g_1", "g_2", "g_3")
    assert "no column like 'u*'" in cli("data", "t.csv", "--fields", "x=u*", code=3).output
    assert "--fields" in cli("data", "t.csv", "--fields", "=a", code=2).output


def test_what_can_not_be_loaded_is_told():
    data = load_data(TABLE, fields={"x": "g_*"})
    for given, told in {
        "a set": (data, "already loaded"),
        "rows": (data.train, "already prepared"),
        "text": (np.array(["a", "b"]), "text"),
        "nothing": (None, "None"),
        "a generator": ((x for x in [1.0]), "generator"),
        "numbers as names": ({0: np.zeros(3)}, "expected text"),
    }.values():
        with pytest.raises(DataError, match=told):
            load_data(given)
    with pytest.raises(DataError, match="beside data that are given"):
        load_data(np.zeros((3, 2)), given_in_python=False)
    with pytest.raises(DataError, match="given in Python"):
        load_data("x.csv", given_in_python=True)
    with pytest.raises(DataError, match="is not a table"):
        load_data(np.zeros((3, 2)), index=True)
    with pytest.raises(DataError, match="several columns 'a': numbers 0, 1"):
        load_data(pd.DataFrame(np.eye(4), columns=list("aabc")))
    with pytest.raises(DataError, match="no column like"):
        load_data(pd.DataFrame(np.eye(4)), fields={"x": "g_*"})
    with pytest.raises(SpecError, match=r"Source.index"):
        Source(name="x", index=3)


# --- sparse matrices in files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_array", "bsr_matrix"])
def test_sparse_files_stay_sparse(kind, tmp_path, monkeypatch):
    """The rows, the scaling and the checks of the dense array; on the command line too."""
    monkeypatch.chdir(tmp_path)
    dense = np.where(RNG.random((30, 8)) < 0.3, RNG.integers(1, 5, (30, 8)), 0).astype(float)
    matrix = getattr(scipy.sparse, kind)(dense)
    scipy.sparse.save_npz("s.npz", matrix)
    np.savez("d.npz", x=dense)
    for how in ({}, {"scale": "unit"}, {"scale": "standardise"}, {"scale": "unit", "binarise": "static"}):
        sparse, plain = load_data("s.npz", **how), load_data("d.npz", **how)
        assert scipy.sparse.issparse(sparse.train.array) and sparse.transform == plain.transform
        for part in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(sparse, part)[:], getattr(plain, part))
        np.testing.assert_array_equal(load_data(matrix, **how).test[:], plain.test)
    if kind == "csr_matrix":
        cli("fit", "ppca", "--data", "s.npz", "--set", "program.latent=1", "--steps", 2, "--out", "run", "--quiet")
        assert "log_p" in cli("encode", "run", "--k", 2).output
    dense[4, 2] = np.nan
    scipy.sparse.save_npz("s.npz", getattr(scipy.sparse, kind)(dense))
    with pytest.raises(DataError, match=r"nan at index \(4, 2\)"):
        load_data("s.npz")


def test_a_forged_sparse_file_is_refused(tmp_path):
    matrix = scipy.sparse.csr_matrix(np.eye(4))
    np.savez(tmp_path / "s.npz", format=b"csr", shape=(4, 4), data=matrix.data, indptr=matrix.indptr,
             indices=matrix.indices + 9)  # fmt: skip
    with pytest.raises(DataError, match=r"not a complete \.npz file"):
        load_data(tmp_path / "s.npz")
