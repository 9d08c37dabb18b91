"""Weights of rows: whole numbers are copies of rows, and minibatches add up to the whole.

Programs take their noise from the data, so that copies of a row have the same draws.
"""

import numpy as np
import pytest
from readings import BACKENDS, precision
from scipy.stats import multivariate_normal
from test_coordinates import Unknown
from test_pieces import DATA, Given
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli.app import app
from ppdgm.errors import DataError, ProgramError, TrainingError
from ppdgm.inference import (
    EM,
    IWAE,
    SVI,
    CoordinateAscent,
    LaggingInference,
    Optimiser,
    Renyi,
    ReweightedWakeSleep,
    VariationalEM,
)  # fmt: skip
from ppdgm.inference.evaluation.estimates import Estimate
from ppdgm.inference.inputs.batches import Batches
from ppdgm.models import PPCA, GaussianMixture

both = pytest.mark.parametrize("backend", BACKENDS)
RNG = np.random.default_rng(3)
COUNTS = np.array([2, 0, 1, 3, 1, 1])
COPIES = {n: np.repeat(v, COUNTS, axis=0) for n, v in DATA.items()}
SGD = {"optimiser": Optimiser(name="sgd"), "learning_rate": 0.1, "progress": False, "dtype": "float64", "seed": 0}
ENGINES = {
    "svi": (SVI(), {}),
    "svi, a latent for all rows": (SVI(), {"shared": True}),
    "capacity": (SVI(capacity=2.0), {}),
    "free bits": (SVI(free_bits=0.5, free_bits_of="batch"), {}),
    "score function": (SVI(k=4, baseline="leave_one_out"), {"pathwise": False}),
    "iwae": (IWAE(k=4), {}),
    "renyi": (Renyi(k=4, alpha=0.5), {}),
    "reweighted wake-sleep": (ReweightedWakeSleep(k=4), {}),
    "variational em": (VariationalEM(e_steps=1, m_steps=1), {}),
}


def trained(program, data, engine, backend, params, **settings):
    with precision("float64"):
        return ppdgm.fit(program, data, engine=engine, backend=backend, params=params, **{**SGD, **settings})


def start(program):
    rng = np.random.default_rng(1)
    return {n: v + 0.3 * rng.normal(size=v.shape) for n, v in program.initialise(0, DATA).items()}


def same(a, b, tolerance=1e-10):
    for name, value in a.params.items():
        np.testing.assert_allclose(value, b.params[name], rtol=tolerance, atol=tolerance, err_msg=name)


@both
@pytest.mark.parametrize("name", ENGINES)
def test_whole_numbers_are_copies_of_rows(name, backend):
    engine, fields = ENGINES[name]
    program = Given(**fields)
    how = {"steps": 2, "params": start(program)}
    weighted = trained(program, DATA, engine, backend, batch_size=6, weights=COUNTS, **how)
    copies = trained(program, COPIES, engine, backend, batch_size=8, **how)
    same(weighted, copies)
    np.testing.assert_allclose(weighted.history["objective"], copies.history["objective"], rtol=1e-6)
    bare = trained(program, DATA, engine, backend, batch_size=6, **how)
    assert max(np.abs(weighted.params[n] - bare.params[n]).max() for n in bare.params) > 1e-3


@both
def test_pieces_of_a_minibatch_keep_their_weights(backend):
    program = Given()
    how = {"steps": 3, "params": start(program), "batch_size": 4, "weights": [1, 0, 0, 2, 4, 0]}
    whole, pieces = (trained(program, DATA, SVI(), backend, accumulate=n, **how) for n in (1, 2))
    same(whole, pieces)


@both
def test_a_minibatch_moves_as_far_as_its_rows_weigh(backend):
    program = Given()
    how = {"steps": 1, "params": start(program), "batch_size": 2}
    rows = Batches(6, 2, 0).rows(0, 1, 1)[0][0]
    weights = np.full(6, 0.5)
    weights[rows] = 2.0  # of mean 1, so the step is twice as long
    moved = lambda fit: {n: fit.params[n] - v for n, v in how["params"].items()}
    bare = moved(trained(program, DATA, SVI(), backend, **how))
    twice = moved(trained(program, DATA, SVI(), backend, weights=weights, **how))
    for name, value in bare.items():
        np.testing.assert_allclose(twice[name], 2 * value, rtol=1e-9, atol=1e-12)
    nothing = np.ones(6)
    nothing[rows] = 0.0
    stays = trained(program, DATA, SVI(), backend, weights=nothing, **how)
    assert not any(v.any() for v in moved(stays).values()) and np.isfinite(stays.history["objective"]).all()


def test_steps_of_an_epoch_add_up_to_the_weighted_sum():
    weights, terms = RNG.random(7) * (RNG.random(7) > 0.3), RNG.normal(size=7)
    weights *= 7 / weights.sum()
    batches = Batches(7, 3, 0, weights)
    (index, weight), mass = batches.rows(0, 3, 4), batches.mass(0, 3, 4)
    size = np.array([3, 3, 1])
    steps = [m * (w * terms[i]).sum() / w.sum() for i, w, m in zip(index[:3], weight[:3], mass[:3], strict=True)]
    np.testing.assert_allclose((size * steps).sum(), (weights * terms).sum(), rtol=1e-12)


@both
@pytest.mark.parametrize("kind", ["ppca", "mixture", "coordinates"])
def test_closed_forms_count_rows_by_weight(kind, backend):
    x = RNG.normal(size=(40, 4)) @ RNG.normal(size=(4, 4))
    counts = RNG.integers(0, 4, 40)
    program = GaussianMixture(event_shape=(4,), components=2) if kind == "mixture" else PPCA(event_shape=(4,), latent=2)
    if kind == "coordinates":
        program, x = Unknown(), x[:, 0]
    engine, first = (CoordinateAscent() if kind == "coordinates" else EM()), program.initialise(0, {"x": x})
    how = {"steps": 3, "backend": backend, "params": first, "engine": engine, "progress": False, "dtype": "float64"}
    with precision("float64"):
        weighted = ppdgm.fit(program, x, weights=counts, **how)
        copies = ppdgm.fit(program, np.repeat(x, counts, axis=0), **how)
    same(weighted, copies, 1e-8)
    np.testing.assert_allclose(weighted.history["elbo"], copies.history["elbo"], rtol=1e-8)


@both
def test_ppca_with_weights_has_the_covariance_of_weighted_rows(backend):
    """The maximum likelihood of weighted rows: eigenvectors of their weighted covariance. Tipping & Bishop 1999."""
    x, weights = RNG.normal(size=(60, 3)) * [3.0, 1.0, 1.0], RNG.random(60)
    fit = ppdgm.fit(PPCA(event_shape=(3,), latent=1), x, engine=EM(), backend=backend, steps=200, weights=weights,
                    progress=False)  # fmt: skip
    mean, cov = np.average(x, axis=0, weights=weights), np.cov(x.T, aweights=weights, ddof=0)
    values, vectors = np.linalg.eigh(cov)
    noise = values[:2].mean()
    best = noise * np.eye(3) + (values[2] - noise) * np.outer(vectors[:, 2], vectors[:, 2])
    expected = np.average(multivariate_normal(mean, best).logpdf(x), weights=weights)
    assert fit.log_likelihood(x, k=1, weights=weights).mean == pytest.approx(expected, abs=1e-4)


def test_means_and_errors_of_weighted_rows():
    values, weights = RNG.normal(size=400), RNG.random(400) * (RNG.random(400) > 0.2)
    found = Estimate(values, np.full(400, 0.3), 5, weights=weights)
    assert found.mean == pytest.approx((weights * values).sum() / weights.sum())
    drawn = [RNG.integers(0, 400, 400) for _ in range(2000)]
    spread = np.std([np.average(values[i], weights=weights[i]) for i in drawn])  # the bootstrap, ± 1.6 %
    assert found.standard_error == pytest.approx(spread, rel=0.08)
    assert found.monte_carlo_error == pytest.approx(0.3 * np.sqrt((weights**2).sum()) / weights.sum())
    plain, ones = Estimate(values, found.errors, 5), Estimate(values, found.errors, 5, weights=np.ones(400))
    for name in ("mean", "standard_error", "monte_carlo_error"):
        assert getattr(plain, name) == pytest.approx(getattr(ones, name))
    with pytest.raises(DataError, match="weights of rows"):
        found - plain
    infinite = np.where(weights == 0, -np.inf, values)
    assert Estimate(infinite, found.errors, 5, weights=weights).mean == pytest.approx(found.mean)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    x, w = RNG.normal(size=(60, 2)), RNG.integers(1, 4, 60)
    path.write_text("a,b,w\n" + "\n".join(f"{a},{b},{n}" for (a, b), n in zip(x, w, strict=True)))
    return path, x, w


@both
def test_a_column_of_weights_trains_validates_and_goes_on(table, tmp_path, backend):
    path, x, w = table
    data = ppdgm.load_data(path, weights="w", seed=1)
    assert data.event_shape == (2,) and set(data.weights) == {"train", "validation", "test"}
    places = [np.abs(x - row).sum(1).argmin() for row in np.asarray(data.train)]
    assert np.array_equal(data.weights["train"], w[places])
    program = PPCA(event_shape=(2,), latent=1)
    how = {"backend": backend, "progress": False, "batch_size": 20}
    whole = ppdgm.fit(program, data, epochs=4, **how)
    by_hand = ppdgm.fit(program, data.train, validation=data.validation, epochs=4, **how,
                        weights={n: data.weights[n] for n in ("train", "validation")})  # fmt: skip
    same(whole, by_hand, 0)
    assert np.array_equal(whole.history["validation_elbo"], by_hand.history["validation_elbo"])
    unweighted = ppdgm.fit(program, data.train, validation=data.validation, epochs=4, **how)
    assert not np.array_equal(whole.history["validation_elbo"], unweighted.history["validation_elbo"])
    ppdgm.fit(program, data, epochs=2, out=tmp_path / "run", **how)
    same(whole, ppdgm.resume(tmp_path / "run", epochs=4, progress=False), 0)
    ppdgm.fit(program, data.train, epochs=1, out=tmp_path / "own", weights=data.weights["train"], **how)
    with pytest.raises(DataError, match=r"got no weights of rows than the run was started with.*resume"):
        ppdgm.resume(tmp_path / "own", data.train, epochs=2)
    again = ppdgm.resume(tmp_path / "own", data.train, weights=data.weights["train"], epochs=2, progress=False)
    assert again.info["steps"] == 6


def test_a_column_of_weights_on_the_command_line(table, tmp_path):
    path, *_ = table
    line = ["fit", "ppca", "--data", str(path), "--set", "data.weights=w", "--steps", "2", "--backend", "pyro"]
    shown = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "run")])
    data, fit = ppdgm.load_data(path, weights="w"), ppdgm.load(tmp_path / "run")
    expected = fit.elbo(data.test, weights=data.weights["test"]).mean
    assert f"Test ELBO             {expected:.2f} ±" in shown.stdout and "6 test rows by weight" in shown.stdout
    shown = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--k", "10"])
    assert "Each row counts once" in shown.stdout and f"{fit.elbo(data.test).mean:.3f} ±" in shown.stdout


@both
def test_streamed_rows_keep_their_weights(tmp_path, backend):
    x, w = RNG.normal(size=(50, 3)).astype(np.float32), RNG.random(50)
    np.save(tmp_path / "x.npy", x)
    how = {"backend": backend, "progress": False, "batch_size": 8, "epochs": 3, "weights": w}
    program = PPCA(event_shape=(3,), latent=1)
    same(ppdgm.fit(program, x, **how), ppdgm.fit(program, np.load(tmp_path / "x.npy", mmap_mode="r"), **how), 1e-6)


def test_weights_of_arrays(tmp_path):
    x, w = RNG.normal(size=(30, 3)), RNG.random(30)
    np.savez(tmp_path / "d.npz", x=x, importance=w)
    data = ppdgm.load_data(tmp_path / "d.npz", weights="importance", validation=0, test=0)
    assert data.event_shape == (3,) and np.array_equal(data.weights["train"], w) and data.describe()["weights"]


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (np.ones(5), r"weights of train: got an array of shape \(5,\), expected .* \(6,\)"),
        ([1, 1, 1, 1, 1, -1], r"got -1.0 at index \(5,\)"),
        ([1, 1, 1, np.nan, 1, 1], r"got nan at index \(3,\)"),
        (np.zeros(6), "got only zeros"),
        (["a"] * 6, "expected a number for each row"),
        ([[1], [1, 2]], "expected a number for each row"),
        ({"test": np.ones(6)}, "got 'test', expected weights of 'train'"),
        ({"train": np.ones(6), "validation": np.ones(6)}, "no validation data"),
    ],
)
def test_weights_that_are_none_are_refused(weights, told):
    with pytest.raises(DataError, match=told):
        ppdgm.fit(Given(), DATA, weights=weights, steps=1)


def test_what_has_no_weights_says_so(table):
    path, *_ = table
    with pytest.raises(TrainingError, match=r"weights: LaggingInference\(\) chooses"):
        ppdgm.fit(Given(), DATA, engine=LaggingInference(), weights=COUNTS, steps=1, backend="pyro")
    for option, told in (("v", "no column 'v'|no such column"), ("label", "no column|no such")):
        with pytest.raises(DataError, match=told):
            ppdgm.load_data(path, weights=option)
    fit = ppdgm.fit(Unknown(), DATA["x"][:, 0], steps=1, progress=False, backend="pyro")
    with pytest.raises(ProgramError, match="share a latent"):
        fit.elbo(DATA["x"][:, 0], weights=COUNTS)
