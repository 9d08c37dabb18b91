"""Every public entry that takes arrays, given every wrong kind of array: which field, what it is, and what to do."""

from decimal import Decimal

import jax
import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from bad_inputs import OTHERS
from test_wrong_kinds import X

import ppdgm
from ppdgm.data import Transform, as_fields, binarise, load_data
from ppdgm.data.kinds import numbers
from ppdgm.errors import CheckpointError, DataError, PpdgmError, ProgramError
from ppdgm.models import MLP, VAE

FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
WRONG = {  # name: (what is handed over, what is said)
    "a column of text": (FRAME.assign(s="u"), "column 's' has text, such as 'u' at index (0,)", "cat.codes"),
    "columns of text": (FRAME.assign(s="u", t="v"), "also 't'", "select_dtypes('number')"),
    "a column of classes": (FRAME.assign(c=pd.Categorical(list("uv") * 6)), "column 'c' has text", "cat.codes"),
    "a column of dates": (FRAME.assign(c=pd.Timestamp("2020-01-01")), "column 'c' has datetime64", "select_dtypes"),
    "a column of lists": (FRAME.assign(c=[[1]] * 12), "'c' has list, such as [1] at index (0,)", "select_dtypes"),
    "a series of text": (pd.Series(["u", "v"] * 6), "text, such as 'u' at index (0,)", "x.astype('float64')"),
    "text": (X.astype(str), "got text", "x.astype('float64')"),
    "bytes": (X.astype("S"), "got text", "x.astype('float64')"),
    "objects": (np.array([{}] * 12), "Python objects: dict, such as {} at index (0,)", "make them numbers"),
    "rows of dictionaries": ([{"a": 1}] * 12, "dict, such as {'a': 1} at index (0,)", "make them numbers"),
    "complex numbers": (X + 1j, "got complex64", "np.stack([x.real, x.imag], -1)"),
    "dates": (np.array(["2020-01-01"] * 12, "M8[D]"), "got datetime64[D]", "astype('m8[s]')"),
    "durations": (np.zeros(12, "m8[s]"), "got timedelta64[s]", "astype('m8[s]')"),
    "records": (np.zeros(12, [("a", "f4"), ("b", "f4")]), "with the columns a, b", "structured_to_unstructured"),
    "a sparse tensor": (torch.tensor(X).to_sparse(), "Sparse layout", "to_dense"),
    "a generator": ((x for x in X), "a generator, which gives its rows only once", "np.stack(list(rows))"),
    "a pair": ((X, np.arange(12)), "arrays of shapes (12, 3), (12,) in one field", "{'x': x, 'label': y}"),
    "rows of different lengths": ([[1], [1, 2]], "rows of different lengths", "Pad them"),
    "a path": ("rows.csv", "the text 'rows.csv'", "ppdgm.load_data(path)"),
    "nothing": (None, "nothing (None)", "Give an array"),
    "a table of tables": ({"x": {"x": X}}, "a dictionary within a field", "{'x': x, 'label': y}"),
    "a set": ({1, 2}, "a set, which has no order", "Give a list"),
    "one number": (3.0, "the single number 3.0", "an array of rows"),
    "no columns": (FRAME[[]], "an empty array of shape (12, 0)", "at least one"),
}  # fmt: skip
SPARSE = {  # which is data, but no array
    "a sparse matrix": (scipy.sparse.csr_matrix(X), "a sparse matrix (csr_matrix)", "x.toarray()"),
    "a sparse array": (scipy.sparse.coo_array(X), "a sparse matrix (coo_array)", "x.toarray()"),
}
RIGHT = {  # what stands for X
    "a table": FRAME,
    "a table of booleans and numbers": FRAME.assign(a=FRAME.a > 0, b=FRAME.b.astype(int)),
    "a table of pandas' own types": FRAME.astype("Int64"),
    "Python's numbers": X.astype(object),
    "lists": X.tolist(),
    "float16": X.astype("f2"),
    "bytes": X.astype("u1"),
    "a tensor": torch.tensor(X),
    "a tensor with a gradient": torch.nn.Parameter(torch.tensor(X)),
    "a tensor that is no block": torch.tensor(X.T.copy()).T,
    "bfloat16": X.astype(ml_dtypes.bfloat16),
    "bfloat16 of JAX": jax.numpy.asarray(X, jax.numpy.bfloat16),
    "bfloat16 of torch": torch.tensor(X).bfloat16(),
    "float8": X.astype(ml_dtypes.float8_e4m3fn),
    "float8 of torch": torch.tensor(X).to(torch.float8_e4m3fn),
    "four bits": X.astype(ml_dtypes.int4),
    "long doubles": X.astype(np.longdouble),
    "big-endian": X.astype(">f8"),
    "64 bits": X.astype(np.uint64),
    "a masked array without gaps": np.ma.array(X, mask=False),
    "read-only": np.broadcast_to(X, X.shape),
    "every second row": np.repeat(X, 2, 0)[::2],
    "exact decimals": np.array([[Decimal(float(v)) for v in row] for row in X]),
    "a table of polars": pl.from_pandas(FRAME),
    "a table of Arrow": pa.Table.from_pandas(FRAME),
    "an array of JAX": jax.numpy.asarray(X),
    "Fortran order": np.asfortranarray(X),
}
PROGRAM = VAE(event_shape=(3,), latent=2, encoder=MLP(hidden=(3,)), decoder=MLP(hidden=(3,)))
SCALED = {"x": Transform("standardise", 1.0, np.full(3, 40.0), np.full(3, 7.0), level=0.8)}
FITS = {b: ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), b) for b in ("numpyro", "pyro")}
ENTRIES = {
    "as_fields": as_fields,
    "fit": lambda x: ppdgm.fit(PROGRAM, x, steps=1, progress=False, backend="pyro"),
    "fit, validation": lambda x: ppdgm.fit(PROGRAM, X, validation=x, steps=1, progress=False, backend="pyro"),
    "fit.elbo on numpyro": FITS["numpyro"].elbo,
    "fit.elbo on pyro": FITS["pyro"].elbo,
    "fit.log_likelihood": FITS["pyro"].log_likelihood,
    "fit.log_weights": FITS["pyro"].log_weights,
    "fit.encode": FITS["numpyro"].encode,
    "fit.reconstruct": FITS["pyro"].reconstruct,
    "fit.posterior": FITS["pyro"].posterior,
    "fit.to_arviz": FITS["pyro"].to_arviz,
    "fit.diagnose": FITS["numpyro"].diagnose,
    "log_weights": lambda x: ppdgm.log_weights(PROGRAM, PROGRAM.initialise(0), x, k=1, backend="pyro"),
    "trace": lambda x: ppdgm.trace(PROGRAM, PROGRAM.initialise(0), x, k=1, backend="numpyro"),
    "a run with units": ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), "pyro", codings=SCALED).elbo,
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_wrong_kind_at_every_entry(entry):
    for name, (value, got, do) in WRONG.items():
        if (entry, name) == ("fit, validation", "nothing"):  # which is no validation
            continue
        if entry in ("log_weights", "trace") and isinstance(value, pd.DataFrame):  # which take no tables
            continue
        with pytest.raises(DataError) as error:
            ENTRIES[entry]((x for x in X) if name == "a generator" else value)
        told = str(error.value)
        assert told.startswith("Data 'x': got ") and got in told and do in told and len(told) < 600, (name, told)


def test_of_other_arguments():
    """Functions of arrays of any shape; fields by name; a transform."""
    anywhere = {n: w for n, w in WRONG.items() if n not in ("one number", "no columns", "a table of tables")}
    for call in (lambda v: numbers("x", v), binarise, SCALED["x"].apply, SCALED["x"].invert):
        for value, got, do in (anywhere | SPARSE).values():
            with pytest.raises(DataError) as error:
                call(value)
            assert got in str(error.value) and do in str(error.value)
    for name, (value, got, _) in anywhere.items():
        with pytest.raises(DataError) as error:
            as_fields({"x": X, "label": value})
        assert str(error.value).startswith("Data 'label': got ") and got in str(error.value), name


def test_of_parameters_and_of_what_is_given():
    anywhere = {n: w for n, w in WRONG.items() if n not in ("one number", "no columns", "a table of tables")}
    first, name = PROGRAM.initialise(0), "decoder.layers.0.bias"
    for kind, (value, got, do) in anywhere.items():
        params = {**first, name: value}
        for call in (
            lambda p=params: ppdgm.log_weights(PROGRAM, p, X, k=1, backend="pyro"),
            lambda p=params: ppdgm.trace(PROGRAM, p, X, k=1, backend="numpyro"),
            lambda p=params: ppdgm.fit(PROGRAM, X, params=p, steps=1, progress=False, backend="pyro"),
        ):
            with pytest.raises(ProgramError) as error:
                call()
            told = str(error.value)
            assert told.startswith(f"params: {name!r}: got ") and got in told and do in told, (kind, told)
        with pytest.raises(PpdgmError):  # rows of another number, names, or one of these kinds
            FITS["pyro"].sample(12, given={"z": (x for x in X) if kind == "a generator" else value})
    for params in ({**first, name: 3.0}, {**first, name: np.ones(4)}, {n: v for n, v in first.items() if n != name}):
        with pytest.raises(CheckpointError, match=rf"parameter '{name}'"):  # 3.0 was one for all of them
            ppdgm.log_weights(PROGRAM, params, X, k=1, backend="pyro")


@pytest.mark.parametrize("name", RIGHT)
def test_every_right_kind_is_the_same_data(name):
    for data, dtype in ((RIGHT[name], "float32"), ({"x": RIGHT[name]}, "float64")):
        found = as_fields(data, dtype)["x"]
        assert found.dtype == dtype and np.array_equal(found, X) and found.flags.c_contiguous
    np.testing.assert_allclose(SCALED["x"].apply(RIGHT[name]), SCALED["x"].apply(X), rtol=1e-6)


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_what_is_missing_is_told_of(missing):
    """None and NA are NaN: of x it is said what can be done, of a label they are −1."""
    rows = FRAME.astype(object)
    rows.iloc[4, 1] = missing
    for data in (rows, rows.to_numpy()):
        with pytest.raises(DataError, match=r"'x': got nan at index \(4, 1\), .* 1 of 12 .*fill them in.*dist\.mask"):
            FITS["pyro"].elbo(data)
    label = pd.Series([0, 1] * 6, dtype=object)
    label[3] = missing
    program = ppdgm.models.SemiSupervisedVAE(event_shape=(3,), classes=2, latent=1)
    expected = np.where(np.arange(12) == 3, -1, np.arange(12) % 2)
    for given in (label, label.tolist(), pd.to_numeric(label), np.ma.array([0, 1] * 6, mask=np.arange(12) == 3)):
        fields = as_fields({"x": X, "label": given})
        assert fields["label"].dtype == np.int64 and np.array_equal(fields["label"], expected)
    found = ppdgm.fit(program, {"x": X, "label": label}, steps=1, progress=False, backend="pyro")
    same = ppdgm.fit(program, {"x": X, "label": expected}, steps=1, progress=False, backend="pyro")
    assert all(np.array_equal(v, same.params[n]) for n, v in found.params.items())
    label[4] = 0.5
    with pytest.raises(DataError, match=r"'label': got nan at index \(3,\), .*A missing label is −1"):  # no classes
        ppdgm.fit(program, {"x": X, "label": label}, steps=1, progress=False, backend="pyro")
    words = pd.Series(["u", "v"] * 6, dtype=object)
    with pytest.raises(DataError, match=r"'label': got .*text, such as 'u'.*np\.unique\(words, return_inverse=True\)"):
        ppdgm.fit(program, {"x": X, "label": words}, steps=1, progress=False, backend="pyro")


def test_masked_rows_of_a_programs_own():
    """What the message about NaN advises is exact: log p of what is there, by hand."""

    class Masked(ppdgm.Program):
        def build(self, c):
            c.param("loc", (3,))

        def model(self, P, x, mask):
            with P.plate("data", x):
                z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
                d = P.dist.Normal(P.param("loc") + 0 * z, P.full((3,), 1.0))
                P.sample("x", d.mask(mask > 0.5).to_event(1), obs=x)

        def guide(self, P, x, mask):
            with P.plate("data", x):
                P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))

    there = np.arange(36).reshape(12, 3) % 5 > 0
    program, x = Masked(), np.where(there, X, 9.0).astype("f4")
    expected = np.where(there, -(x**2) / 2 - np.log(2 * np.pi) / 2, 0).sum(1)
    for backend in FITS:
        found = ppdgm.log_weights(program, program.initialise(0), {"x": x, "mask": there}, k=1, backend=backend)
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)


@pytest.mark.parametrize("ending", OTHERS)
def test_files_of_other_programs(ending, tmp_path):
    path = tmp_path / f"rows{ending}"
    path.write_bytes(b"PK\3\4")
    with pytest.raises(DataError) as error:
        load_data(path)
    told = str(error.value)
    assert f"rows{ending}: got " in told and "expected .npy" in told and OTHERS[ending] in told
