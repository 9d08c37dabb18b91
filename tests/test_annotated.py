"""Annotated matrices: .h5ad files that anndata wrote, and AnnData objects, against the arrays they were made of."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from test_comparing import cli
from test_loaded_objects import check_same

import ppdgm
from ppdgm.data import load_data
from ppdgm.errors import DataError
from ppdgm.models import MLP, PPCA, VAE, Poisson

RNG = np.random.default_rng(0)
N, GENES = 30, [f"g{i}" for i in range(6)]
COUNTS = RNG.poisson(2, (N, 6)).astype(np.float32) + (np.arange(6) == 0)
CELLS = [f"c{i}" for i in range(N)]
TYPES = RNG.choice(["t", "s"], N).astype(object)
BATCH = np.where(np.arange(N) % 5 == 0, None, RNG.choice(["u", "v"], N))
AGE, SIZE = RNG.integers(20, 90, N), COUNTS.sum(1) / 7
KINDS = {"dense": np.asarray, "csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix}
ROWS = {"validation": 0, "test": 0}


def made(kind, genes=slice(None), order=slice(None)):
    words = lambda values: pd.Index(values, dtype=object)  # anndata does not write the texts of pandas 3
    columns = {"type": TYPES, "batch": pd.Categorical(BATCH), "age": AGE, "size": SIZE, "old": AGE > 50}
    obs = pd.DataFrame(columns, index=words(CELLS))
    obs["type"] = obs["type"].astype(object)
    obs["batch"] = obs["batch"].cat.rename_categories(words(["u", "v"]))
    obs["n"] = pd.array([None if i % 3 else i for i in range(N)], dtype="Int64")
    counts, var = COUNTS[order, genes], pd.DataFrame(index=words(GENES[genes]))
    data = anndata.AnnData(KINDS[kind](np.log1p(counts)), obs.iloc[order], var)
    data.layers["counts"] = KINDS[kind](counts)
    return data


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    for kind in KINDS:
        made(kind).write_h5ad(folder / f"{kind}.h5ad")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_the_matrix_and_columns_of_obs(kind, files):
    fields = {"x": "g1:g4", "label": "batch", "type": "type", "covariates": ["age", "size", "old"]}
    for source in (files / f"{kind}.h5ad", made(kind)):
        data = load_data(source, fields=fields, layer="counts", **ROWS)
        np.testing.assert_array_equal(data.train["x"][:], COUNTS[:, 1:5])
        np.testing.assert_array_equal(data.train["label"], [{"u": 0, "v": 1, None: -1}[b] for b in BATCH])
        np.testing.assert_array_equal(data.train["type"], TYPES == "t")
        np.testing.assert_allclose(data.train["covariates"], np.stack([AGE, SIZE, AGE > 50], 1))
        assert data.classes == {"label": ("u", "v"), "type": ("s", "t")} and data.transform.columns == (*GENES[1:5],)
        assert data.index["train"].tolist() == CELLS
        assert ("sparse" in repr(data)) == (kind != "dense")
        plain = load_data(source, **ROWS)
        np.testing.assert_array_equal(plain.train[:], np.log1p(COUNTS))
        assert plain.transform.columns == (*GENES,)
    check_same(load_data(files / f"{kind}.h5ad", test=5), load_data(made(kind), test=5))


@pytest.mark.parametrize("kind", KINDS)
def test_exposure_is_a_column_or_the_total(kind, files):
    path = files / f"{kind}.h5ad"
    data = load_data(path, layer="counts", fields=["x", "exposure"], **ROWS)
    np.testing.assert_array_equal(data.train["exposure"], COUNTS.sum(1))
    some = load_data(path, layer="counts", fields={"x": ["!g0", "!g1"], "exposure": "exposure"}, **ROWS)
    np.testing.assert_array_equal(some.train["exposure"], COUNTS[:, 2:].sum(1))
    own = load_data(path, layer="counts", fields={"x": "x", "exposure": "size"}, **ROWS)
    np.testing.assert_allclose(own.train["exposure"], SIZE, rtol=1e-6)
    with pytest.raises(DataError, match=r"at index \(0, 0\), expected raw counts.*layer='counts'.*There is 'counts'"):
        load_data(path, fields=["x", "exposure"])


def test_totals_of_other_sources(tmp_path):
    frame = pd.DataFrame(COUNTS, columns=GENES)
    frame.to_csv(tmp_path / "t.csv", index=False)
    np.savez(tmp_path / "t.npz", x=COUNTS)
    for source in (frame, tmp_path / "t.csv", tmp_path / "t.npz", {"x": scipy.sparse.csr_matrix(COUNTS)}, COUNTS):
        data = load_data(source, fields=["x", "exposure"], **ROWS)
        np.testing.assert_array_equal(data.train["exposure"], COUNTS.sum(1))
    empty = COUNTS * (np.arange(N) != 4)[:, None]
    with pytest.raises(DataError, match=r"row 4 has no counts.* 1 of 30 rows"):
        load_data(empty, fields=["x", "exposure"])
    with pytest.raises(DataError, match=r"got -1.0 at index \(0, 0\), expected raw counts"):
        load_data(scipy.sparse.csr_matrix(-np.ones((3, 2))), fields=["x", "exposure"])


def test_a_run_on_cells_from_the_command_line(files, tmp_path, monkeypatch):
    """Genes are found by name in another file, in another order; codes come back with the cells' names."""
    monkeypatch.chdir(tmp_path)
    how = ["--set", "data.layer=counts", "--set", "program.latent=1", "--steps", 2, "--quiet"]
    cli("fit", "ppca", "--data", files / "csr.h5ad", "--fields", "x=g*", *how, "--out", "run")
    turned = slice(None, None, -1)
    other = made("csc", turned, turned)
    other.write_h5ad("other.h5ad")
    cli("encode", "run", "--data", "other.h5ad", "--out", "codes.csv", "--k", 2)
    found, fit = pd.read_csv("codes.csv"), ppdgm.load("run")
    assert found["name"].tolist() == CELLS[::-1]
    np.testing.assert_allclose(found["z[0]"], fit.encode(COUNTS)[::-1, 0], rtol=1e-5, atol=1e-6)
    again = load_data(other, like=fit, **ROWS)
    np.testing.assert_array_equal(again.train[:], COUNTS[::-1])
    with pytest.raises(DataError, match="has no 'g5' in var_names"):
        load_data(made("dense", slice(5)), like=fit)
    np.testing.assert_array_equal(fit.encode(other), fit.encode(COUNTS[::-1]))  # the run's layer, and its genes
    trained = ppdgm.fit(PPCA(event_shape=(6,), latent=1), made("csr"), steps=2, progress=False)
    assert trained.transform.columns == (*GENES,)
    np.testing.assert_allclose(trained.encode(other), trained.encode(np.log1p(COUNTS[::-1])), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_counts_with_the_exposure_of_a_file(backend, files):
    """The bound of sparse rows with their totals is that of the arrays, and not that of other exposures."""
    nets = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))}
    program = VAE(event_shape=(6,), latent=1, likelihood=Poisson(exposure=True), **nets)
    fit = ppdgm.Fit(program, program.initialise(0), backend)
    rows = load_data(files / "csr.h5ad", layer="counts", fields=["x", "exposure"], **ROWS).train
    found = fit.elbo(rows, k=2).values
    np.testing.assert_array_equal(found, fit.elbo({"x": COUNTS, "exposure": COUNTS.sum(1)}, k=2).values)
    assert not np.allclose(found, fit.elbo({"x": COUNTS, "exposure": 2 * COUNTS.sum(1)}, k=2).values)


def test_what_is_not_there_is_told(files, tmp_path):
    path = files / "dense.h5ad"
    for how, told in {
        "layer": ({"layer": "count"}, "layer: got 'count'. Did you mean 'counts'"),
        "gene": ({"fields": {"x": ["g1", "h1"]}}, "no column 'h1'"),
        "column": ({"fields": {"x": "x", "batch": "batches"}}, "obs has no column 'batches'"),
        "gap": ({"fields": {"x": "x", "n": "n"}}, r"obs, row 1, column n: got '', a missing value"),
        "text": ({"fields": {"x": "x", "c": ["age", "type"]}}, "column type: got '.', expected numbers"),
        "index": ({"index": True}, "obs_names are the names of rows"),
        "header": ({"header": True}, "header: got True"),
        "no x": ({"fields": {"exposure": "exposure"}}, "without x"),
    }.values():
        with pytest.raises(DataError, match=told):
            load_data(path, **how)
    with pytest.raises(DataError, match="is not annotated data"):
        load_data(COUNTS, layer="counts")
    no_x = made("dense")
    no_x.X = None
    no_x.write_h5ad(tmp_path / "no.h5ad")
    for source in (no_x, tmp_path / "no.h5ad"):
        with pytest.raises(DataError, match=r"has no X. Choose a layer"):
            load_data(source)
    content = path.read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"not a complete .h5ad file"):
        load_data(tmp_path / "cut.h5ad")
    made("csr").write_h5ad(tmp_path / "forged.h5ad")
    with h5py.File(tmp_path / "forged.h5ad", "r+") as file:
        file["X/indices"][3] = 99
    with pytest.raises(DataError, match=r"not a complete .h5ad file"):
        load_data(tmp_path / "forged.h5ad")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["x"] = COUNTS
    with pytest.raises(DataError, match="without 'obs' and 'var'"):
        load_data(tmp_path / "other.h5ad")
