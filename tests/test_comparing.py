"""Scores of rows, paired differences and tables of runs: against closed forms, in Python and on the command line."""

import csv
import json

import numpy as np
import pytest
from planted import data, fit_of, log_likelihood
from scipy.stats import multivariate_normal, rankdata
from typer.testing import CliRunner

import ppdgm
from ppdgm import Program
from ppdgm.cli.app import app
from ppdgm.data import Transform
from ppdgm.errors import DataError, PpdgmError, SpecError
from ppdgm.inference import Difference, Estimate
from ppdgm.inference.evaluation.compare import compared
from ppdgm.models import (
    MLP,
    NICE,
    VAE,
    ConditionalVAE,
    FlowModel,
    Multinomial,
    Poisson,
    ProdLDA,
    SemiSupervisedVAE,
)

BACKENDS = ("numpyro", "pyro")
X = data(60)


def cli(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_difference_is_paired(backend):
    """An exact guide has no noise; rows that are hard for both programs leave none in the difference."""
    right, wrong = fit_of("exact", backend=backend), fit_of("exact", backend=backend)
    wrong.params["loc"] = wrong.params["loc"] + 0.3
    a, b = (fit.log_likelihood(X, k=2) for fit in (wrong, right))
    gap = log_likelihood(X - 0.3) - log_likelihood(X)
    np.testing.assert_allclose((a - b).values, gap, rtol=1e-3, atol=1e-4)
    assert (a - b).mean == pytest.approx(gap.mean(), abs=1e-4)
    assert (a - b).standard_error == pytest.approx(gap.std(ddof=1) / 60**0.5, rel=1e-3)
    assert (a - b).standard_error < 0.7 * a.standard_error
    assert str(a - b).startswith(f"{gap.mean():+.3f} ± ") and "N = 60, paired" in str(a - b)


def test_errors_of_a_difference():
    """Monte Carlo errors of independent draws add up in squares; infinite rows are told."""
    a = Estimate(np.array([1.0, 2.0]), np.array([0.3, 0.4]), 10, biases=np.array([-2.0, -4.0]))
    b = Estimate(np.array([0.0, 4.0]), np.array([0.4, 0.3]), 10)
    found = a - b
    assert isinstance(found, Difference) and found.errors == pytest.approx([0.5, 0.5])
    assert found.monte_carlo_error == pytest.approx(0.5 / 2**0.5) and found.mean == -0.5
    assert str(found) == "-0.500 ± 1.500 nats (N = 2, paired, Monte Carlo error 0.3536, a is too low by 3.0000 or more)"
    odd = Estimate(np.array([-np.inf, 4.0]), np.zeros(2), 10)
    assert str(a - odd) == "inf nats, because 1 of N = 2 rows have no finite value"
    assert str(odd - odd).startswith("nan nats, because 1 of N = 2")
    one = Estimate(np.array([1.0]), np.array([np.nan]), 1)
    assert str(one - one) == "+0.000 nats (N = 1, paired, Monte Carlo error unknown)"
    with pytest.raises(DataError, match="got 2 rows and 1"):
        _ = a - one
    with pytest.raises(DataError, match="of x and of standardised x, which can't be compared"):
        _ = b - Estimate(b.values, b.errors, 10, of="standardised x")
    with pytest.raises(TypeError):
        _ = a - 1.0


def test_equal_words_for_other_units_are_refused():
    """Both are of standardised x, and one density of that is two densities of the raw numbers."""
    program, fits = FlowModel(event_shape=(2,), flow=NICE(depth=1, hidden=(8,))), {}
    raw = np.linspace(98, 102, 40).reshape(20, 2).astype("float32")
    for name, scale in (("one", 1.0), ("two", 2.0)):
        coding = Transform(kind="standardise", mean=np.full(2, 100.0), scale=np.array([scale, 1.0]), columns=("a", "b"))
        fits[name] = ppdgm.Fit(program, program.initialise(0), codings={"x": coding})
    found = fits["two"].log_likelihood(raw)
    assert found.of == "standardised x" and found.log_det == pytest.approx(-np.log(2))
    with pytest.raises(DataError, match=r"scaled by other numbers, so that they differ by 0\.693 nats"):
        ppdgm.compare(fits, raw)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_density_of_labels_too_is_no_log_p_of_x(backend):
    """log p(x, y) has no number of bits per dimension of x, and no difference to log p(x); log p(x | y) is told."""
    net, rng = MLP(hidden=(4,)), np.random.default_rng(0)
    nets = {"encoder": net, "decoder": net, "latent": 1, "event_shape": (6,)}
    x, label = (rng.random((8, 6)) < 0.5).astype("float32"), np.array([-1, 0, 1, 1, 0, 0, 1, 0])
    of = lambda program: ppdgm.Fit(program, program.initialise(0), backend=backend)
    semi = of(SemiSupervisedVAE(classes=2, classifier=net, **nets))
    known = semi.elbo({"x": x, "label": label})
    assert known.of == "x and label" and known.bits_per_dimension is None and "nats of x and label" in str(known)
    for without in (x, {"x": x, "label": np.full(8, -1)}):
        found = semi.elbo(without)
        assert found.of == "" and found.bits_per_dimension == pytest.approx(-found.mean / (6 * np.log(2)))
    with pytest.raises(DataError, match="of x and label and of x, which can't be compared"):
        _ = known - semi.elbo(x)
    by_label, plain = of(ConditionalVAE(classes=2, **nets)), of(VAE(**nets))
    rows = {"x": x, "label": np.abs(label)}
    told = compared({"c": (by_label, rows), "v": (plain, x)}, k=2)
    assert told.given == {"c": ("label",), "v": ()} and told.notes == ["c: log p(x | label)"]
    assert "c: log p(x | label)" in str(told)
    assert not compared({"c": (by_label, rows), "d": (by_label, rows)}, k=2).notes


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_given_their_total_are_not_compared_with_counts(backend):
    """Σ over x of exp(log p) is 1 for each total, and not over all x: one program has no density of totals."""
    net = MLP(hidden=(2,))
    nets = {"encoder": net, "decoder": net, "latent": 1, "event_shape": (2,)}
    of = lambda program: ppdgm.Fit(program, program.initialise(0), backend=backend)
    x = np.array([[3, 0], [2, 1], [1, 2], [0, 3]], np.float32)
    shares, counts = (of(VAE(likelihood=p, **nets)).elbo(x) for p in (Multinomial(), Poisson()))
    assert shares.of == "x given its total" and shares.bits_per_dimension is None
    assert counts.of == "" and counts.bits_per_dimension == pytest.approx(-counts.mean / (2 * np.log(2)))
    with pytest.raises(DataError, match="of x given its total and of x, which can't be compared"):
        _ = shares - counts
    topics = ProdLDA(event_shape=(2,), topics=2, encoder=net)
    assert of(topics).elbo(x).of == "x given its total"


def test_a_likelihood_that_is_too_low_is_told():
    """A guide that misses by a standard deviation or two: the mean of few weights is far below log p(x)."""
    found = ppdgm.compare({"exact": fit_of("exact"), "off": fit_of(shift=1.0)}, X, k=10)
    gap = found.log_likelihood["off"].mean - log_likelihood(X).mean()
    (told,) = found.notes
    assert found.best == "exact" and gap < -0.1 and told.startswith("off: log p(x) is too low by ")
    assert f"{-found.log_likelihood['off'].bias:.2f} or more" in told and told in str(found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_of_rows(backend):
    """log p in closed form; its ranks by SciPy; reconstructions W z + μ by hand."""
    fit = fit_of("exact", backend=backend)
    found = fit.scores(X, k=3)
    assert list(found) == ["z[0]", "z[1]", "log_p", "log_p_error", "rank", "reconstruction_error"]
    np.testing.assert_allclose(found["log_p"], log_likelihood(X), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["rank"], rankdata(log_likelihood(X)))
    z = np.stack([found["z[0]"], found["z[1]"]], 1)
    np.testing.assert_array_equal(z, fit.encode(X))
    error = ((z @ fit.params["weight"].T + fit.params["loc"] - X) ** 2).mean(1)
    np.testing.assert_allclose(found["reconstruction_error"], error, rtol=1e-3)


class Masked(Program):
    """x ~ N(z, 1) where `there`; z ~ N(0, 1)."""

    own: bool = True

    def build(self, c):
        c.param("m", (1,), label="guide")

    def model(self, P, x, there):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), 1.0).to_event(1))
            if self.own:
                P.sample("x", P.dist.Normal(z + P.full((2,), 0.0), 1.0).mask(there).to_event(1), obs=x)
            else:
                P.sample("x", P.dist.Normal(z + P.full((2,), 0.0), 1.0).to_event(1), obs=x, mask=there[:, 0])

    def guide(self, P, x, there):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("m") + P.full((1,), 0.0), 1.0).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("own", [True, False])
def test_numbers_that_are_only_filled_in_are_not_scored(backend, own):
    program, there = Masked(own=own), np.array([[True, True], [False, False]])
    fit = ppdgm.Fit(program, program.initialise(0), backend=backend)
    for filled in (0.0, 55.0):
        x = np.where(there, 1.0, filled).astype("float32")
        assert list(fit.scores({"x": x, "there": there}, k=3)) == ["z[0]", "log_p", "log_p_error", "rank"]


def test_a_density_without_latents_has_scores_too():
    program = FlowModel(event_shape=(6,), flow=NICE(depth=1, hidden=(8,)))
    found = ppdgm.Fit(program, program.initialise(0)).scores(X)
    assert list(found) == ["log_p", "log_p_error", "rank"] and not found["log_p_error"].any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table, and two runs on it."""
    home = tmp_path_factory.mktemp("runs")
    np.savetxt(home / "table.csv", X * [1, 10, 1, 1, 1, 1], delimiter=",", header="a,b,c,d,e,f", comments="")
    for latent in (1, 3):
        cli("fit", "ppca", "--data", home / "table.csv", "--set", f"program.latent={latent}", "--steps", 3, "--seed", 0,
            "--out", home / str(latent), "--quiet")  # fmt: skip
    return home


def exact(fit, x):
    """log N(x; μ, WWᵀ + σ²I)."""
    w, scale = (np.asarray(fit.params[n], float) for n in ("weight", "log_scale"))
    covariance = w @ w.T + np.exp(2 * scale) * np.eye(len(w))
    return multivariate_normal(np.asarray(fit.params["loc"], float), covariance).logpdf(x)


def test_runs_are_compared(folder):
    names = [str(folder / n) for n in ("1", "3")]
    fits = {n: ppdgm.load(n) for n in names}
    rows = ppdgm.load_data(fits[names[0]].data).test
    log_p = {n: exact(f, np.asarray(rows)) for n, f in fits.items()}
    best, other = sorted(names, key=lambda n: -log_p[n].mean())
    gap = log_p[other] - log_p[best]
    page = json.loads(cli("compare", *names, "--k", 2, "--json").stdout)
    assert [r["name"] for r in page["runs"]] == [best, other] and page["n"] == len(rows)
    assert page["runs"][1]["difference"] == pytest.approx(gap.mean(), abs=1e-4)
    assert page["runs"][1]["difference_se"] == pytest.approx(gap.std(ddof=1) / len(gap) ** 0.5, rel=1e-3)
    assert page["runs"][0]["difference"] == 0
    assert page["settings"] == {"program.latent": {names[0]: 1, names[1]: 3}}
    text = cli("compare", *names, "--k", 2).stdout
    assert "program.latent" in text and f"{gap.mean():+.2f} ± " in text
    found = ppdgm.compare({"one": fits[names[0]], "three": fits[names[1]]}, rows, k=2)
    assert found.best == {names[0]: "one", names[1]: "three"}[best]
    assert found.differences[found.best].mean == 0 and "program.latent: 1 (one), 3 (three)" in str(found)
    with pytest.raises(SpecError, match="expected two fits or more"):
        ppdgm.compare({"one": fits[names[0]]}, rows)
    with pytest.raises(PpdgmError, match="k: got 0"):
        ppdgm.compare({"a": fits[names[0]], "b": fits[names[1]]}, rows, k=0)


def test_runs_with_other_rows_are_not_compared(folder):
    assert "two different runs" in cli("compare", folder / "1", code=2).stderr
    assert "two different runs" in cli("compare", folder / "1", folder / "1", code=2).stderr
    other = ("--set", "data.seed=1", "--set", "program.latent=1", "--steps", 1, "--quiet")
    cli("fit", "ppca", "--data", folder / "table.csv", *other, "--out", folder / "split")
    assert "their rows differ" in cli("compare", folder / "1", folder / "split", code=3).stderr


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_codes_are_written(folder, suffix):
    run, out = folder / "3", folder / f"codes{suffix}"
    cli("encode", run, "--out", out, "--k", 2)
    fit = ppdgm.load(run)
    rows = ppdgm.load_data(fit.data).test
    if suffix == ".csv":
        with out.open(newline="") as file:
            head, *lines = csv.reader(file)
        found = dict(zip(head, np.array(lines, float).T, strict=True))
    else:
        found = dict(np.load(out))
    assert list(found) == ["row", "z[0]", "z[1]", "z[2]", "log_p", "log_p_error", "rank", "reconstruction_error"]
    np.testing.assert_allclose(found["log_p"], exact(fit, np.asarray(rows)), rtol=1e-3)
    z = np.stack([found[f"z[{d}]"] for d in range(3)], 1)
    error = ((z @ fit.params["weight"].T + fit.params["loc"] - np.asarray(rows)) ** 2).mean(1)
    np.testing.assert_allclose(found["reconstruction_error"], error, rtol=1e-3)
    assert "exists" in cli("encode", run, "--out", out, code=5).stderr
    cli("encode", run, "--out", out, "--k", 2, "--overwrite")


def test_a_file_that_can_not_be_written_is_refused_first(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install pyarrow" in cli("encode", folder / "1", "--out", "a.parquet", code=2).stderr
    assert "codes.xls" in cli("encode", folder / "1", "--out", "codes.xls", code=2).stderr
