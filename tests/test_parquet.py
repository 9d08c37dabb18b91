"""Parquet files: what the same table as CSV gives."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from test_comparing import cli

import ppdgm
from ppdgm.data import load_data
from ppdgm.errors import DataError

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(40, 3)) * [1, 10, 1e-3], columns=["a", "b", "c"]).assign(
    n=RNG.integers(0, 9, 40), species=RNG.choice(["setosa", "virginica"], 40), old=RNG.random(40) < 0.5
)
BY = {
    "pandas": lambda frame, path: frame.to_parquet(path),
    "polars": lambda f, path: pl.from_pandas(f).write_parquet(path),
}
CHOICES = {
    "numbers": (["a", "b", "n"], {}),
    "a label": (["a", "b", "c", "n", "species"], {"fields": {"x": ["b", "a"], "label": "species"}}),
    "single fields": (["a", "b", "n"], {"fields": {"x": ["a", "b"], "count": "n", "size": "b"}}),
    "standardised": (["a", "b", "c"], {"scale": "standardise"}),
}


@pytest.mark.parametrize("library", BY)
@pytest.mark.parametrize("choice", CHOICES)
def test_the_same_data_as_csv(library, choice, tmp_path):
    columns, how = CHOICES[choice]
    BY[library](FRAME[columns], tmp_path / "t.parquet")
    FRAME[columns].to_csv(tmp_path / "t.csv", index=False)
    one, other = (load_data(tmp_path / name, **how) for name in ("t.parquet", "t.csv"))
    assert one.codings == other.codings and one.classes == other.classes
    for part in ("train", "validation", "test"):
        a, b = (v if isinstance(v, dict) else {"x": v} for v in (getattr(one, part), getattr(other, part)))
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].dtype == b[name].dtype


def test_an_index_of_pandas_is_no_data(tmp_path):
    for index in (pd.Index([f"row {i}" for i in range(40)]), pd.Index(range(5, 45), name="id"), None):
        frame = FRAME[["a", "b"]] if index is None else FRAME[["a", "b"]].set_index(index)
        frame.to_parquet(tmp_path / "t.parquet")
        assert load_data(tmp_path / "t.parquet").transform.columns == ("a", "b")


def test_what_can_not_be_read_is_told(tmp_path):
    path = tmp_path / "t.parquet"
    FRAME.to_parquet(path)
    with pytest.raises(DataError, match=r"t.parquet, row 1, column species: got '.*', expected numbers. Leave out"):
        load_data(path)
    FRAME[["a"]].assign(b=[1.0] * 3 + [None] + [2.0] * 36).to_parquet(path)
    with pytest.raises(DataError, match=r"t.parquet, row 4, column b: got nan, expected a finite number"):
        load_data(path)
    FRAME[["a"]][:0].to_parquet(path)
    with pytest.raises(DataError, match="has names, but no rows"):
        load_data(path)
    with pytest.raises(DataError, match="this table always has names"):
        load_data(path, header=True)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="can't be read as a Parquet file"):
        load_data(path)


def test_runs_read_and_write_parquet(tmp_path, monkeypatch):
    """Trained on a file; the codes that `encode` writes are those of Python, and are read again."""
    monkeypatch.chdir(tmp_path)
    FRAME[["a", "b", "c"]].to_parquet("t.parquet")
    cli("fit", "ppca", "--data", "t.parquet", "--set", "program.latent=2", "--steps", 2, "--out", "run", "--quiet")
    cli("encode", "run", "--data", "t.parquet", "--out", "codes.parquet", "--k", 2)
    found, fit = pd.read_parquet("codes.parquet"), ppdgm.load("run")
    np.testing.assert_array_equal(found[["z[0]", "z[1]"]], fit.encode(FRAME[["c", "a", "b"]]))
    assert load_data("codes.parquet", index=True).train.shape[1] == len(found.columns) - 1
