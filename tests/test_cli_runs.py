"""The command line with training: every command, on both backends, with tiny programs."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli.app import app

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
SMALL = ("--set", "program.latent=2", "--set", "program.encoder.hidden=6", "--set", "program.decoder.hidden=6")
RNG = np.random.default_rng(0)
END = ("bits/dim", "state", "when")
BITS = (RNG.random((60, 5)) < 0.4).astype("float32")
TABLE = RNG.normal(size=(80, 3)) @ np.diag([1.0, 2.0, 5.0]) + [0.0, 10.0, -3.0]


def cli(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def as_json(*arguments, code=0):
    return json.loads(cli(*arguments, "--json", code=code).stdout)


def table_of(run):
    return {k: v for k, v in tomllib.loads((run / "recipe.toml").read_text()).items() if k != "versions"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("bits.npy", BITS)
    np.savetxt("table.csv", TABLE, delimiter=",", header="a,b,c", comments="")
    return tmp_path


# --- fit -----------------------------------------------------------------------------------------------------------


@both
def test_fit_writes_a_run_and_tells_of_it(here, backend):
    found = as_json("fit", "vae", "--data", "bits.npy", "--steps", 4, "--seed", 3, "--backend", backend, *SMALL)
    run = here / "runs" / "vae-bits-1"
    assert found["out"] == "runs/vae-bits-1" and found["steps"] == 4 and found["stopped"] == "done"
    table = table_of(run)
    assert table["backend"] == backend and table["data"]["name"] == "bits.npy"
    assert table["program"]["event_shape"] == [5] and table["program"]["encoder"]["hidden"] == [6]
    assert table["training"]["seed"] == 3 and table["training"]["steps"] == 4
    data = ppdgm.load_data("bits.npy")
    estimate = ppdgm.load(run).elbo(data.test)
    assert found["test"]["elbo"]["mean"] == pytest.approx(estimate.mean, rel=1e-5) and found["test"]["n"] == 6


@both
def test_a_written_recipe_repeats_the_run(here, backend):
    cli(
        *("fit", "vae", "--data", "bits.npy", "--steps", 5, "--batch-size", 7, "--backend", backend, *SMALL),
        *("--set", "training.learning_rate={kind='Cosine', peak=0.01, steps=5}", "--set", "engine.k=2"),
        *("--set", "training.weight_average=0.9", "--out", "runs/a"),
    )
    cli("fit", "runs/a/recipe.toml", "--out", "runs/b")
    cli("fit", "runs/b", "--out", "runs/c")  # the folder will do
    first, second = ppdgm.load("runs/a"), ppdgm.load("runs/b")
    assert table_of(here / "runs/a") == table_of(here / "runs/b") == table_of(here / "runs/c")
    assert first.params.keys() == second.params.keys()
    assert all(np.array_equal(first.params[n], second.params[n]) for n in first.params)
    os.rename("runs/c", "vae")
    assert as_json("fit", "vae", "--steps", 1, "--data", "bits.npy", "--out", "e")["steps"] == 1  # the program
    assert as_json("fit", "./vae", "--out", "f")["steps"] == 5  # the run
    cli("fit", "runs/a", "--out", "runs/d", "--set", "training.seed=1", "--quiet")
    assert any(not np.array_equal(first.params[n], v) for n, v in ppdgm.load("runs/d").params.items())


def test_what_is_printed():
    start = ("fit", "vae", "--data", "bits.npy", "--steps", 3, *SMALL)
    quiet = cli(*start, "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("runs/vae-bits-1\n", "")
    spoken = cli(*start)
    assert "Test ELBO" in spoken.stdout and "ppdgm evaluate runs/vae-bits-2" in spoken.stdout
    assert spoken.stderr.startswith("Training VAE on bits.npy: runs/vae-bits-2\n") and "step 3/3" in spoken.stderr
    as_json(*start)  # stdout is one JSON object, whatever else is said


def test_a_run_is_not_overwritten_without_being_told(here):
    start = ("fit", "vae", "--data", "bits.npy", *SMALL, "--out", "runs/a", "--quiet", "--steps")
    cli(*start, 3)
    before = (here / "runs/a/weights.safetensors").read_bytes()
    line = cli(*start, 4, code=5).stderr
    assert all(w in line for w in ("runs/a already has a run", "--overwrite", "ppdgm resume runs/a"))
    assert (here / "runs/a/weights.safetensors").read_bytes() == before
    cli(*start, 4, "--overwrite")
    assert table_of(here / "runs/a")["training"]["steps"] == 4


def test_a_run_without_test_data_needs_none():
    found = as_json("fit", "vae", "--data", "bits.npy", "--steps", 2, *SMALL, "--set", "data.test=0")
    assert "test" not in found
    line = cli("evaluate", found["out"], code=3).stderr
    assert "--split test" in line and "validation" in line
    assert as_json("evaluate", found["out"], "--split", "validation", "--k", 2)["n"] == 6


@both
def test_numbers_that_are_not_finite_end_with_code_4(here, backend):
    start = ("fit", "vae", "--data", "table.csv", *SMALL, "--set", "program.likelihood.kind=Gaussian")
    bad = ("--set", "training.learning_rate=1e30", "--set", "training.max_skipped=2")
    result = cli(*start, *bad, "--steps", 50, "--backend", backend, "--json", code=4)
    found = json.loads(result.stdout)
    assert found["stopped"] == "not finite" and found["error"]["type"] == "TrainingError"
    assert result.stderr.splitlines()[-1].startswith("ppdgm: Training stopped") and "--learning-rate" in result.stderr
    assert np.isfinite(ppdgm.load(found["out"]).params["encoder.layers.0.weight"]).all()


def test_a_run_that_diverged_ends_with_code_4(here):
    start = ("fit", "vae", "--data", "table.csv", *SMALL, "--set", "program.likelihood.kind=Gaussian", "--steps", 30)
    result = cli(*start, "--learning-rate", "1e6", "--json", code=4)
    found = json.loads(result.stdout)
    assert found["stopped"] == "diverged" and "the ELBO ended far below where it began" in found["error"]["message"]
    assert "diverged" in cli("runs").stdout


def test_flags_of_data_resolve(here):
    as_json("fit", "ppca", "--data", "table.csv", "--steps", 2, "--set", "data.scale=standardise", "--out", "a")
    table = table_of(here / "a")
    assert table["data"]["scale"] == "standardise" and table["program"]["event_shape"] == [3]
    np.save("grey.npy", RNG.random((40, 5)).astype("float32"))
    as_json("fit", "vae", "--data", "grey.npy", "--binarise", "dynamic", "--steps", 2, *SMALL, "--out", "b")
    table = table_of(here / "b")
    assert table["data"]["binarise"] == table["training"]["binarise"] == "dynamic"
    assert as_json("evaluate", "b", "--split", "train", "--k", 2)["n"] == 32  # drawn once, to be judged
    drawn = ("--binarise", "static", "--set", "training.binarise=dynamic")  # 0 or 1 are drawn as 0 or 1
    told = cli("fit", "vae", "--data", "grey.npy", *drawn, "--steps", 2, *SMALL, "--out", "d", code=2).stderr
    assert "they were loaded with binarise='static'" in told
    as_json("fit", "b", "--data", "bits.npy", "--binarise", "none", "--out", "c")
    assert table_of(here / "c")["training"]["binarise"] == "none"


# --- resume --------------------------------------------------------------------------------------------------------


@both
def test_resume_trains_for_longer(here, backend):
    cli("fit", "vae", "--data", "bits.npy", "--epochs", 2, *SMALL, "--backend", backend, "--out", "a", "--quiet")
    found = as_json("resume", "a", "--epochs", 4)
    assert (found["steps"], found["out"]) == (4, "a") and table_of(here / "a")["training"]["epochs"] == 4
    cli("fit", "vae", "--data", "bits.npy", "--epochs", 4, *SMALL, "--backend", backend, "--out", "b", "--quiet")
    whole, parts = ppdgm.load("b"), ppdgm.load("a")
    assert all(np.array_equal(whole.params[n], parts.params[n]) for n in whole.params)
    assert "give one of them" in cli("resume", "a", "--epochs", 5, "--steps", 5, code=2).stderr


def test_resume_with_another_learning_rate(here):
    cli("fit", "vae", "--data", "bits.npy", "--steps", 3, *SMALL, "--out", "a", "--quiet")
    cli("resume", "a", "--steps", 5, "--learning-rate", "0.01", "--quiet")
    cli("resume", "a", "--steps", 9, "--learning-rate", "Cosine(peak=0.1, steps=4)", "--quiet")
    rate = table_of(here / "a")["training"]["learning_rate"]
    assert (rate["at"], rate["then"]["kind"], rate["first"]["at"], rate["first"]["then"]) == (5, "Cosine", 3, 0.01)
    cli("fit", "a/recipe.toml", "--out", "b", "--quiet")
    whole, parts = ppdgm.load("b"), ppdgm.load("a")
    assert all(np.array_equal(whole.params[n], parts.params[n]) for n in whole.params)
    for text, words in (
        ("fast", "expected a number"),
        ("Cosine(peak=", "can't be read"),
        ("Cosin(peak=1.0)", "Cosine"),
    ):
        assert words in cli("resume", "a", "--steps", 12, "--learning-rate", text, code=2).stderr
    assert "already at its last step" in cli("resume", "a", "--learning-rate", 0.1, code=2).stderr


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_reached_and_says_how_to_go_on(here, sign):
    """A true process, without a terminal."""
    command = [sys.executable, "-m", "ppdgm", "fit", "vae", "--data", "bits.npy", "--steps", "10000000", *SMALL]
    started = subprocess.Popen([*command, "--out", "long run", "--json"], stdout=-1, stderr=-1, text=True)
    status = here / "long run" / "status.json"
    for _ in range(600):
        if status.exists() and json.loads(status.read_text())["step"] > 0:
            break
        time.sleep(0.1)
    started.send_signal(sign)
    out, told = started.communicate(timeout=60)
    found = json.loads(status.read_text())
    assert started.returncode == 130 and found["state"] == "interrupted" and found["step"] > 0
    assert sign == signal.SIGTERM or json.loads(out)["stopped"] == "interrupted"
    assert told.splitlines()[-1].endswith("To continue: ppdgm resume 'long run'")
    assert "interrupted" in cli("runs", ".").stdout
    more = as_json("resume", "long run", "--steps", found["step"] + 3)
    assert more["steps"] == found["step"] + 3 and more["stopped"] == "done"


@pytest.mark.filterwarnings("always:Data 'x' have whole numbers:UserWarning")
def test_a_warning_is_a_line_told_once(here):
    levels = ("--set", "program.likelihood=Categorical")
    told = cli("fit", "vae", "--data", "bits.npy", "--steps", 1, *SMALL, *levels).stderr
    assert told.count("ppdgm: Data 'x' have whole numbers up to 1, but levels=256.") == 1
    assert "UserWarning" not in told


def test_damage_ends_with_code_5_and_offers_what_is_whole(here):
    cli("fit", "vae", "--data", "bits.npy", "--steps", 6, *SMALL, "--set", "training.checkpoint_steps=3", "--out", "a")
    last = sorted((here / "a/checkpoints").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-5])
    line = cli("resume", "a", "--steps", 8, code=5).stderr
    assert "damaged" in line and "ppdgm resume a --checkpoint" in line
    offered = line.partition("--checkpoint ")[2].split(",")[0]
    assert as_json("resume", "a", "--steps", 8, "--checkpoint", offered)["steps"] == 8


# --- evaluate ------------------------------------------------------------------------------------------------------


@both
def test_evaluate_finds_the_exact_likelihood(here, backend):
    """PPCA's is known in closed form: N(μ, WWᵀ + σ²I), here from SciPy."""
    cli("fit", "ppca", "--data", "table.csv", "--epochs", 2, "--backend", backend, "--out", "a", "--quiet")
    other = {"numpyro": "pyro", "pyro": "numpyro"}[backend]
    found = as_json("evaluate", "a", "--k", 20, "--backend", other, "--seed", 1)
    data, p = ppdgm.load_data("table.csv"), ppdgm.load("a").params
    covariance = p["weight"] @ p["weight"].T + np.exp(2 * p["log_scale"]) * np.eye(3)
    exact = multivariate_normal(p["loc"], covariance).logpdf(data.test)
    assert found["log_likelihood"]["mean"] == pytest.approx(exact.mean(), rel=1e-4)
    assert found["elbo"]["mean"] == pytest.approx(exact.mean(), rel=1e-4)  # its posterior is exact
    assert found["log_likelihood"]["standard_error"] == pytest.approx(exact.std(ddof=1) / 8**0.5, rel=1e-3)
    assert (found["n"], found["k"], found["data"], found["split"]) == (8, 20, "table.csv", "test")
    assert found["backend"] == other


def test_other_data_are_prepared_as_the_runs_own(here):
    cli("fit", "ppca", "--data", "table.csv", "--epochs", 1, "--set", "data.scale=standardise", "--out", "a", "-q")
    other = TABLE[:11] * 2 + 1
    np.savetxt("other.csv", other, delimiter=",", header="a,b,c", comments="")
    found = as_json("evaluate", "a", "--data", "other.csv", "--k", 2)
    assert (found["n"], found["split"], found["data"]) == (11, "all", "other.csv")
    data, p = ppdgm.load_data("table.csv", scale="standardise"), ppdgm.load("a").params
    raw = ppdgm.load_data("table.csv").train
    scaled = (other - raw.mean(0)) / raw.std(0)  # by the run's training data
    assert np.allclose((raw - raw.mean(0)) / raw.std(0), data.train, atol=1e-5)
    covariance = p["weight"] @ p["weight"].T + np.exp(2 * p["log_scale"]) * np.eye(3)
    exact = multivariate_normal(p["loc"], covariance).logpdf(scaled).mean()
    assert found["log_likelihood"]["mean"] == pytest.approx(exact, rel=1e-4)
    assert as_json("evaluate", "a", "--split", "all", "--k", 2)["n"] == 80
    assert "--split" in cli("evaluate", "a", "--split", "tset", code=2).stderr
    text = cli("evaluate", "a", "--k", 2).stdout
    assert "ELBO" in text and "log-likelihood" in text and "8 test rows of table.csv" in text


def test_a_field_of_one_number_each_is_told_in_words(here):
    (here / "two.csv").write_text("a,b\n1.5,2\n3,4.5\n0,1\n")
    told = cli(
        "data", "two.csv", "--set", "fields={x = ['a'], label = 'b'}", "--set", "validation=0", "--set", "test=0"
    )
    assert "label: shape: one number, dtype" in told.stdout


def test_a_table_of_samples_has_the_names_of_the_runs_columns(here):
    text = (here / "table.csv").read_text().replace("a,b,c", '"height, cm",b,c', 1)
    (here / "named.csv").write_text(text)
    cli("fit", "ppca", "--data", "named.csv", "--steps", 2, "--set", "data.scale=standardise", "--out", "a", "-q")
    cli("sample", "a", "--n", 5, "--out", "new.csv")
    assert (here / "new.csv").read_text().startswith('"height, cm",b,c\n')
    drawn = ppdgm.load_data("new.csv", like=ppdgm.load("a"), validation=0, test=0)  # and is read back
    assert drawn.train.shape == (5, 3)
    np.savetxt("bare.csv", TABLE, delimiter=",")
    cli("fit", "ppca", "--data", "bare.csv", "--steps", 2, "--out", "b", "-q")
    cli("sample", "b", "--n", 5, "--out", "bare_samples.csv")
    assert (here / "bare_samples.csv").read_text().startswith("x0,x1,x2\n")


def test_headers_and_indices_are_asked_for_and_told(here):
    rows = "".join(f"{i},{a},{b},{c}\n" for i, (a, b, c) in enumerate(TABLE))
    (here / "frame.csv").write_text(",0,1,2\n" + rows)
    (here / "bare.csv").write_text(rows)
    np.savetxt("again.csv", TABLE, delimiter=",", header="0,1,2", comments="")
    assert "--header or --no-header" in cli("data", "frame.csv", code=3).stderr
    assert "--index or --no-index" in cli("data", "bare.csv", code=3).stderr
    assert as_json("data", "frame.csv", "--header", "--index")["rows"]["train"] == 64
    assert as_json("data", "bare.csv", "--set", "index=false")["shape"] == [4]
    start = ("fit", "ppca", "--data", "frame.csv", "--steps", 2, "--out", "a", "-q")
    assert "--header" in cli(*start, code=3).stderr
    cli(*start, "--header", "--index")
    assert table_of(here / "a")["data"] == {**table_of(here / "a")["data"], "header": True, "index": True}
    own = as_json("evaluate", "a", "--split", "all", "--k", 2)["elbo"]["mean"]
    assert "--index" in cli("evaluate", "a", "--data", "bare.csv", code=3).stderr  # another file: another form
    again = as_json("evaluate", "a", "--data", "again.csv", "--header", "--k", 2)
    assert again["elbo"]["mean"] == pytest.approx(own, rel=1e-6)
    assert "no column '0'" in cli("evaluate", "a", "--data", "table.csv", code=3).stderr
    assert as_json("evaluate", "a", "--data", "bare.csv", "--index", "--k", 2)["elbo"]["mean"] == pytest.approx(own)
    assert as_json("fit", "a", "--data", "table.csv", "--out", "b")["steps"] == 2


def test_a_run_of_arrays_says_that_data_are_needed(here):
    from ppdgm.models import PPCA

    ppdgm.fit(PPCA(event_shape=(3,)), TABLE, steps=2, progress=False, out="a")
    assert "ppdgm evaluate a --data NAME|PATH" in cli("evaluate", "a", code=3).stderr
    assert as_json("evaluate", "a", "--data", "table.csv", "--k", 2)["n"] == 80
    assert "--data NAME|PATH" in cli("fit", "a", "--out", "b", code=2).stderr
    assert as_json("fit", "a", "--out", "b", "--data", "table.csv")["steps"] == 2
    np.save("same.npy", TABLE)
    assert "--data" in cli("resume", "a", "--steps", 3, code=3).stderr


# --- sample --------------------------------------------------------------------------------------------------------


@both
def test_sample(here, backend):
    cli("fit", "ppca", "--data", "table.csv", "--steps", 2, "--backend", backend, "--out", "a", "--quiet",
        "--set", "data.scale=standardise")  # fmt: skip
    for suffix in ("npy", "npz", "csv"):
        found = as_json("sample", "a", "--n", 7, "--seed", 2, "--out", f"new/x.{suffix}")
        assert found["shapes"] == {"x": [7, 3]}
    read = [np.load("new/x.npy"), np.load("new/x.npz")["x"], np.loadtxt("new/x.csv", delimiter=",", skiprows=1)]
    expected = np.asarray(ppdgm.load("a").sample(7, seed=2, units="prepared"))
    raw = ppdgm.load_data("table.csv").train
    for found in read:  # in the data's own units
        assert np.allclose(found, expected * raw.std(0) + raw.mean(0), rtol=1e-5, atol=1e-4)
    before = (here / "new/x.npy").read_bytes()
    assert "--overwrite" in cli("sample", "a", "--out", "new/x.npy", code=5).stderr
    assert (here / "new/x.npy").read_bytes() == before
    cli("sample", "a", "--out", "new/x.npy", "--overwrite", "--mean")
    assert not np.allclose(np.load("new/x.npy")[:7], read[0])


def test_a_picture_of_samples(here):
    cli("fit", "vae", "--steps", 2, *SMALL, "--out", "a", "--quiet")  # digits, where nothing is said
    cli("sample", "a", "--n", 4, "--mean")
    assert (here / "samples.png").read_bytes().startswith(b"\x89PNG")
    cli("sample", "a", "--n", 5, "--out", "x.npy")
    assert set(np.unique(np.load("x.npy"))) <= {0.0, 1.0}  # binarised data stay so
    cli("fit", "vae", "--data", "bits.npy", "--steps", 2, *SMALL, "--out", "b", "--quiet")
    cli("sample", "b", "--out", "table.png")  # of its columns
    assert (here / "table.png").read_bytes().startswith(b"\x89PNG")


# --- programs of one's own -----------------------------------------------------------------------------------------


@both
def test_a_new_program_trains_at_once(here, backend):
    cli("new", "my_program.py")
    compile((here / "my_program.py").read_text(), "my_program.py", "exec")
    found = as_json("fit", "my_program.py:MyProgram", "--backend", backend, "--epochs", 2)
    assert found["program"] == "MyProgram" and found["data"] == "digits"
    longer = as_json("fit", "my_program.py", "--backend", backend, "--epochs", 8)  # its name may be left out
    assert longer["test"]["elbo"]["mean"] > found["test"]["elbo"]["mean"]  # it learns
    np.save("large.npy", (RNG.random((20, 28, 28)) < 0.3))
    assert as_json("fit", "my_program.py", "--backend", backend, "--data", "large.npy", "--steps", 1)["steps"] == 1
    assert "Did you mean 'latent'?" in cli("fit", "my_program.py", "--set", "program.latnet=1", code=2).stderr
    assert "latent: whole number; default 16" in cli("models", "my_program.py").stdout


def test_a_new_program_may_have_another_name(here):
    cli("new", "two_layers.py")
    assert "class TwoLayers(Program)" in (here / "two_layers.py").read_text()
    cli("new", "deep/model.py", "--name", "Mine")
    text = (here / "deep/model.py").read_text()
    assert "class Mine(Program)" in text and "ppdgm fit model.py:Mine" in text and "MyProgram" not in text


def test_a_run_of_ones_own_program_runs_code_only_when_told(here):
    """In a process of its own, where nothing has imported the file yet."""
    cli("new", "mine.py", "--name", "Mine")
    cli("new", "other.py")
    cli("fit", "mine.py", "--set", "program.latent=3", "--steps", 2, "--out", "a", "--quiet")
    assert table_of(here / "a")["program"]["kind"] == "mine:Mine"
    run = lambda *arguments: subprocess.run([sys.executable, "-m", "ppdgm", *arguments], capture_output=True, text=True)
    for command in ("evaluate", "sample", "resume", "fit"):
        told = run(command, "a")
        assert told.returncode == 2 and told.stderr.endswith(f": ppdgm {command} a --program mine.py\n"), told.stderr
    told = run("evaluate", "a", "--program", "other.py", "--k", "3")  # a file without it
    assert told.stderr.endswith(": ppdgm evaluate a --k 3 --program mine.py\n"), told.stderr
    with_it = run("fit", "a", "--out", "b", "--quiet", "--program", "mine.py")
    assert with_it.returncode == 0, with_it.stderr
    assert table_of(here / "a") == table_of(here / "b")
    assert as_json("evaluate", "a", "--k", 2, "--program", "mine.py")["n"] == 300
    assert as_json("resume", "a", "--steps", 3, "--program", "mine.py:Mine")["steps"] == 3
    assert as_json("sample", "b", "--n", 2, "--out", "x.npy", "--program", "mine.py")["n"] == 2


CONDITIONAL = """
from ppdgm import Program
from ppdgm.models import MLP


class Labelled(Program):
    event_shape: tuple[int, ...]

    def build(self, c):
        c.net("encoder", MLP(hidden=(4,)), self.event_shape, (2, 2), label="guide")
        c.net("decoder", MLP(hidden=(4,)), (3,), self.event_shape)

    def model(self, P, x, label):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            y = (1.0 * label)[..., None] + 0.0 * z[..., :1]
            P.sample("x", P.dist.Bernoulli(logits=P.net("decoder")(P.xp.concat([z, y], axis=-1))).to_event(1), obs=x)

    def guide(self, P, x, label):
        with P.plate("data", x):
            h = P.net("encoder")(x)
            P.sample("z", P.dist.Normal(h[..., 0, :], 0.1 + P.softplus(h[..., 1, :])).to_event(1))
"""


@both
def test_a_program_with_fields_beside_x(here, backend):
    (here / "labelled.py").write_text(CONDITIONAL)
    labels = RNG.integers(0, 2, 60)
    np.savez("two.npz", x=BITS, label=labels)
    start = ("fit", "labelled.py", "--data", "two.npz", "--steps", 2, "--backend", backend, "--out", "a", "-q")
    assert "--set data.fields=x,label" in cli(*start, code=3).stderr
    cli(*start, "--set", "data.fields=x,label")
    assert as_json("evaluate", "a", "--k", 2, "--split", "all", "--program", "labelled.py")["n"] == 60
    draw = ("sample", "a", "--program", "labelled.py", "--out", "x.npy")
    assert "given" in cli(*draw, code=2).stderr
    np.savez("labels.npz", label=labels[:7])
    assert as_json(*draw, "--given", "labels.npz")["shapes"] == {"x": [7, 5]}
    for wrong in ("none.npz", "bits.npy", "table.csv"):
        assert "--given" in cli(*draw, "--overwrite", "--given", wrong, code=3).stderr
    assert (
        "got 7 of label, expected 3 of each"
        in cli(*draw, "--overwrite", "--given", "labels.npz", "--n", 3, code=3).stderr
    )


OBJECTS = """
from ppdgm.models import MLP, VAE

program = VAE(event_shape=(5,), latent=3, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
"""
PAIR = """
import numpyro
import numpyro.distributions as dist
from ppdgm import Program


def model(x):
    loc = numpyro.param("loc", lambda key: 0.0 * x[0])
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(loc + z[:, None], 1.0).to_event(1), obs=x)


def guide(x):
    a = numpyro.param("a", 0.1)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("z", dist.Normal(a * x.sum(-1), 0.5))


pair = Program.from_numpyro(model, guide)
"""


def test_a_part_of_ones_own_in_a_program_of_ours(here):
    (here / "my_nets.py").write_text("from ppdgm.models import MLP\n\n\nclass Wide(MLP):\n    hidden: tuple = (9,)\n")
    start = (
        "fit",
        "vae",
        "--data",
        "bits.npy",
        "--steps",
        1,
        "--set",
        "program.encoder.kind=my_nets:Wide",
        "--out",
        "a",
    )
    assert "--program my_nets.py" in cli(*start, code=2).stderr
    cli(*start, "--program", "my_nets.py")
    assert table_of(here / "a")["program"]["encoder"]["kind"] == "my_nets:Wide"
    assert ppdgm.load("a", classes=[sys.modules["my_nets"].Wide]).params["encoder.layers.0.weight"].shape == (5, 9)


def test_an_object_in_a_file(here):
    (here / "objects.py").write_text(OBJECTS)
    cli("fit", "objects.py", "--data", "bits.npy", "--steps", 2, "--out", "a", "--quiet")
    assert table_of(here / "a")["program"]["latent"] == 3
    cli(
        "fit", "objects.py:program", "--data", "bits.npy", "--steps", 2, "--set", "program.latent=4", "--out", "b", "-q"
    )
    assert table_of(here / "b")["program"]["latent"] == 4
    cli("fit", "b", "--out", "c", "-q")  # text can tell it: the file is not needed
    assert table_of(here / "b") == table_of(here / "c")


def test_a_plain_pair_in_a_file(here):
    (here / "my_pair.py").write_text(PAIR)
    found = as_json("fit", "my_pair.py:pair", "--data", "table.csv", "--steps", 3, "--out", "a")
    assert found["program"] == "pair" and table_of(here / "a")["program"]["kind"] == "plain:numpyro"
    assert "ppdgm evaluate a --program FILE.py:NAME" in cli("evaluate", "a", code=2).stderr
    assert as_json("evaluate", "a", "--k", 2, "--program", "my_pair.py")["n"] == 8
    cli("fit", "a", "--program", "my_pair.py:pair", "--out", "b", "--quiet")
    assert table_of(here / "a") == table_of(here / "b")
    assert "no fields" in cli("fit", "my_pair.py", "--set", "program.latent=2", code=2).stderr
    assert "numpyro" in cli("fit", "my_pair.py", "--backend", "pyro", "--data", "table.csv", code=2).stderr


# --- runs ----------------------------------------------------------------------------------------------------------


def test_runs(here):
    assert "No runs" in cli("runs", ".").stdout
    cli("fit", "vae", "--data", "bits.npy", "--steps", 3, *SMALL, "--out", "all/a", "--quiet")
    cli("fit", "ppca", "--data", "table.csv", "--steps", 2, "--out", "all/deep/b", "--backend", "pyro", "--quiet")
    for name, text in {"toml": "x = [", "old": "format = 1", "odd": "program = 3"}.items():
        (here / "all" / name).mkdir()
        (here / "all" / name / "recipe.toml").write_text(text)
    (here / "all" / "nothing").mkdir()
    (here / "all" / "dead").mkdir()
    recipe = (here / "all/a/recipe.toml").read_text()
    (here / "all/dead/recipe.toml").write_text(recipe)
    (here / "all/dead/status.json").write_text(
        json.dumps({"state": "running", "pid": 2**22 + 1, "step": 5, "steps": 10, "elbo": -1.5, "updated": 0.0})
    )
    found = {run["name"]: run for run in as_json("runs", "all")}
    assert set(found) == {"a", "dead", os.path.join("deep", "b"), "odd", "old", "toml"}
    assert (found["a"]["program"], found["a"]["engine"], found["a"]["backend"]) == ("VAE", "SVI", "numpyro")
    assert (found["a"]["step"], found["a"]["steps"], found["a"]["state"]) == (3, 3, "done")
    assert found["deep/b"]["program"] == "PPCA" and found["deep/b"]["backend"] == "pyro"
    assert found["dead"]["state"] == "killed" and found["dead"]["step"] == 5
    assert all(found[n]["state"] == "damaged" and found[n]["problem"] for n in ("odd", "old", "toml"))
    text = cli("runs", "all").stdout
    lines = text.splitlines()
    assert lines[0].split() == ["run", "program", "engine", "backend", "step", "ELBO", "validation", *END]
    assert "dead" in text and "5/10" in text and "-1.50" in text and "killed" in text
    assert any(line.startswith("old: ") and "format 1" in line for line in lines)
    assert cli("runs", "all/a").stdout.splitlines()[1].startswith("a ")


# --- logs of others, only where they are installed ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "packages"),
    [(["--tensorboard"], ["tensorboardX", "torch.utils.tensorboard"]), (["--wandb", "mine"], ["wandb"])],
)
def test_a_logger_that_is_not_installed(here, flag, packages, monkeypatch):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    line = cli("fit", "vae", "--data", "bits.npy", "--steps", 2, *SMALL, *flag, code=6).stderr
    assert line.count("\n") == 1 and packages[0] in line and "pip install" in line
    assert not (here / "runs").exists()


def test_loggers_are_handed_what_happens(here, monkeypatch):
    """Against stand-ins for the two packages, as neither need be installed."""
    written = {}

    class Writer:
        def __init__(self, folder, **_):
            written["folder"] = folder

        def add_scalar(self, name, value, step):
            written[name] = value, step

        def close(self):
            written["closed"] = True

    wandb = SimpleNamespace(
        init=lambda **settings: written.update(settings) or SimpleNamespace(log=lambda *_, **__: None, finish=dict)
    )
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    start = ("fit", "vae", "--data", "bits.npy", "--steps", 2, *SMALL, "--out", "runs/a")
    cli(*start, "--tensorboard", "--wandb", "mine")
    assert written["folder"] == os.path.join("runs/a", "tensorboard") and written["closed"]
    assert written["train/elbo"][1] == 2 and (written["project"], written["name"]) == ("mine", "a")
