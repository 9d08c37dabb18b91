"""Tables of pandas, polars and Arrow, and sparse matrices: the numbers of arrays, by name; and tables come back."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from planted import WIDTH, data, fit_of, log_likelihood

import ppdgm
from ppdgm.data import Transform, load_data
from ppdgm.data.frames import by_number, columns_of, is_frame
from ppdgm.errors import DataError
from ppdgm.models import MLP, PPCA, VAE, AutoregressiveModel, Gaussian, OrderAgnosticMADE

BACKENDS = ("numpyro", "pyro")
X = data(20)
NAMES = tuple("abcdef")
INDEX = [f"row {i}" for i in range(20)]
MAKE = {
    "pandas": lambda x, names: pd.DataFrame(x, columns=list(names), index=INDEX[: len(x)]),
    "polars": lambda x, names: pl.DataFrame(x, schema=list(names)),
    "arrow": lambda x, names: pa.table(dict(zip(names, x.T, strict=True))),
}
LIBRARIES = pytest.mark.parametrize("library", MAKE)
MIXED = np.array([3, 0, 5, 1, 4, 2])


def named_fit(backend="numpyro"):
    """PPCA at known parameters, as if it was trained on a table with these columns."""
    fit = fit_of("exact", backend=backend)
    fit.codings = {"x": Transform(columns=NAMES)}
    return fit


def values(table, name):
    return np.asarray(table[name])


@LIBRARIES
@pytest.mark.parametrize("backend", BACKENDS)
def test_columns_are_found_by_name(library, backend):
    """log p(x) in closed form, whatever the order of the table's columns."""
    fit, moved = named_fit(backend), MAKE[library](X[:, MIXED], [NAMES[i] for i in MIXED])
    found = fit.log_likelihood(moved, k=2).values
    np.testing.assert_allclose(found, log_likelihood(X), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(fit.log_likelihood(X, k=2).values, found)  # an array has no names
    np.testing.assert_array_equal(fit.log_likelihood({"x": moved}, k=2).values, found)
    np.testing.assert_array_equal(fit.prepare(moved), X)


@LIBRARIES
def test_other_columns_are_refused(library):
    fit, make = named_fit(), MAKE[library]
    with pytest.raises(DataError, match="without the run's column 'f'"):
        fit.elbo(make(X[:, :5], NAMES[:5]))
    with pytest.raises(DataError, match=r"the column 'g', which the run does not have.*fit.transform.columns"):
        fit.elbo(make(np.concatenate([X, X[:, :1]], 1), (*NAMES, "g")))
    with pytest.raises(DataError, match=r"columns 'u', 'v', .* but the run's are 'a', 'b'"):
        fit.elbo(make(X, "uvwxyz"))


@LIBRARIES
def test_a_run_knows_its_columns(library, tmp_path):
    """Trained on a table, saved and loaded: the columns of another table are found by name."""
    table = MAKE[library](X, NAMES)
    fit = ppdgm.fit(PPCA(event_shape=(WIDTH,), latent=2), table, validation=table, steps=2, progress=False,
                    out=tmp_path / "run")  # fmt: skip
    plain = ppdgm.fit(PPCA(event_shape=(WIDTH,), latent=2), X, validation=X, steps=2, progress=False)
    for name, value in plain.params.items():
        np.testing.assert_array_equal(fit.params[name], value)
    again = ppdgm.load(tmp_path / "run")
    assert fit.transform.columns == again.transform.columns == NAMES
    moved = MAKE[library](X[:, MIXED], [NAMES[i] for i in MIXED])
    np.testing.assert_array_equal(again.elbo(moved).values, plain.elbo(X).values)
    with pytest.raises(DataError, match="without the run's column 'f'"):
        ppdgm.fit(PPCA(event_shape=(WIDTH,), latent=2), table, validation=MAKE[library](X[:, :5], NAMES[:5]), steps=1)


@LIBRARIES
def test_tables_come_back(library):
    fit, table = named_fit(), MAKE[library](X, NAMES)
    codes = fit.encode(table)
    assert type(codes) is type(table) and columns_of(codes) == ("z[0]", "z[1]")
    np.testing.assert_array_equal(np.stack([values(codes, n) for n in columns_of(codes)], 1), fit.encode(X))
    seen = fit.reconstruct(table)
    assert columns_of(seen) == NAMES
    np.testing.assert_array_equal(np.stack([values(seen, n) for n in NAMES], 1), fit.reconstruct(X))
    scores = fit.scores(table, k=2)
    assert columns_of(scores) == ("z[0]", "z[1]", "log_p", "log_p_error", "rank", "reconstruction_error")
    np.testing.assert_array_equal(values(scores, "log_p"), fit.log_likelihood(X, k=2).values)
    if library == "pandas":
        assert list(codes.index) == list(seen.index) == list(scores.index) == INDEX
    assert fit.encode(table, k=3).shape == (3, 20, 2)  # draws are an array
    assert isinstance(fit.encode(X), np.ndarray)
    turned = MAKE[library](fit.encode(X)[:, ::-1], ["z[1]", "z[0]"])
    np.testing.assert_array_equal(fit.decode(turned), fit.reconstruct(X))
    with pytest.raises(DataError, match=r"without the column z\[0\]"):
        fit.decode(MAKE[library](fit.encode(X)[:, 1:], ["z[1]"]))
    with pytest.raises(DataError, match="no field and no site 'log_p'"):
        fit.decode(scores)


def test_parameters_alone_know_no_columns():
    fit, table = fit_of("exact"), MAKE["pandas"](X, NAMES)
    for ask in (ppdgm.trace, ppdgm.log_weights):
        with pytest.raises(DataError, match="parameters alone do not say which column is which"):
            ask(fit.program, fit.params, table)
    with pytest.raises(DataError, match=r"LazyFrame.*frame.collect"):
        fit.elbo(pl.DataFrame(X).lazy())


def imputing():
    program = AutoregressiveModel(event_shape=(6,), net=OrderAgnosticMADE(hidden=(8,)), likelihood=Gaussian())
    return ppdgm.Fit(program, program.initialise(0), codings={"x": Transform(columns=NAMES)})


@LIBRARIES
def test_missing_numbers_are_found_by_name(library):
    """A table of booleans, in any order of its columns, and NaN in x; what x has there does not matter."""
    fit, missing = imputing(), np.zeros((20, 6), bool)
    missing[:, 2], missing[3, 0] = True, True
    expected = fit.impute(X, missing, seed=1)
    moved = MAKE[library](missing[:, MIXED], [NAMES[i] for i in MIXED])
    rows = MAKE[library](np.where(missing, 7.0, X), NAMES)
    holes = MAKE[library](np.where(missing, np.nan, X)[:, MIXED], [NAMES[i] for i in MIXED])
    for found in (fit.impute(rows, moved, seed=1), fit.impute(holes, moved, seed=1), fit.impute(holes, seed=1)):
        assert columns_of(found) == NAMES
        np.testing.assert_array_equal(np.stack([values(found, n) for n in NAMES], 1), expected)
    with pytest.raises(DataError, match=r"missing.*without the run's column 'f'"):
        fit.impute(rows, MAKE[library](missing[:, :5], NAMES[:5]))
    with pytest.raises(DataError, match="x has no NaN"):
        fit.impute(rows)
    with pytest.raises(DataError, match=r"nan at index \(0, 2\)"):
        fit.impute(holes, np.arange(6) == 1)


def test_imputed_tables_come_back():
    fit = imputing()
    missing = np.zeros(6, bool)
    missing[2] = True
    found = fit.impute(MAKE["pandas"](X, NAMES), missing)
    assert list(found.columns) == list(NAMES) and list(found.index) == INDEX
    kept = [n for n in NAMES if n != "c"]
    np.testing.assert_array_equal(found[kept], X[:, ~missing])
    assert not np.array_equal(found["c"], X[:, 2])


@LIBRARIES
def test_a_column_that_can_not_be_used_is_named(library):
    table = MAKE[library](X, NAMES)
    if library == "pandas":
        odd, gaps = table.assign(c="u"), table.assign(c=[None] + [1.0] * 19)
    elif library == "polars":
        odd, gaps = table.with_columns(c=pl.lit("u")), table.with_columns(c=pl.Series([None] + [1.0] * 19))
    else:
        odd = table.set_column(2, "c", pa.array(["u"] * 20))
        gaps = table.set_column(2, "c", pa.array([None] + [1.0] * 19))
    with pytest.raises(DataError, match=r"table whose column 'c' has text.*[Ll]eave out such columns"):
        fit_of("exact").elbo(odd)
    with pytest.raises(DataError, match=r"nan at index \(0, 2\)"):
        fit_of("exact").elbo(gaps)


def test_names_that_say_nothing_are_not_used():
    """Two columns of one name: by place, or refused by a run that knows its columns. Names of ours are only names."""
    twice = pd.DataFrame(X, columns=list("aabbcc"))
    assert columns_of(twice) == () and is_frame(twice)
    np.testing.assert_array_equal(fit_of("exact").elbo(twice).values, named_fit().elbo(X).values)
    with pytest.raises(DataError, match=r"several columns 'a', so that names do not say which.*frame.to_numpy\(\)"):
        named_fit().elbo(twice)
    more = pd.DataFrame(np.concatenate([X, X[:, :1]], 1), columns=[*NAMES, "a"])
    with pytest.raises(DataError, match="several columns 'a'"):
        named_fit().encode(more)
    odd = pd.DataFrame(X, columns=["coding", "array", "shape", "x", "nnz", "columns_"])
    fit = ppdgm.fit(PPCA(event_shape=(WIDTH,), latent=2), odd, steps=1, progress=False)
    assert fit.transform.columns[0] == "coding"
    assert not is_frame(X) and not is_frame(pd.Series(X[:, 0])) and not is_frame({"x": X})


def test_numbers_of_a_site_have_their_places():
    found = by_number("z", np.arange(12.0).reshape(3, 2, 2))
    assert list(found) == ["z[0,0]", "z[0,1]", "z[1,0]", "z[1,1]"]
    np.testing.assert_array_equal(found["z[1,0]"], [2.0, 6.0, 10.0])
    assert list(by_number("c", np.arange(3))) == ["c"]


def test_a_csv_runs_columns_are_found_in_a_table(tmp_path):
    """Standardised columns: each with its own mean and scale, whatever the order in the table."""
    raw = X * [1, 10, 100, 1, 1, 1] + [0, 5, 0, 0, 0, -50]
    pd.DataFrame(raw, columns=list(NAMES)).to_csv(tmp_path / "x.csv", index=False)
    loaded = load_data(tmp_path / "x.csv", scale="standardise", validation=0, test=0)
    fit = ppdgm.fit(PPCA(event_shape=(WIDTH,), latent=2), loaded.train, steps=2, progress=False)
    moved = pd.DataFrame(raw[:, MIXED], columns=[NAMES[i] for i in MIXED])
    np.testing.assert_allclose(fit.elbo(moved).values, fit.elbo(loaded.train).values, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fit.reconstruct(moved)["b"], fit.reconstruct(raw)[:, 1], rtol=1e-5)


@LIBRARIES
def test_codes_that_are_no_sites_are_refused(library):
    fit, z = named_fit(), fit_of("exact").encode(X)
    make = lambda columns: MAKE[library](np.stack(list(columns.values()), 1), list(columns))
    with pytest.raises(DataError, match="columns of 'z' are places of different shapes"):
        fit.decode(make({"z[0]": z[:, 0], "z[0,1]": z[:, 1]}))
    with pytest.raises(DataError, match="columns of 'z' are places of different shapes"):
        fit.decode(make({"z": z[:, 0], "z[1]": z[:, 1]}))
    with pytest.raises(DataError, match=r"without the column z\[0\]"):
        fit.decode(make({"z[1]": z[:, 1]}))
    if library == "pandas":
        with pytest.raises(DataError, match="two columns of one name"):
            fit.decode(pd.DataFrame(z, columns=["z[0]", "z[0]"]))


# --- sparse matrices -------------------------------------------------------------------------------------------------

DENSE = np.where(np.random.default_rng(2).random((60, 9)) < 0.3, 1.0, 0.0).astype(np.float32)
PROGRAM = VAE(event_shape=(9,), latent=2, encoder=MLP(hidden=(6,)), decoder=MLP(hidden=(6,)))


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_array", "lil_matrix"])
def test_sparse_rows_are_those_of_the_dense_matrix(kind):
    sparse = getattr(scipy.sparse, kind)(DENSE)
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0))
    for method in (fit.elbo, fit.log_likelihood):
        np.testing.assert_array_equal(method(sparse, k=3).values, method(DENSE, k=3).values)
    np.testing.assert_array_equal(fit.encode({"x": sparse}), fit.encode(DENSE))


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_on_sparse_rows_has_the_same_bits(backend):
    how = {"steps": 5, "batch_size": 16, "progress": False, "backend": backend, "compile": False}
    sparse = scipy.sparse.csr_array(DENSE)
    first, second = (ppdgm.fit(PROGRAM, x, validation=x, **how) for x in (DENSE, sparse))
    for name, value in first.params.items():
        np.testing.assert_allclose(second.params[name], value, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(second.history["validation_elbo"], first.history["validation_elbo"], rtol=1e-6)


def test_sparse_rows_are_scaled_and_checked():
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), codings={"x": Transform("unit", 4.0)})
    np.testing.assert_array_equal(fit.elbo(scipy.sparse.csr_matrix(4 * DENSE)).values, fit.elbo(4 * DENSE).values)
    odd, fit = DENSE.copy(), ppdgm.Fit(PROGRAM, PROGRAM.initialise(0))
    odd[7, 3] = np.nan
    with pytest.raises(DataError, match=r"nan at index \(7, 3\)"):
        fit.elbo(scipy.sparse.csr_matrix(odd))
    with pytest.raises(DataError, match="complex"):
        fit.elbo(scipy.sparse.csr_matrix(DENSE.astype(complex)))
