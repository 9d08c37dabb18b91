"""CSV as it comes: semicolons, decimal commas, TRUE and FALSE, gaps, names twice: read right, or refused with the
column named and the option that settles it."""

import gzip

import numpy as np
import pandas as pd
import pytest
from test_comparing import cli

from ppdgm.data import Transform, load_data
from ppdgm.errors import DataError

ALL = {"validation": 0, "test": 0}
NAN = np.nan


def loaded(text, path, **how):
    path.write_text(text)
    data = load_data(path, **ALL, **how)
    return data, np.asarray(data.train["x"] if isinstance(data.train, dict) else data.train)


READ = {  # name: (text, options, x)
    "semicolons": ("a;b\n1;2\n3;4\n", {}, [[1, 2], [3, 4]]),
    "decimal commas": ("a;b\n1,5;2\n3,25;-4,0\n", {}, [[1.5, 2], [3.25, -4]]),
    "decimal commas without names": ("1,5;2,5;0,5\n3,5;4;1e3\n", {}, [[1.5, 2.5, 0.5], [3.5, 4, 1000]]),
    "three decimals": ("a;b\n0,500;2\n3,250;1\n", {}, [[0.5, 2], [3.25, 1]]),
    "three decimals, told": ("a;b\n1,500;2\n3,250;1\n", {"decimal": ","}, [[1.5, 2], [3.25, 1]]),
    "quoted decimal commas": ('a,b\n"1,5",2\n"3,5",4\n', {"decimal": ","}, [[1.5, 2], [3.5, 4]]),
    "TRUE and FALSE": ("a,b\nTRUE,1\nFalse,2\ntrue,3\n", {}, [[1, 1], [0, 2], [1, 3]]),
    "TRUE in the first line": ("TRUE,1\nFALSE,2\n", {}, [[1, 1], [0, 2]]),
    "gaps": ("a,b\n1,\nNA,2\n3,nan\n", {"missing": "nan"}, [[1, NAN], [NAN, 2], [3, NAN]]),
    "gaps and TRUE": ("a,b\nTRUE,\nFALSE,2\n", {"missing": "nan"}, [[1, NAN], [0, 2]]),
    "names twice, by number": ("a,a\n1,2\n3,4\n", {"fields": {"x": [1, 0]}}, [[2, 1], [4, 3]]),
    "a blank index": (",a,b\nr,1,2\ns,3,4\n", {"index": True}, [[1, 2], [3, 4]]),
    "numbers as names": ("2001,2002\n1.5,2\n3.5,4\n", {"header": True}, [[1.5, 2], [3.5, 4]]),
    "a byte order mark, spaces, quotes": ('\ufeff"a" , b\n "1", 2\n3,4 \n', {}, [[1, 2], [3, 4]]),
}


@pytest.mark.parametrize("case", READ)
@pytest.mark.parametrize("packed", [False, True])
def test_it_is_read_right(case, packed, tmp_path):
    text, how, x = READ[case]
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    np.testing.assert_array_equal(load_data(path, **ALL, **how).train, np.array(x, np.float32))


REFUSED = {  # name: (text, options, what is said)
    "three decimals": ("a;b\n1,500;2\n3,250;1\n", {}, r"line 2: got '1,500'.* thousands\?.*decimal=','"),
    "a comma among points": ("a;b\n1,5;1.5\n2,5;1.0\n", {}, "column 'a': got '1,5'.* decimal=','"),
    "a point among commas": ("a;b\n1,5;1.234\n2,5;2\n", {"decimal": ","}, "column 'b': got '1.234'.*without points"),
    "quoted decimal commas": ('a,b\n"1,5",2\n"3,5",4\n', {}, "column 'a': got '1,5'.* decimal=','"),
    "TRUE among numbers": ("a,b\nTRUE,1\n3,2\n", {}, "column 'a': got TRUE or FALSE in 1 of 2 rows, and numbers"),
    "a gap": ("a,b\n1,\n2,3\n", {}, "line 2, column 'b': got '', a missing value.*missing='nan'"),
    "infinity among gaps": ("a,b\n1,\n2,inf\n", {"missing": "nan"}, "line 3, column 'b': got inf"),
    "names twice": ("a,b,a\n1,2,3\n3,4,5\n", {}, r"several columns 'a': numbers 0, 2.*fields=\{'x': \[0, 1, 2\]\}"),
    "a blank index": (",a,b\n0,1,2\n1,3,4\n", {}, "first column without a name.*index=True"),
    "a blank column beside the index": (",id,a\n0,u,2\n1,v,4\n", {"index": "id"}, r"beside index='id'.*'!0'"),
    "numbers as names": ("2001,2002,2003\n1,2,3\n", {}, "header=True or header=False"),
    "no such index": ("a,b\n1,2\n", {"index": "id"}, "no column 'id'"),
    "an index as data": ("a,b\n1,2\n3,4\n", {"index": "a", "fields": {"x": ["a", "b"]}}, "uses that column, 'a'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_what_settles_it(case, tmp_path):
    text, how, told = REFUSED[case]
    with pytest.raises(DataError, match=told):
        loaded(text, tmp_path / "t.csv", **how)


def test_gaps_are_not_counted_when_columns_are_standardised(tmp_path):
    """Mean and standard deviation of what is there; a column's scale is that of pandas."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(50, 3)) * [1, 10, 0.1] + [0, 5, -3], columns=list("abc"))
    frame = frame.mask(rng.random(frame.shape) < 0.3)
    frame.loc[0, "a"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    for source in (tmp_path / "t.csv", frame, {"x": frame.to_numpy()}):
        data = load_data(source, missing="nan", scale="standardise", **ALL)
        np.testing.assert_allclose(data.transform.mean, frame.mean(), rtol=1e-12)
        np.testing.assert_allclose(data.transform.scale, frame.std(ddof=0), rtol=1e-12)
        expected = (frame - frame.mean()) / frame.std(ddof=0)
        order = np.argsort(np.random.default_rng(0).permutation(50)) if len(data.train) < 50 else slice(None)
        np.testing.assert_allclose(data.train[order], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match=r"'x': got nan at index \(0, 0\)"):
        load_data({"x": frame.to_numpy()})
    assert load_data(frame, fields={"x": "a", "age": "b"}, missing="nan", **ALL).train["age"].dtype == np.float64
    assert isinstance(data.transform, Transform)


def test_options_of_tables_elsewhere(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3))
    for how, told in (({"decimal": ","}, "is not a table"), ({"header": False}, "is not a table")):
        with pytest.raises(DataError, match=told):
            load_data(tmp_path / "x.npy", **how)
    with pytest.raises(DataError, match="this table has numbers, and no text"):
        load_data(pd.DataFrame(np.eye(3)), decimal=",")


def test_the_same_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"r{i};{i},500;{'TRUE' if i % 2 else 'FALSE'};{i % 3}\n" for i in range(1, 30))
    (tmp_path / "t.csv").write_text("id;h;f;w\n" + rows)
    assert "thousands?" in cli("data", "t.csv", "--set", "index=id", code=3).output
    told = cli("data", "t.csv", "--set", "index=id", "--set", "decimal=,", "--set", "missing=nan").output
    assert "3" in told
    cli("fit", "ppca", "--data", "t.csv", "--set", "data.index=id", "--set", "data.decimal=,", "--set",
        "program.latent=1", "--steps", 2, "--out", "run", "--quiet")  # fmt: skip
    cli("encode", "run", "--split", "all", "--k", 2)
    codes = pd.read_csv("codes.csv")
    assert sorted(codes["id"]) == sorted(f"r{i}" for i in range(1, 30))
