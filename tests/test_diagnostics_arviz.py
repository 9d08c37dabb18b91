"""ArviZ, of either generation: groups, named axes, round trips, its own tables and plots; and what is withheld."""

import importlib.metadata
import os
import subprocess
import sys
import tracemalloc
import types
import warnings

import numpy as np
import pytest

import ppdgm
from ppdgm import diagnostics
from ppdgm.diagnostics import pit, psis, ranks, to_arviz, withheld
from ppdgm.errors import DataError, PackageMissing

FIRST = importlib.metadata.version("arviz").startswith("0.")
S, N, D = 40, 12, 3
RNG = np.random.default_rng(0)
GROUPS = {
    "posterior": {"z": RNG.normal(size=(S, N, D)), "theta": RNG.normal(size=(S, 2))},
    "posterior_predictive": {"x": RNG.normal(size=(S, N, 4, 5))},
    "prior": {"z": RNG.normal(size=(30, D))},
    "prior_predictive": {"x": RNG.normal(size=(30, 4, 5))},
    "log_likelihood": {"x": RNG.normal(size=(S, N))},
    "observed_data": {"x": RNG.normal(size=(N, 4, 5)), "label": np.arange(N)},
    "sample_stats": {"log_q": RNG.normal(size=(S, N)), "lp": RNG.normal(size=S)},
}
DIMS = {"theta": ["theta_dim"]}


def dataset(result, group):
    """A group as an xarray.Dataset."""
    return result[group] if FIRST else result[group].to_dataset()


def groups_of(result):
    return set(result.groups()) if FIRST else set(result.children)


def made(**changes):
    return to_arviz(GROUPS, dims=DIMS, inference_library="numpyro", **changes)


# --- groups and axes --------------------------------------------------------------------------------------------------


def test_every_group_with_named_axes_and_the_numbers_given():
    result = made()
    assert type(result).__name__ == ("InferenceData" if FIRST else "DataTree")
    assert groups_of(result) == set(GROUPS)
    axes = {
        ("posterior", "z"): ("chain", "draw", "datum", "z_dim"),
        ("posterior", "theta"): ("chain", "draw", "theta_dim"),
        ("posterior_predictive", "x"): ("chain", "draw", "datum", "x_row", "x_column"),
        ("prior", "z"): ("chain", "draw", "z_dim"),
        ("prior_predictive", "x"): ("chain", "draw", "x_row", "x_column"),
        ("log_likelihood", "x"): ("chain", "draw", "datum"),
        ("observed_data", "x"): ("datum", "x_row", "x_column"),
        ("observed_data", "label"): ("datum",),
        ("sample_stats", "log_q"): ("chain", "draw", "datum"),
        ("sample_stats", "lp"): ("chain", "draw"),
    }
    for (group, name), expected in axes.items():
        variable = dataset(result, group)[name]
        assert variable.dims == expected
        given = GROUPS[group][name]
        np.testing.assert_array_equal(variable.values, given if group == "observed_data" else given[None])
        assert set(variable.coords) == set(expected)


def test_labels_of_data_and_of_other_axes():
    index = np.arange(100, 100 + N)
    result = made(coords={"datum": index, "z_dim": ["a", "b", "c"]})
    posterior = dataset(result, "posterior")
    assert list(posterior["z"].sel(datum=103, z_dim="b").values[0]) == list(GROUPS["posterior"]["z"][:, 3, 1])
    for group in ("observed_data", "log_likelihood", "posterior_predictive"):
        assert list(dataset(result, group)["datum"].values) == list(index)
    assert "datum" not in dataset(result, "prior").coords


def test_channels_tables_and_sequences():
    result = to_arviz(
        {"observed_data": {"x": np.zeros((N, 3, 8, 9)), "y": np.zeros((N, 4)), "w": np.zeros((N, 2, 2, 2, 2))}}
    )
    observed = dataset(result, "observed_data")
    assert observed["x"].dims == ("datum", "x_channel", "x_row", "x_column")
    assert observed["y"].dims == ("datum", "y_dim")
    assert observed["w"].dims == ("datum", "w_dim_0", "w_dim_1", "w_dim_2", "w_dim_3")
    latent = dataset(to_arviz({"posterior": {"z": np.zeros((S, N, 2, 2))}}), "posterior")
    assert latent["z"].dims == ("chain", "draw", "datum", "z_dim_0", "z_dim_1")


def test_axes_can_be_named():
    """For all groups at once: what a group lacks (a datum's axes, or the data) is left out there."""
    groups = {g: {"x": GROUPS[g]["x"]} for g in ("posterior_predictive", "prior_predictive", "log_likelihood")}
    result = to_arviz(groups, dims={"x": ["datum", "height", "breadth"]})
    assert dataset(result, "posterior_predictive")["x"].dims[2:] == ("datum", "height", "breadth")
    assert dataset(result, "prior_predictive")["x"].dims[2:] == ("height", "breadth")
    assert dataset(result, "log_likelihood")["x"].dims[2:] == ("datum",)


def test_notes():
    result = made(attrs={"run": "vae", "k": 3, "engine": ["iwae"], "fast": True})
    for attrs in (result.attrs, dataset(result, "posterior").attrs):
        assert attrs["creation_library"] == "ppdgm" and attrs["creation_library_version"] == ppdgm.__version__
        assert attrs["inference_library"] == "numpyro" and attrs["run"] == "vae" and attrs["k"] == 3
        assert attrs["engine"] == "['iwae']" and attrs["fast"] == "True" and "created_at" in attrs
    assert "inference_library" not in to_arviz(GROUPS, dims=DIMS).attrs


def test_arrays_are_not_copied():
    z = np.zeros((S, N, D), dtype="float32")
    assert np.shares_memory(dataset(to_arviz({"posterior": {"z": z}}), "posterior")["z"].values, z)


# --- chunks -----------------------------------------------------------------------------------------------------------


def chunks(array, axis, size=5):
    for i in range(0, array.shape[axis], size):
        yield array[i : i + size] if axis == 0 else array[:, i : i + size]


@pytest.mark.parametrize("known", [True, False])
def test_chunks_of_data_make_one_array(known):
    lazy = {
        "posterior": {"z": chunks(GROUPS["posterior"]["z"], 1)},
        "posterior_predictive": {"x": chunks(GROUPS["posterior_predictive"]["x"], 1)},
        "observed_data": {"x": chunks(GROUPS["observed_data"]["x"], 0)},
    }
    result = to_arviz(lazy, coords={"datum": np.arange(N)} if known else None)
    whole = made()
    for group, name in (("posterior", "z"), ("posterior_predictive", "x"), ("observed_data", "x")):
        a, b = dataset(result, group)[name], dataset(whole, group)[name]
        assert a.dims == b.dims and (a.values == b.values).all()


def test_chunks_take_no_second_copy():
    size, width = 4000, 50
    data = np.broadcast_to(np.float32(0), (20, size, width))
    tracemalloc.start()
    result = to_arviz({"posterior": {"z": chunks(data, 1, 100)}}, coords={"datum": np.arange(size)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    own = dataset(result, "posterior")["z"].nbytes
    assert own == 20 * size * width * 4
    assert peak < 1.2 * own


# --- ArviZ's own files, tables and plots ------------------------------------------------------------------------------


def test_a_file_there_and_back(tmp_path):
    pytest.importorskip("h5py", reason="ArviZ 1.x installs no writer of NetCDF by itself")
    result, path = made(coords={"datum": np.arange(5, 5 + N)}), str(tmp_path / "run.nc")
    result.to_netcdf(path)
    again = psis.arviz().from_netcdf(path)
    assert groups_of(again) == set(GROUPS)
    for group, variables in GROUPS.items():
        for name in variables:
            a, b = dataset(result, group)[name], dataset(again, group)[name]
            assert a.dims == b.dims and (a.values == b.values).all()
            assert all((a[axis].values == b[axis].values).all() for axis in a.dims)
    assert again.attrs["inference_library"] == "numpyro"
    again.close()


def test_a_summary_of_every_dimension():
    with warnings.catch_warnings():  # of one chain ArviZ computes no R̂, and says so
        warnings.simplefilter("ignore")
        options = {"var_names": ["z"], "kind": "stats"}
        table = psis.arviz().summary(made(), **options)
    assert len(table) == N * D
    first = GROUPS["posterior"]["z"][:, 0, 0]
    assert float(table["mean"].iloc[0]) == pytest.approx(first.mean(), abs=0.01)


@pytest.fixture
def plots():
    import matplotlib

    matplotlib.use("Agg")
    with warnings.catch_warnings():  # ArviZ's own, about matplotlib and about few draws
        warnings.simplefilter("ignore")
        yield psis.arviz()
    import matplotlib.pyplot as plt

    plt.close("all")


def test_plots_of_the_posterior(plots):
    result = made()
    if FIRST:
        plots.plot_posterior(result, var_names=["theta"])
        plots.plot_forest(result, var_names=["theta"])
        plots.plot_density([result], var_names=["theta"])
        plots.plot_ppc(result, num_pp_samples=5, var_names=["x"])
    else:
        plots.plot_dist(result, var_names=["theta"], backend="matplotlib")
        plots.plot_forest(result, var_names=["theta"], backend="matplotlib")
        plots.plot_ppc_dist(result, num_samples=5, var_names=["x"], backend="matplotlib")


def test_rank_and_ecdf_plots_of_calibration(plots):
    truth, draws = RNG.normal(size=(50, 2)), RNG.normal(size=(19, 50, 2))
    u = pit(ranks(draws, truth), 19)
    result = to_arviz({"prior_sbc": {"z": u}})
    assert dataset(result, "prior_sbc")["z"].dims == ("chain", "draw", "z_dim")
    if FIRST:
        plots.plot_ecdf(u[:, 0], cdf=lambda p: p, pit=True, confidence_bands="pointwise")
        plots.plot_rank(u.T)
    else:
        plots.plot_ecdf_pit(result, group="prior_sbc", backend="matplotlib")


def test_leave_one_out_of_arviz_reads_the_groups():
    """Of independent posterior draws, with a latent that all share: ArviZ's sum is ours."""
    theta = RNG.normal(size=(500, 1)) * 0.2
    seen = -0.5 * (RNG.normal(size=N) - theta) ** 2
    result = to_arviz({"posterior": {"theta": theta}, "log_likelihood": {"x": seen}}, dims=DIMS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = psis.arviz().loo(result, reff=1.0)
    ours = diagnostics.loo(seen, np.zeros(500), np.zeros(500))
    assert float(theirs["elpd_loo"] if FIRST else theirs.elpd) == pytest.approx(ours.elpd.value, abs=1e-8)


# --- what is refused and withheld -------------------------------------------------------------------------------------


def test_what_is_of_chains_is_withheld_with_a_reason():
    assert "independent" in withheld("r_hat") and withheld("rhat") == withheld("r_hat")
    assert "effective_sample_size" in withheld("ess_bulk")
    for name in ("mcse", "energy", "divergences", "trace", "rank", "autocorr"):
        assert withheld(name).endswith(".")
    with pytest.raises(
        DataError, match=r"name: got 'r_hot', expected the name of a diagnostic of chains. Did you mean 'r_hat'"
    ):
        withheld("r_hot")
    with pytest.raises(DataError, match="name: got 3"):
        withheld(3)


REFUSED = {
    "no groups": ({}, {}, "groups: got {}"),
    "unknown group": ({"posteriors": {"z": [1.0]}}, {}, "Did you mean 'posterior'"),
    "no variables": ({"prior": np.zeros(3)}, {}, "groups['prior']: got "),
    "text": ({"prior": {"z": "abc"}}, {}, "groups['prior']['z']: got 'abc', expected real numbers"),
    "objects": ({"prior": {"z": [None, 1]}}, {}, "groups['prior']['z']: got object, expected real numbers"),
    "a number": ({"prior": {"z": 1.0}}, {}, "groups['prior']['z']: got a single number"),
    "ragged": ({"prior": {"z": [[1.0], [1.0, 2.0]]}}, {}, "groups['prior']['z']: got [[1.0], [1.0, 2.0]], which NumPy"),
    "text for axes": (
        {"prior": {"z": np.zeros((3, 2))}},
        {"dims": {"z": "axis"}},
        "dims['z']: got 'axis', expected names",
    ),
    "an axis twice": (
        {"posterior": {"z": np.zeros((3, 2, 2))}},
        {"dims": {"z": ["a", "a"]}},
        "expected each name once",
    ),
    "no mapping of axes": ({"prior": {"z": np.zeros(3)}}, {"dims": ["z"]}, "dims: got ['z'], expected a mapping"),
    "no mapping of labels": ({"prior": {"z": np.zeros(3)}}, {"coords": 3}, "coords: got 3, expected a mapping"),
    "one label": (
        {"prior": {"z": np.zeros(3)}},
        {"coords": {"draw": 3}},
        "coords['draw']: got array(3), expected a label",
    ),
    "a name that's no text": ({"prior": {3: np.zeros(3)}}, {}, "got the name 3"),
    "an axis' name": ({"prior": {"draw": np.zeros(3)}}, {}, "groups['prior']['draw']: a variable can't have the name"),
    "other data": (
        {"observed_data": {"x": np.zeros((N, 2))}, "posterior": {"theta": np.zeros((S, 7))}},
        {},
        "groups['posterior']['theta']: got 7 along 'datum', expected 12. If it has no axis of data, give dims={",
    ),
    "other draws": ({"prior": {"a": np.zeros(3), "b": np.zeros(4)}}, {}, "['b']: got 4 along 'draw', expected 3"),
    "too few labels": (
        {"posterior": {"z": np.zeros((S, N, D))}},
        {"coords": {"z_dim": ["a"]}},
        "coords['z_dim']: got 1 labels, expected 3, the length of groups['posterior']['z'] along 'z_dim'",
    ),
    "labels of no axis": (
        {"posterior": {"z": np.zeros((S, N, D))}},
        {"coords": {"z_dims": ["a", "b", "c"]}},
        "coords: got 'z_dims', which is not an axis of these arrays. Did you mean 'z_dim'?",
    ),
    "too many axes": (
        {"posterior": {"z": np.zeros((S, N, D))}},
        {"dims": {"z": ["datum"]}},
        "dims['z']: got ['datum'], expected 2 axes after ('chain', 'draw')",
    ),
    "chunks of draws": ({"prior": {"z": iter([np.zeros((3, 2))])}}, {}, "prior has no axis of data to chunk"),
    "chunks that don't fit": (
        {"posterior": {"z": iter([np.zeros((3, 2)), np.zeros((4, 2))])}},
        {},
        "groups['posterior']['z'], chunk 1: got shape (4, 2), which doesn't match (3, 2)",
    ),
    "too many chunks": (
        {"posterior": {"z": iter([np.zeros((3, 2)), np.zeros((3, 2))])}},
        {"coords": {"datum": [1, 2, 3]}},
        "groups['posterior']['z']: got chunks of 4 rows in all, expected 3",
    ),
    "no chunks": ({"posterior": {"z": iter([])}}, {}, "got chunks of 0 rows in all, expected at least one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_groups_are_refused(name):
    groups, options, told = REFUSED[name]
    with pytest.raises(DataError) as caught:
        to_arviz(groups, **options)
    assert told in str(caught.value)


def test_without_arviz_the_message_says_what_to_install(monkeypatch):
    psis.arviz.cache_clear()
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(PackageMissing, match=r"pip install 'arviz>=0\.23'"):
        to_arviz({"prior": {"z": np.zeros(3)}})
    monkeypatch.undo()
    psis.arviz.cache_clear()


def test_arvizs_daily_warning_is_not_passed_on(tmp_path):
    """And where its cache folder can't be made, the message says what to do."""
    code = "import warnings; warnings.simplefilter('error'); from ppdgm.diagnostics import psis; psis.arviz()"
    run = lambda folder: subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"XDG_CACHE_HOME": str(folder)}
    )
    fresh = run(tmp_path)
    assert fresh.returncode == 0 and fresh.stderr == ""
    if FIRST:
        (tmp_path / "file").touch()
        assert "Set XDG_CACHE_HOME to a folder that can be written." in run(tmp_path / "file").stderr


def test_importing_is_light_and_names_are_there():
    """Nothing heavy is loaded, and no module hides a function of its name."""
    code = (
        "import sys, ppdgm.diagnostics as d; [getattr(d, n) for n in d.__all__]; "
        "print(sorted({'arviz', 'xarray', 'pandas', 'matplotlib', 'torch', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in diagnostics.__all__:
        assert not isinstance(getattr(diagnostics, name), types.ModuleType)
        assert getattr(diagnostics, name) is getattr(diagnostics, name)
    assert set(diagnostics.__all__) <= set(dir(diagnostics))
    with pytest.raises(AttributeError, match="no attribute 'pareto'"):
        _ = diagnostics.pareto
