"""Units: a run takes and gives rows in those of the user's own data, or prepared ones, and never scales them twice."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli.app import app
from ppdgm.data import Classes, Prepared, Stream, Transform, as_fields, binarise, codings_of, load_data
from ppdgm.data.looks import looks_prepared, may_be_prepared
from ppdgm.data.prepared import MIXED, RESCALED, coding_of
from ppdgm.errors import DataError, PpdgmError
from ppdgm.inference import Fit
from ppdgm.inference.runs.codings import read_codings
from ppdgm.models import PPCA, VAE, Bernoulli, Gaussian
from ppdgm.nets import MLP

RNG = np.random.default_rng(0)
RAW = RNG.normal(size=(90, 3)) @ [[2.0, 1, 0], [0, 3, 1], [0, 0, 30]] + [2450, 40, 900.0]
SMALL = MLP(hidden=(4,))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("units") / "table.npy"
    np.save(path, RAW)
    return path


@pytest.fixture(scope="module")
def runs(table, tmp_path_factory):
    """One standardised set, and runs that were trained on all that `fit` takes of it, opened anew."""
    data = load_data(table, scale="standardise")
    handed = {"a data set": data, "a split by name": {"x": data.train}}
    found = {}
    for name, part in handed.items():
        folder = tmp_path_factory.mktemp("run") / "a"
        ppdgm.fit(PPCA(event_shape=(3,), latent=1), part, steps=40, learning_rate=0.05, progress=False, out=folder)
        found[name] = folder
    return data, found


def exact(fit, data, raw):
    """log N(x; μ, WWᵀ + σ²I) of raw rows, scaled by NumPy; PPCA's guide is exact."""
    train = RAW[np.random.default_rng(0).permutation(90)[:72]]
    p = {n: v.astype(float) for n, v in fit.params.items()}
    covariance = p["weight"] @ p["weight"].T + np.exp(2 * p["log_scale"]) * np.eye(3)
    return multivariate_normal(p["loc"], covariance).logpdf((raw - train.mean(0)) / train.std(0))


@pytest.mark.parametrize(("backend", "name"), [("numpyro", "a data set"), ("pyro", "a split by name")])
def test_every_way_in_and_out_has_the_units_of_the_rows(runs, backend, name):
    data, folders = runs
    fit = ppdgm.load(folders[name], backend)
    raw, test = RAW[:6], data.test
    assert fit.transform == data.transform
    mean, scale = data.transform.mean, data.transform.scale
    known = fit.prepare(raw)
    assert isinstance(known, Prepared) and np.allclose(known, (raw - mean) / scale, atol=1e-5)
    right = exact(fit, data, raw)
    for rows in (
        raw,
        raw.tolist(),
        raw.astype("f4"),
        {"x": raw},
        known,
        known[:],
        known.copy(),
        list(known),
        {"x": tuple(known)},
        fit.prepare({"x": raw}),
    ):
        assert fit.elbo(rows, k=2).values == pytest.approx(right, abs=2e-3)
    assert fit.log_likelihood(raw, k=4).values == pytest.approx(right, abs=2e-3)
    assert fit.log_weights(raw, k=2) == pytest.approx(np.stack([right] * 2), abs=2e-3)
    assert "of standardised x" in str(fit.elbo(raw, k=2)) and fit.elbo(test, k=2).of == "standardised x"
    assert fit.elbo(test, k=2).mean == pytest.approx(exact(fit, data, data.transform.invert(test)).mean(), abs=2e-3)
    assert np.allclose(fit.encode(raw), fit.encode(known), atol=1e-5)
    assert np.allclose(fit.posterior(raw, draws=3), fit.posterior(known, draws=3), atol=1e-4)
    made, own = fit.reconstruct(known), fit.reconstruct(raw)
    assert coding_of(made) == data.transform and coding_of(own) is None
    assert np.allclose(own, made * scale + mean, rtol=1e-5)
    drawn, scaled = fit.sample(200, seed=1), fit.sample(200, seed=1, units="prepared")
    assert np.allclose(drawn, np.asarray(scaled) * scale + mean, rtol=1e-5) and coding_of(scaled) == data.transform
    assert abs(drawn.mean(0) - RAW.mean(0)).max() < 30 and coding_of(drawn) is None
    again = fit.elbo(drawn[:6], k=2).values
    assert again == pytest.approx(fit.elbo(scaled[:6], k=2).values, abs=2e-3)


def test_what_is_diagnosed_and_exported_has_the_units_of_the_rows(runs):
    data, folders = runs
    fit, raw = ppdgm.load(folders["a data set"]), RAW[:40]
    for rows in (raw, fit.prepare(raw)):
        found = fit.diagnose(rows, parts=("predictive",), replicated=3, statistics={"top": np.max})
        groups = fit.to_arviz(rows, draws=4, predictive=2, prior=5)
        shown = {n: np.asarray(groups[n]["x"]) for n in ("observed_data", "posterior_predictive", "prior_predictive")}
        expected = raw if rows is raw else (raw - data.transform.mean) / data.transform.scale
        assert np.allclose(shown["observed_data"], expected, rtol=1e-5, atol=1e-5)
        for group in ("posterior_predictive", "prior_predictive"):
            assert (
                abs(shown[group].mean((0, 1, 2) if shown[group].ndim == 4 else (0, 1)) - expected.mean(0)).max()
                < 4 * expected.std()
            )
        assert found.checks[-1].observed == pytest.approx(expected.max(), rel=1e-5)
        told = "in your own units" if rows is raw else "of standardised x"
        assert found.units == told and "3 new data sets are too few" in str(found)
    assert fit.elbo(raw, k=1).mean + data.transform.log_det((3,)) == pytest.approx(
        exact(fit, data, raw).mean() - np.log(data.transform.scale).sum(), abs=2e-3
    )


def test_rows_are_not_scaled_twice_in_silence(runs, table):
    data, folders = runs
    fit = ppdgm.load(folders["a data set"])
    bare = np.asarray(data.test)  # scaled, and does not know it
    for method in (fit.elbo, fit.encode, fit.reconstruct, fit.log_weights, fit.posterior, fit.prepare):
        with pytest.raises(
            DataError, match=r"rows that look already scaled: .* fit\.prepare\(rows, units='prepared'\)"
        ):
            method(bare)
    right = fit.elbo(data.test, k=2).values
    assert np.array_equal(fit.elbo(fit.prepare(bare, units="prepared"), k=2).values, right)
    assert fit.elbo(fit.prepare(bare, units="own"), k=2).mean < -1000  # said to be, so taken to be
    with pytest.raises(PpdgmError, match="units: got 'scaled'"):
        fit.sample(3, units="scaled")
    other = load_data(table, scale="unit")  # prepared in another way: through their own units, exactly
    rows = np.random.default_rng(0).permutation(90)[-9:]
    assert np.allclose(fit.elbo(other.test, k=2).values, exact(fit, data, RAW[rows]), atol=1e-2)
    both_ways = np.concatenate([data.test, other.test])
    for mixed in (both_ways, np.concatenate([data.test, bare]), np.stack([data.test[0], bare[0]])):
        assert coding_of(mixed) == MIXED
        with pytest.raises(DataError, match=r"got joined rows .*\. Prepare each part with fit"):
            fit.elbo(mixed)
    with pytest.raises(DataError, match="expected 'standardise', 'none', as in the run"):
        fit.elbo(Prepared(bare > 0, Transform("unit", 2.0, binarise="threshold")))


def test_a_run_that_knows_no_units_takes_rows_as_they_are(runs):
    data, folders = runs
    kept = ppdgm.load(folders["a data set"])
    fit = Fit(kept.program, kept.params)
    bare = np.asarray(data.test)
    assert np.array_equal(fit.elbo(bare, k=2).values, kept.elbo(data.test, k=2).values)
    assert np.array_equal(fit.elbo(data.test, k=2).values, fit.elbo(bare, k=2).values)
    assert fit.prepare(bare) is bare and fit.elbo(bare, k=2).of == ""
    some = ppdgm.fit(PPCA(event_shape=(2,), latent=1), data.train[:, :2], steps=2, progress=False)  # two columns of it
    assert some.transform is None and np.isfinite(some.elbo(np.asarray(data.test)[:, :2], k=2).mean)


IMAGES = (RNG.integers(0, 256, (60, 3, 3)) * RNG.random((60, 1, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("backend", "how"), [("numpyro", "none"), ("pyro", "none"), ("pyro", "threshold"), ("numpyro", "dynamic")]
)
def test_images(tmp_path, backend, how):
    np.save(tmp_path / "x.npy", IMAGES)
    data = load_data(tmp_path / "x.npy", scale="unit", binarise=how)
    likelihood = Gaussian() if how == "none" else Bernoulli()
    program = VAE(event_shape=(3, 3), latent=1, likelihood=likelihood, encoder=SMALL, decoder=SMALL)
    fit = ppdgm.fit(program, data, steps=2, backend=backend, progress=False)
    known = fit.prepare(IMAGES)
    bits = {"threshold": IMAGES >= 127.5, "static": np.random.default_rng(0).random(IMAGES.shape) < IMAGES / 255}
    expected = {"none": IMAGES / 255, "dynamic": bits["static"], **bits}[how]
    assert np.allclose(known, expected, atol=1e-6)
    right = fit.elbo(known, k=2).values
    bare = np.asarray(known)
    if how == "none":
        assert fit.elbo(IMAGES, k=2).values == pytest.approx(right, rel=1e-5)
        assert fit.elbo(IMAGES, k=2).of == "x / 255"
        assert np.allclose(fit.reconstruct(IMAGES), 255 * np.asarray(fit.reconstruct(known)), rtol=1e-4)
        with pytest.raises(DataError, match=r"fractions in \[0, 1\], but the run's were whole numbers up to 255"):
            fit.elbo(bare)
        drawn = fit.sample(20, mean=True)
        assert np.allclose(drawn, 255 * np.asarray(fit.sample(20, mean=True, units="prepared")), rtol=1e-5)
        assert np.isfinite(fit.elbo(drawn, k=2).mean)
    else:
        assert np.array_equal(fit.elbo(bare, k=2).values, right)  # 0 and 1 are their own units
        with pytest.raises(DataError, match=r"expected 0 to 1, because the run's .* fit\.prepare\(rows\)"):
            fit.elbo(IMAGES)
        assert set(np.unique(fit.sample(20))) <= {0, 1} and coding_of(fit.sample(2)) is None
        assert fit.elbo(data.test, k=2).of == ""
        grey = load_data(tmp_path / "x.npy", scale="unit", binarise="none")
        assert np.array_equal(
            fit.elbo(binarise(grey.test), k=2).values, fit.elbo(np.asarray(binarise(grey.test)), k=2).values
        )


def test_streamed_rows_are_scaled_as_loaded_ones(table, tmp_path, runs):
    _, folders = runs
    fit = ppdgm.load(folders["a split by name"])
    right = fit.elbo(RAW, k=2).values
    mapped = np.load(table, mmap_mode="r")
    assert np.allclose(fit.elbo(mapped, k=2).values, right, atol=1e-3)
    whole = load_data(table, like=fit, validation=0, test=0, memory=1)
    assert isinstance(whole.train, Stream) and np.allclose(fit.elbo(whole.train, k=2).values, right, atol=1e-3)
    assert np.allclose(fit.elbo(whole.train[:5], k=2).values, right[:5], atol=1e-3)
    other = load_data(table, scale="unit", validation=0, test=0, memory=1).train
    assert np.allclose(fit.elbo(other, k=2).values, right, atol=1e-2)
    from_stream = ppdgm.fit(fit.program, whole.train, steps=2, progress=False)
    assert from_stream.transform == fit.transform
    np.save(tmp_path / "scaled.npy", np.asarray(whole.train))
    with pytest.raises(DataError, match=r"look already scaled.*\(--units prepared or"):
        load_data(tmp_path / "scaled.npy", like=fit)
    again = load_data(tmp_path / "scaled.npy", like=fit, units="prepared", validation=0, test=0)
    assert np.array_equal(again.train, np.asarray(whole.train)) and again.transform == fit.transform
    assert np.allclose(fit.elbo(again.train, k=2).values, right, atol=1e-3)


KEPT = {
    "a slice": lambda x: x[2:9:2],
    "rows": lambda x: x[[3, 1]],
    "rows by a mask": lambda x: x[np.arange(len(x)) % 2 == 0],
    "a copy": lambda x: x.copy(),
    "a deep copy": copy.deepcopy,
    "a pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "a type": lambda x: x.astype("f8"),
    "noise": lambda x: x + np.random.default_rng(0).normal(size=x.shape) - np.asarray(x),
    "a mask": lambda x: x * (np.asarray(x) > 0),
    "a mask of numbers": lambda x: np.eye(3)[0] * x,
    "all columns": lambda x: x[2:, :],
    "joined": lambda x: np.concatenate([x, x[:2]]),
    "stacked": lambda x: np.vstack([x, x]),
    "chosen": lambda x: np.where(x > 0, x, 0),
    "taken": lambda x: np.take(x, [0, 1], axis=0),
    "repeated": lambda x: np.repeat(x, 2, axis=0),
    "split": lambda x: np.array_split(x, 3)[1],
    "a shape": lambda x: x.reshape(len(x), 1, 3),
    "clipped": lambda x: x.clip(-1, 1),
    "a mean": lambda x: x.mean(0),
    "a mean by NumPy": lambda x: np.mean(x, axis=0),
    "a median": lambda x: np.median(x, axis=0),
    "quantiles": lambda x: np.quantile(x, [0.1, 0.9], axis=0),
    "the largest": lambda x: x.max(0),
    "taken along": lambda x: np.take_along_axis(x, np.argsort(x, 0), 0),
    "without repetition": lambda x: np.unique(x, axis=0),
    "between two rows": lambda x: np.linspace(x[0], x[1], 5),
    "selected": lambda x: np.select([x > 0], [x], 0.0),
    "windows": lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, 0),
    "resized": lambda x: np.resize(x, (5, 3)),
    "columns": lambda x: np.hsplit(x, 3)[0],
}
LOST = {
    "a bare array": np.asarray,
    "a comparison": lambda x: x > 0,
    "an array of rows": lambda x: np.array([x[0], x[1]]),
    "an order": lambda x: np.random.default_rng(0).permutation(x),
    "a mean of all": lambda x: x.mean(),
    "a sum": lambda x: x.sum(),
    "a number": lambda x: x[0, 0],
    "a product": lambda x: x @ np.ones((3, 2)),
    "indices": lambda x: np.argsort(x, axis=0),
}


RESCALED_BY = {
    "twice": lambda x: 2 * x,
    "a shift": lambda x: x - np.array([1.0, 2.0, 3.0]),
    "a shift of one row": lambda x: x[0] + np.array([1.0, 2.0, 3.0]),
    "a function": lambda x: np.log1p(np.abs(x)),
    "a quotient": lambda x: x / x.std(0),
    "in place": lambda x: np.multiply(x, 2, out=x.copy()),
    "columns elsewhere": lambda x: x[:, ::-1],
    "columns elsewhere by NumPy": lambda x: np.flip(x, 1),
}


def test_arrays_know_how_they_were_prepared(runs):
    data, _ = runs
    x, bare = data.train, np.asarray(data.train)
    for name, function in {**KEPT, **LOST, **RESCALED_BY}.items():
        found, expected = function(x), function(bare)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), err_msg=name)
        assert (coding_of(found) == data.transform) == (name in KEPT), name
        assert (coding_of(found) == RESCALED) == (name in RESCALED_BY), name
    assert codings_of(list(x)) == {"x": data.transform}
    with pytest.raises(DataError, match="prepared in different ways"):
        codings_of([x[0], bare[1]])
    assert coding_of(as_fields(data.train)["x"]) is None  # what goes to the device is bare
    assert replace(data.transform, level=3.0) == data.transform


def test_rows_that_were_scaled_back_by_hand_are_asked_about(runs):
    """As marked rows they would be 20,000 nats off."""
    data, folders = runs
    fit, t = ppdgm.load(folders["a data set"]), data.transform
    right, own = fit.elbo(data.test, k=2).values, data.test * t.scale + t.mean
    for method in (fit.elbo, fit.encode, fit.reconstruct, fit.prepare):
        with pytest.raises(DataError, match=r"may be on another scale\. Say which they are: fit\.prepare\(rows, units"):
            method(own)
    for rows in (np.asarray(own), fit.prepare(own, units="own"), fit.prepare((own - t.mean) / t.scale, "prepared")):
        assert np.allclose(fit.elbo(rows, k=2).values, right, atol=1e-3)
    program, twice = PPCA(event_shape=(3,), latent=1), 2 * data.train - 1
    with pytest.raises(DataError, match=r"Train on bare arrays, np\.asarray\(rows\): they have no units"):
        ppdgm.fit(program, twice, steps=1, progress=False)
    bare = ppdgm.fit(program, np.asarray(twice), steps=1, progress=False)
    assert bare.transform is None and np.isfinite(bare.elbo(2 * data.test - 1, k=2).mean)


def test_numbers_computed_of_classes_have_no_names():
    codes = Prepared(np.array([0, 1, 2]), Classes(("a", "b", "c")))
    assert coding_of(codes + 1) == RESCALED
    with pytest.raises(DataError, match="'label': got rows that were computed"):
        codings_of({"x": np.zeros((3, 2)), "label": codes % 2})


def saved_and_read(rows, folder):
    np.save(folder / "rows.npy", rows)
    return np.load(folder / "rows.npy")


UNMARKED = {
    "an array of rows": lambda x, _: np.array(list(x)),
    "an order": lambda x, _: np.random.default_rng(0).permutation(x),
    "a file": saved_and_read,
    "lists": lambda x, _: x.tolist(),
    "one row": lambda x, _: np.asarray(x[:1]),
}


@pytest.mark.parametrize("name", UNMARKED)
def test_rows_that_may_be_either_are_asked_about(name, tmp_path):
    """Five rows near 0, and a run with mean ½ and scale 2: both readings are plausible, and 1.4 nats apart."""
    transform = Transform("standardise", 1.0, np.full(3, 0.5), np.full(3, 2.0))
    params = {"weight": np.zeros((3, 1), "f4"), "loc": np.zeros(3, "f4"), "log_scale": np.zeros((), "f4")}
    fit = Fit(PPCA(event_shape=(3,), latent=1), params, codings={"x": transform})
    marked = transform.apply(0.5 + 2 * np.random.default_rng(4).normal(size=(5, 3)))
    rows = UNMARKED[name](marked, tmp_path)
    given, taken = np.asarray(rows, float), (np.asarray(rows, float) - 0.5) / 2
    density = lambda x: multivariate_normal(np.zeros(3), np.eye(3)).logpdf(x)
    told = r"may be already scaled or not.*units of your own data, and scaled.*units='prepared'\) if they are scaled"
    for method in (fit.elbo, fit.encode, fit.reconstruct, fit.prepare):
        with pytest.warns(UserWarning, match=told):
            found = method(rows)
    assert np.allclose(found, taken, atol=1e-6)  # own units are the default
    for units, right in (("own", taken), ("prepared", given)):  # and once it is said nothing is asked
        assert fit.elbo(fit.prepare(rows, units=units), k=1).values == pytest.approx(density(right), abs=1e-4)
    assert fit.elbo(Prepared(rows, fit.transform), k=1).values == pytest.approx(density(given), abs=1e-4)
    assert fit.elbo(marked, k=1).values == pytest.approx(density(np.asarray(marked, float)), abs=1e-4)


def test_marks_of_training_and_validation_data_agree(runs, tmp_path):
    data, _ = runs
    program, bare = PPCA(event_shape=(3,), latent=1), np.asarray(data.train)
    for rows, others in ((bare, data.validation), (RAW, {"x": data.validation})):
        with pytest.raises(DataError, match=r"training data that do not show .*Prepared\(rows, data\.codings\['x'\]\)"):
            ppdgm.fit(program, rows, validation=others, steps=1, progress=False)
    with pytest.raises(DataError, match=r"if they are scaled, data\.transform\.prepare\(rows\) if not"):
        ppdgm.fit(program, data.train, validation=np.asarray(data.validation), steps=1, progress=False)
    mark = Prepared(bare, data.codings["x"])
    kept = {"validation": data.validation, "progress": False}
    fit = ppdgm.fit(program, mark, steps=2, out=tmp_path / "a", **kept)
    own = ppdgm.fit(program, data, validation=data.transform.invert(data.validation), steps=2, progress=False)
    for name in ("validation_elbo", "elbo"):
        assert np.allclose(fit.history[name], own.history[name], rtol=1e-4), name
    again = ppdgm.resume(tmp_path / "a", bare, steps=4, **kept)  # the same numbers: what the run knows of them holds
    assert again.transform == data.transform


def test_the_command_line_scales_once(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def cli(*arguments, code=0):
        found = CliRunner().invoke(app, [str(a) for a in arguments])
        assert found.exit_code == code and "Traceback" not in found.output, found.output
        return found

    cli("fit", "ppca", "--data", table, "--set", "data.scale=standardise", "--set", "program.latent=1", "--steps", 40,
        "--learning-rate", 0.05, "--out", "a", "-q")  # fmt: skip
    fit = ppdgm.load("a")
    for suffix in ("npy", "npz", "csv", "png"):
        cli("sample", "a", "--n", 50, "--out", f"new.{suffix}", "--seed", 3)
    drawn = fit.sample(50, seed=3)
    assert np.allclose(np.load("new.npy"), drawn) and np.allclose(np.load("new.npz")["x"], drawn)
    assert "of standardised x" in cli("evaluate", "a", "--data", "new.npy", "--k", 2).stdout
    np.save("scaled.npy", np.asarray(fit.sample(50, seed=3, units="prepared")))
    assert "--units prepared" in cli("evaluate", "a", "--data", "scaled.npy", "--k", 2, code=3).stderr
    one, two = (cli("evaluate", "a", "--k", 2, *more).stdout.splitlines()[1:] for more in
                (("--data", "new.npy"), ("--data", "scaled.npy", "--units", "prepared")))  # fmt: skip
    assert one[0].split("±")[0] == two[0].split("±")[0]
    for command in ("evaluate", "diagnose"):
        assert "Give other data" in cli(command, "a", "--units", "own", code=2).stderr
        assert "units: got 'raw'" in cli(command, "a", "--units", "raw", code=2).stderr


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_own_units_that_float32_would_blur_come_out_whole(tmp_path, backend, monkeypatch):
    """Julian days and metres on a map: float32 has steps of 0.25 and 0.5 there, as wide as their deviations."""
    monkeypatch.chdir(tmp_path)
    raw = np.random.default_rng(1).normal(size=(200, 2)) * [0.5, 1.0] + [2451545.0, 5e6]
    np.save("days.npy", raw)
    data = load_data("days.npy", scale="standardise")
    fit = ppdgm.fit(PPCA(event_shape=(2,), latent=1), data, steps=2, backend=backend, progress=False, out="run")
    mean, scale = data.transform.mean, data.transform.scale
    scaled = np.asarray(fit.sample(100, units="prepared"), np.float64)
    for drawn in (fit.sample(100), ppdgm.load("run").sample(100)):
        assert np.allclose((drawn - mean) / scale, scaled, atol=1e-6)
    means = np.asarray(fit.reconstruct(fit.prepare(raw)), np.float64)
    assert np.allclose((fit.reconstruct(raw) - mean) / scale, means, atol=1e-6)
    arguments = ["sample", "run", "--n", "100", "--out", "new.csv", "--backend", backend]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert np.allclose((np.loadtxt("new.csv", delimiter=",", skiprows=1) - mean) / scale, scaled, atol=1e-6)


NOISE = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, size=shape),
    "sparse": lambda rng, shape: (rng.random(shape) < 0.1) * rng.exponential(size=shape),
    "counts": lambda rng, shape: rng.poisson(2.0, shape).astype(float),
}


@pytest.mark.parametrize("name", NOISE)
def test_own_rows_are_not_taken_for_scaled_ones(name):
    """Over means and scales: own rows pass, and scaled ones are seen where the scales are apart."""
    rng = np.random.default_rng(1)
    wrong, missed, asked, silent, apart = [0, 0], [0, 0], [0, 0], [0, 0], 0
    for mean, scale in [(0, 1), (0, 4), (0, 0.2), (6, 1), (100, 5), (-3, 10), (2.45e6, 0.01)]:
        for width in (2, 5, 9):
            for _ in range(10):
                raw = mean + scale * NOISE[name](rng, (300, width))
                transform = Transform("standardise", 1.0, raw.mean(0), np.maximum(raw.std(0), 1e-9))
                far = bool((abs(np.log(transform.scale)) > np.log(4)).all() or (abs(transform.mean) > 4).all())
                apart += far
                for i, rows in enumerate((1, 30)):
                    new = mean + scale * NOISE[name](rng, (rows, width))
                    scaled = transform.scaled(new)
                    wrong[i] += bool(looks_prepared(transform, new))
                    missed[i] += far and not looks_prepared(transform, scaled)
                    asked[i] += far and may_be_prepared(transform, new)
                    differs = ((transform.scaled(scaled) - scaled) ** 2).mean() > 0.01
                    told = looks_prepared(transform, scaled) or may_be_prepared(transform, scaled)
                    silent[i] += differs and not told and (scaled**2).mean() < 9
    assert apart > 80 and max(wrong) <= 0.02 * 210  # outliers
    assert missed[1] <= 0.1 * apart and asked[1] <= 0.1 * apart
    assert silent == [0, 0]  # of scaled rows, but for outliers


@pytest.mark.parametrize(
    ("transform", "rows", "either"),
    [
        (Transform("levels", 1 / 255), [[0.0, 1.0, 0.0]], True),  # black and white, or the two darkest of 256 levels
        (Transform("levels", 1 / 255), [[0.0, 0.5, 1.0]], False),
        (Transform("levels", 1.0), [[0.0, 1.0]], False),  # the same numbers either way
        (Transform("unit", 2.0), [[0.5, 1.0]], True),
        (Transform("unit", 2.0), [[0.5, 1.5]], False),
        (Transform("unit", 255.0, whole=True), [[0.0, 0.0]], False),  # 0 either way
        (Transform("unit", 255.0, binarise="threshold"), [[0.0, 1.0]], False),
        (Transform("standardise", 1.0, np.zeros(2), np.ones(2)), [[0.3, 1.0]], False),
        (Transform("standardise", 1.0, np.zeros(2), np.full(2, 3.0)), [[0.3, 1.0]], True),
        (Transform("standardise", 1.0, np.zeros(2), np.full(2, 3.0)), [[0.3, np.nan]], False),  # refused elsewhere
    ],
)
def test_which_rows_may_be_either(transform, rows, either):
    assert not looks_prepared(transform, np.array(rows)) and may_be_prepared(transform, np.array(rows)) == either


def test_a_run_from_before_units_were_kept():
    page = {"transform": {"kind": "unit", "divisor": 16.0}, "recipe": {"data": {"binarise": "threshold"}}}
    found = read_codings({}, page)["x"]
    assert (found.binarise, found.changes, found.columns) == ("threshold", False, ())
