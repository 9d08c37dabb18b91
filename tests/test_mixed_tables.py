"""Tables of names, dates and numbers: frames and files in, and back in the user's own values."""

from dataclasses import replace

import numpy as np
import pytest

import ppdgm
from ppdgm.data import Transform, learn_columns, load_data
from ppdgm.data.column import Column
from ppdgm.data.mixed import decode_table, encode_table
from ppdgm.errors import DataError
from ppdgm.inference.evaluation.result import Fit
from ppdgm.models import VAE, Table
from ppdgm.nets import MLP

pd = pytest.importorskip("pandas")

PROGRAM = VAE(event_shape=(7,), latent=2, likelihood=Table(), encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
KINDS = {
    "length": "real",
    "price": "positive",
    "visits": "count",
    "zone": "categorical(3)",
    "member": "binary",
    "stars": "ordinal(5)",
    "since": "date",
}


def frame(n: int = 60, seed: int = 0, gaps: float = 0.2):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    found = pd.DataFrame(
        {
            "length": 5 + z,
            "price": np.exp(2 + 1.5 * z) + 0.1,
            "visits": rng.poisson(3, n).astype(float),
            "zone": rng.choice(["east", "north", "west"], n),
            "member": rng.choice(["no", "yes"], n),
            "stars": 1.0 + (np.arange(n) % 5),
            "since": pd.Timestamp("2021-03-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
        },
        index=[f"r{i}" for i in range(n)],
    )
    found = found.mask(rng.random(found.shape) < gaps)
    found.loc["r0", "price"], found.loc["r1", "price"], found.loc["r2", "visits"] = 0.5, 60.0, 0
    return found


@pytest.fixture(scope="module")
def trained() -> Fit:
    return ppdgm.fit(PROGRAM, frame(), validation=frame(20, 1), epochs=2, progress=False)


def test_kinds_are_found_by_the_rules() -> None:
    assert {c.name: c.kind for c in learn_columns(frame())} == KINDS
    numbers = np.array([[-1.0, 1, 0, 1], [2.5, 30, 1, 2], [0, 2, np.nan, 3]])
    assert [c.kind for c in learn_columns(numbers)] == ["real", "count", "binary", "ordinal(3)"]
    assert [c.kind for c in learn_columns(numbers * [1, 0.1, 1, 0.5])] == ["real", "positive", "binary", "real"]
    assert learn_columns(np.array([[2000.0], [5000]]))[0].kind == "real"  # too large for a count
    order = pd.DataFrame({"size": pd.Categorical(["L", "S", "M", None], ["S", "M", "L"], ordered=True)})
    assert learn_columns(order)[0] == Column("size", "ordinal(3)", ("S", "M", "L"))
    other = pd.DataFrame({"n": pd.array([3, None, 5], "Int64"), "t": [True, False, None], "d": ["2024-01-31"] * 3})
    assert [c.kind for c in learn_columns(other)] == ["count", "binary", "date"]


def test_kinds_can_be_told() -> None:
    told = learn_columns(frame(), ["visits: real", "stars: categorical", "length: positive"])
    assert {c.name: c.kind for c in told} == KINDS | {
        "visits": "real", "stars": "categorical(5)", "length": "positive",
    }  # fmt: skip
    for wrong, match in {
        "age: count": "no column 'age'",
        "zone: count": "can't be 'count'",
        "zone: categorical(4)": "has 3 classes",
    }.items():
        with pytest.raises(DataError, match=match):
            learn_columns(frame(), [wrong])
    with pytest.raises(DataError, match="got 1 kinds for 7 columns"):
        learn_columns(frame(), ["real"])


def test_columns_that_say_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="'a' has no entries"):
        learn_columns(pd.DataFrame({"a": [None, None]}))
    with pytest.raises(DataError, match="only the value 'x'"):
        learn_columns(pd.DataFrame({"a": ["x", "x"]}))
    with pytest.raises(DataError, match="Is it a name of each row"):
        learn_columns(pd.DataFrame({"name": [f"person {i}" for i in range(50)]}))


def test_values_come_back_as_they_were() -> None:
    rows, columns = frame(), learn_columns(frame())
    x = encode_table(columns, rows)
    assert x.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(x), rows.isna().to_numpy())
    there = rows["since"].notna()
    first = rows["since"].min()
    np.testing.assert_allclose(x[there, 6], (rows["since"][there] - first).dt.days)
    back = decode_table(columns, x)
    for i, name in enumerate(rows):
        own = rows[name].notna().to_numpy()
        assert list(back[own, i]) == list(rows[name][own].to_numpy())
    np.testing.assert_array_equal(encode_table(columns, rows[rows.columns[::-1]]), x)
    with pytest.raises(DataError, match=r"'zone': got 'nroth' in row 2.*Did you mean 'north'"):
        encode_table(columns, rows.assign(zone=["north", "east", "nroth"] * 20))
    again = Transform("table", columns=tuple(rows), table=columns, library="pandas")
    assert Transform.from_parts(again.to_table(), again.arrays()) == again


def test_a_frame_goes_in_and_frames_come_out(trained: Fit) -> None:
    assert trained.program.likelihood.columns == tuple(f"{n}: {k}" for n, k in KINDS.items())
    rows = frame(20, 1)
    seen = trained.reconstruct(rows)
    assert list(seen.index) == list(rows.index) and list(seen) == list(rows)
    assert set(seen["zone"]) <= {"east", "north", "west"} and seen["since"].dtype.kind == "M"
    drawn = trained.sample(30, seed=1)
    assert list(drawn) == list(rows) and len(drawn) == 30
    assert set(drawn["stars"]) <= {1, 2, 3, 4, 5} and set(drawn["member"]) <= {"no", "yes"}
    assert (drawn["visits"] >= 0).all() and drawn["visits"].dtype.kind == "i"
    codes = trained.encode(rows)
    assert list(codes.index) == list(rows.index)
    assert np.isfinite(trained.elbo(rows, k=2).values).all()
    np.testing.assert_array_equal(  # names or numbers, the rows are the same
        trained.elbo(rows, k=2).values, trained.elbo(trained.prepare(rows), k=2).values
    )


def test_what_is_there_stays_and_what_is_missing_is_filled_in(trained: Fit) -> None:
    rows = frame(20, 1)
    whole = trained.impute(rows, k=50)
    assert not whole.isna().any().any() and list(whole.index) == list(rows.index)
    for name in rows:
        own = rows[name].notna()
        assert (whole[name][own] == rows[name][own]).all(), name
    several = trained.impute(rows, draws=2, k=50)
    assert len(several) == 2 and list(several[0]) == list(rows)
    low, high = trained.impute(rows, interval=0.9, k=50)
    gaps = rows["since"].isna()
    assert (low["since"][gaps] <= high["since"][gaps]).all()
    assert low["zone"][rows["zone"].isna()].isna().all()
    where = pd.DataFrame(False, index=rows.index, columns=rows.columns[::-1])
    where.loc["r3", "length"] = True
    other = trained.impute(rows.assign(length=rows["length"].where(rows.index != "r3", 99.0)), where, k=50)
    assert other.loc["r3", "length"] != 99.0


def test_a_saved_run_needs_no_data(trained: Fit, tmp_path) -> None:
    trained.save(tmp_path / "run")
    again = ppdgm.load(tmp_path / "run")
    assert again.program == trained.program and again.codings == trained.codings
    rows = frame(20, 1)
    pd.testing.assert_frame_equal(again.impute(rows, k=20), trained.impute(rows, k=20))
    pd.testing.assert_frame_equal(again.sample(5, seed=3), trained.sample(5, seed=3))


def test_a_frame_of_polars() -> None:
    pl = pytest.importorskip("polars")
    rows = pl.from_pandas(frame())
    fit = ppdgm.fit(PROGRAM, rows, steps=2, progress=False)
    assert [k.partition(": ")[2] for k in fit.program.likelihood.columns] == list(KINDS.values())
    whole = fit.impute(rows, k=20)
    assert isinstance(whole, pl.DataFrame) and not sum(whole.null_count().row(0))
    assert isinstance(fit.sample(3), pl.DataFrame)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file(tmp_path, suffix: str) -> None:
    path = tmp_path / f"mixed{suffix}"
    rows = frame().reset_index(drop=True)
    rows.to_csv(path, index=False) if suffix == ".csv" else rows.to_parquet(path)
    data = load_data(path, scale="table", validation=10, test=10)
    assert {c.name: c.kind for c in data.transform.table} == KINDS
    x = np.concatenate([data.train, data.validation, data.test])
    assert np.isnan(x).sum() == rows.isna().sum().sum()
    fit = ppdgm.fit(PROGRAM, data, steps=2, progress=False, out=tmp_path / "run")
    np.testing.assert_array_equal(
        fit.elbo(data.test, k=2).values, ppdgm.load(tmp_path / "run").elbo(data.test, k=2).values
    )
    other = load_data(path, like=fit, validation=0, test=0)
    np.testing.assert_array_equal(np.sort(other.train, 0), np.sort(x, 0))
    assert ppdgm.resume(tmp_path / "run", steps=3, progress=False).info["steps"] == 3
    told = PROGRAM.replace(likelihood=Table(columns=("visits: real", "stars: categorical")))
    assert "visits: real" in ppdgm.fit(told, data, steps=1, progress=False).program.likelihood.columns
    assert isinstance(fit.sample(2), pd.DataFrame)
    bare = replace(fit, codings={"x": replace(fit.transform, library="")})
    assert isinstance(bare.sample(2), np.ndarray)


def test_missing_cells_of_a_file_are_refused_with_the_way_out(tmp_path) -> None:
    path = tmp_path / "gaps.csv"
    frame()[["length", "price"]].to_csv(path, index=False)
    with pytest.raises(DataError, match="scale='table'"):
        load_data(path)


def test_the_command_line(tmp_path, monkeypatch) -> None:
    from test_cli import ppdgm as command

    monkeypatch.chdir(tmp_path)
    rows = frame()
    rows.to_csv("mixed.csv", index=False)
    small = ["--set", "program.latent=2", "--set", "program.encoder.hidden=[4]", "--set", "program.decoder.hidden=[4]"]
    table = 'program.likelihood={kind = "Table", columns = ["visits: real"]}'
    command("fit", "vae", "--data", "mixed.csv", "--set", table, "--steps", 2, "--out", "run", *small, "-q")
    recipe = (tmp_path / "run/recipe.toml").read_text()
    assert 'scale = "table"' in recipe and '"visits: real"' in recipe and '"zone: categorical(3)"' in recipe
    command("impute", "run", "--data", "mixed.csv", "--out", "whole.csv", "--k", 20, "--interval", 0.8)
    whole = pd.read_csv("whole.csv")
    assert len(whole) == len(rows) and not whole[list(rows)].isna().any().any()
    own = rows["zone"].notna().to_numpy()
    assert (whole["zone"][own].to_numpy() == rows["zone"][own].to_numpy()).all()
    gaps = rows["length"].isna().to_numpy()
    assert (whole["length_low"] <= whole["length_high"])[gaps].all()
    np.testing.assert_allclose(whole["length"][~gaps], rows["length"][~gaps])
    assert "exists" in command("impute", "run", "--out", "whole.csv", code=5).output
    command("sample", "run", "--n", 5, "--out", "drawn.csv")
    assert set(pd.read_csv("drawn.csv")["member"]) <= {"no", "yes"}
    command("encode", "run", "--k", 10, "--out", "codes.csv")
    assert np.isfinite(pd.read_csv("codes.csv")["log_p"]).all()
    assert '"elbo"' in command("evaluate", "run", "--k", 10, "--json").output


def test_a_program_of_the_users_own() -> None:
    from ppdgm.language.vocabulary import Array, Vocabulary
    from ppdgm.program import Context, Program

    class Own(Program):
        event_shape: tuple[int, ...] = (7,)
        likelihood: Table = Table()

        def build(self, context: Context) -> None:
            head = context.part(self.likelihood, self.event_shape)
            context.net("decoder", MLP(hidden=()), (2,), head)

        def model(self, P: Vocabulary, x: Array) -> None:
            with P.plate("data", x):
                z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), 1.0).to_event(1))
                P.sample("x", self.likelihood(P, P.net("decoder")(z)), obs=x)

        def guide(self, P: Vocabulary, x: Array) -> None:
            with P.plate("data", x):
                P.sample("z", P.dist.Normal(P.full((2,), 0.0), 1.0).to_event(1))

    fit = ppdgm.fit(Own(), frame(), steps=2, progress=False)
    assert np.isfinite(fit.elbo(frame(), k=2).values).all()
    assert not fit.impute(frame(), k=20).isna().any().any()


def test_the_pages_python_runs(tmp_path, monkeypatch) -> None:
    import re
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs/tables.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)).replace("epochs=50", "epochs=1")
    code = code.replace("300", "40").replace("k=20", "k=2")
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(compile(code, "docs/tables.md", "exec"), found)
    kinds = re.search(r"columns {1,2}# \((.*)\)", page)
    assert kinds is not None and ", ".join(map(repr, found["fit"].program.likelihood.columns)) == kinds[1]
