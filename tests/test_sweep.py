"""`ppdgm sweep`: values, folders, going on after a kill, failures, the table, Optuna."""

import json
import os
import re
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli import children, sweeping
from ppdgm.cli.app import app
from ppdgm.cli.over import Span, combinations, name_of_values, parse_over
from ppdgm.cli.seeds import parse_seeds
from ppdgm.cli.spread import spread_of
from ppdgm.errors import SpecError

X = np.random.default_rng(0).normal(2.0, 1.0, (60, 1)).astype("float32")
OWN = """
from ppdgm import Program


class Mean(Program):
    offset: float = 0.0

    def build(self, c):
        c.param("m", (1,))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("m") + self.offset, P.full((1,), 1.0)).to_event(1), obs=x)

    def loss(self, P, x):
        return (x[..., 0] - P.param("m")[0] - self.offset) ** 2
"""


def test_values():
    assert parse_over("program.latent=8, 16,32").values == ("8", "16", "32")
    assert parse_over("seed=0..4", ["seed"]) == parse_over("training.seed=0,1,2,3,4")
    assert parse_over("a=-2..0,5").values == ("-2", "-1", "0", "5")
    assert parse_over("a=[200],[400, 400],{kind = 'MLP', hidden = [1,2]}").values == (
        "[200]",
        "[400, 400]",
        "{kind = 'MLP', hidden = [1,2]}",
    )
    assert parse_over("data.name='a,b.csv',c").values == ("'a,b.csv'", "c")
    assert parse_over("engine=SVI,IWAE").path == "engine.kind"
    assert parse_over("a=8..64", search=True).values == Span(8, 64, True)
    span = parse_over("a=1e-4..1e-2", search=True).values
    assert span == Span(1e-4, 1e-2, False) and span.log
    assert not parse_over("a=0.5..1.5", search=True).values.log and not parse_over("a=8..640", search=True).values.log
    pairs = combinations([parse_over("a=1,2"), parse_over("b=x,y")])
    assert [tuple(p.values()) for p in pairs] == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("latent", "expected PATH=VALUES"),
        ("=1", "expected PATH=VALUES"),
        ("a=", "expected PATH=VALUES"),
        ("a=1,,2", "empty value"),
        ("a=1,2,1", "the value 1 twice"),
        ("a=4..0", "the smaller number first"),
        ("a=0..99999", "more than 10,000 values"),
        ("a=0.1..0.5", "not whole.*--trials N"),
    ],
)
def test_values_that_are_refused(text, match):
    with pytest.raises(SpecError, match=match):
        parse_over(text)


def test_names():
    assert name_of_values({"program.latent": "8", "training.seed": "0"}) == "latent=8,seed=0"
    assert name_of_values({"program.encoder.hidden": "[4]", "program.decoder.hidden": "[8, 8]"}) == (
        "program.encoder.hidden=4,program.decoder.hidden=8-8"
    )
    assert name_of_values({"a": "-2"}) == "a=-2" and name_of_values({"a": "2"}) == "a=2"
    assert name_of_values({"a": "0.00123456789"}) == "a=0.001235"
    assert name_of_values({"a": "../x"}) == "a=-x" and "/" not in name_of_values({"a": "/etc"})
    assert name_of_values({"a": "[4]"}, ["a=4"]) == "a=4-2"


class InProcess(children.Child):
    """`ppdgm` without a new process."""

    started: list[list[str]]

    def __init__(self, arguments):
        self.started.append(arguments)
        self.done = CliRunner().invoke(app, arguments)
        self.files = children.ExitStack()

    def poll(self):
        return self.done.exit_code

    def stop(self):
        pass

    def message(self):
        return json.loads(self.done.stdout)["error"]["message"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    InProcess.started = []
    monkeypatch.setattr(sweeping, "Child", InProcess)
    np.save("x.npy", X)
    (tmp_path / "plain.py").write_text(OWN, encoding="utf-8")
    return tmp_path


def sweep(*arguments, code=0):
    line = ["sweep", "plain.py:Mean", "--data", "x.npy", "--set", "training.compile=false", *map(str, arguments)]
    result = CliRunner().invoke(app, line)
    assert code is None or result.exit_code == code, result.output
    return result


def load_own():
    names = {"__name__": "plain"}
    exec(OWN, names)
    return names["Mean"]


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_each_run_is_that_of_fit_and_a_killed_one_goes_on(here, backend):
    """With validation ELBO E[log N(x; m + offset, 1)] after a few small steps from m = 0: offset 2 is the best."""
    sets = ["--steps", "8", "--backend", backend, "--set", "training.checkpoint_steps=4", "--set", "data.test=0"]
    asked = ("--over", "program.offset=0,2", *sets, "--out", "s", "--json")
    found = json.loads(sweep(*asked).stdout)
    assert [run["name"] for run in found["runs"]] == ["offset=2", "offset=0"] and found["best"] == "s/offset=2"
    assert {run["state"] for run in found["runs"]} == {"done"}
    expected = ppdgm.load("s/offset=0", classes=[load_own()])
    data = ppdgm.load_data("x.npy", test=0)
    alone = ppdgm.fit(
        load_own()(), data, backend=backend, steps=8, checkpoint_steps=4, compile=False, out="one", progress=False
    )
    np.testing.assert_array_equal(alone.params["m"], expected.params["m"])
    np.testing.assert_array_equal(alone.history["validation_elbo"], expected.history["validation_elbo"])

    left = sorted((here / "s/offset=0/checkpoints").glob("step-*"))  # as a kill leaves it
    assert len(left) == 2
    left[-1].unlink()
    (here / "s/offset=0/weights.safetensors").unlink()
    status = here / "s/offset=0/status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "running"}))
    InProcess.started.clear()
    assert json.loads(sweep(*asked).stdout) == found
    assert [line[:2] for line in InProcess.started] == [["resume", "s/offset=0"]]
    again = ppdgm.load("s/offset=0", classes=[load_own()])
    np.testing.assert_array_equal(again.params["m"], expected.params["m"])


def test_a_failing_run_does_not_stop_the_others(here):
    asked = ("--over", "program.offset=1e30,0", "--steps", 12, "--set", "data.test=0", "--out", "s")
    shown = sweep(*asked, code=4)
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["offset", "validation", "ELBO", "ELBO", "bits/dim", "step", "state"]
    assert lines[1].split()[0] == "0" and lines[1].split()[-1] == "done"
    assert lines[2].split()[0] == "1e30" and "not finite" in shown.stderr and "s/offset=1e30" in shown.stderr
    assert "The best run is in s/offset=0." in shown.stdout
    InProcess.started.clear()
    assert sweep(*asked, "--quiet", code=4).stdout == "s/offset=0\n" and InProcess.started == []  # it would fail again


def test_a_smaller_loss_is_better(here):
    asked = ("--over", "program.offset=0,2", "--set", "engine.kind=Minimise", "--steps", 2, "--out", "s")
    found = json.loads(sweep(*asked, "--json").stdout)
    assert [run["name"] for run in found["runs"]] == ["offset=2", "offset=0"]
    assert found["sorted_by"] == "validation_loss" and found["best"] == "s/offset=2"
    assert found["runs"][0]["validation"] < found["runs"][1]["validation"]
    assert "2/2  offset=2  validation loss" in sweep(*asked).stderr


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ("engine=Minimise,SVI", "the engines watch different numbers (loss, ELBO)"),
        ("data.scale=none,standardise", "data.scale differs"),
    ],
)
def test_no_run_is_the_best_if_their_numbers_can_not_be_compared(over, why, here):
    """A loss is no ELBO, and a standardised x has another density; the order is that of the values."""
    asked = ("--over", over, "--steps", 2, "--out", "s")
    shown = sweep(*asked)
    values = over.partition("=")[2].split(",")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0][1:3] == ["validation", "ELBO"]  # two columns
    assert [line[0] for line in lines[1:]] == values and "best" not in shown.stdout
    assert f"no run is called the best: {why}" in shown.stderr
    assert ("engine" in over) == (lines[1][1] == "loss")
    found = json.loads(sweep(*asked, "--json").stdout)
    assert found["best"] is None and found["sorted_by"] is None and len(found["runs"]) == 2
    assert sweep(*asked, "--quiet").stdout.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (["--over", "program.offset=0,x"], 2, "--over program.offset=x: "),
        (["--over", "program.offset=0.1,1e-1"], 2, "--over program.offset=1e-1 is the same run as program.offset=0.1"),
        (["--over", "program.offset=1,1.0,2", "--trials", "2"], 2, "offset=1.0 is the same run as program.offset=1"),
        (["--over", "training.optimiser=adam,'adam'"], 2, "is the same run"),
        (["--over", "program.ofset=0,1"], 2, "--over program.ofset=0: .*Did you mean 'offset'"),
        (["--over", "seed=0,-1"], 2, "--over training.seed=-1: "),
        (["--over", "seed=0,1", "--over", "training.seed=2"], 2, "training.seed twice"),
        (["--over", "seed=0,1", "--set", "training.seed=2"], 2, "--over training.seed and --set"),
        (["--over", "steps=2,3", "--steps", "4"], 2, "--over training.steps and --steps"),
        (["--over", "data.name=x.npy,nowhere.npy"], 2, "--over data.name and --data"),
        ([], 2, "--over: give the fields"),
        (["--over", "seed=0..1", "--set", "data.validation=0", "--trials", "2"], 2, "--trials needs validation data"),
        (["--over", "engine=SVI,Minimise", "--trials", "2"], 2, "ELBO, loss.*can't be compared"),
        (["--over", "data.scale=none,standardise", "--trials", "2"], 2, "data.scale differs.*can't be compared"),
        (["--over", "seed=0,1", "--jobs", "0"], 2, "at least 1"),
    ],
)
def test_mistakes_are_found_before_the_first_run(arguments, code, match, here):
    shown = sweep(*arguments, "--out", "s", code=code)
    assert re.search(match, shown.stderr), shown.stderr
    assert InProcess.started == [] and not (here / "s").exists()


def test_without_optuna(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    shown = sweep("--over", "seed=0..3", "--trials", 2, "--out", "s", code=6)
    assert "pip install 'ppdgm[sweep]'" in shown.stderr and not (here / "s").exists()


class Fake(children.Child):
    """A run that takes no time: its validation ELBO is −(offset − 3)²; some are interrupted, or fail."""

    going, most, stopped, ends_at = 0, 0, 0, None

    def __init__(self, arguments):
        self.files = children.ExitStack()
        self.arguments, self.polls = arguments, 0
        type(self).going += 1
        type(self).most = max(self.most, self.going)
        InProcess.started.append(arguments)

    def poll(self):
        self.polls += 1
        if self.polls == 1:
            return None
        if self.polls == 2:
            type(self).going -= 1
            self.code = self._end()
        return self.code

    def _end(self):
        if len(InProcess.started) == self.ends_at:
            return 130
        values = dict(a.split("=") for a in self.arguments if a.startswith("program.offset="))
        offset = float(values["program.offset"])
        if offset < -9:
            return 3
        folder = children.Path(self.arguments[self.arguments.index("--out") + 1])
        folder.mkdir()
        (folder / "recipe.toml").write_text("")
        page = {"state": "done", "step": 1, "steps": 1, "criterion": "elbo", "validation": -((offset - 3.0) ** 2)}
        (folder / "status.json").write_text(json.dumps(page))
        return 0

    def stop(self):
        type(self).stopped += 1

    def message(self):
        return "wrong data."


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(sweeping, "Child", Fake)
    monkeypatch.setattr(children.time, "sleep", lambda seconds: None)
    Fake.going, Fake.most, Fake.stopped, Fake.ends_at = 0, 0, 0, None
    return Fake


def test_several_at_once_and_an_interruption(here, fake):
    fake.ends_at = 6
    asked = ("--over", "program.offset=0..9", "--jobs", 3, "--out", "s")
    shown = sweep(*asked, code=130)
    assert "give the same command again" in shown.stderr and fake.most == 3 and fake.stopped == 2
    known = len(list((here / "s").glob("offset=*")))
    assert known == 3
    fake.ends_at, fake.going = None, 0
    InProcess.started.clear()
    found = json.loads(sweep(*asked, "--json").stdout)
    assert len(InProcess.started) == 10 - known
    assert found["best"] == "s/offset=3" and len(found["runs"]) == 10
    InProcess.started.clear()
    assert "15/15" in sweep("--over", "program.offset=0..14", "--out", "s").stderr and len(InProcess.started) == 5
    for other in (["--set", "training.clip_norm=1"], ["--over", "seed=0,1"]):
        assert "another sweep: its" in sweep(*asked, *other, code=5).stderr
    (here / "s/sweep.json").write_text("{")
    assert "sweep.json can't be read" in sweep(*asked, code=5).stderr


def test_other_data_or_another_text_of_the_program_is_another_sweep(here, fake):
    """The finished runs are not listed beside runs of something else."""
    asked = ("--over", "program.offset=0,1", "--out", "s")
    sweep(*asked)
    np.save("x.npy", X + 1.0)
    assert re.search("x.npy.* has changed since the sweep in s began", sweep(*asked, code=5).stderr)
    np.save("x.npy", X)
    (here / "plain.py").write_text(OWN.replace("full((1,), 1.0)", "full((1,), 3.0)"), encoding="utf-8")
    assert "plain.py has changed since the sweep in s began" in sweep(*asked, code=5).stderr
    (here / "plain.py").write_text(OWN, encoding="utf-8")
    assert len(json.loads(sweep(*asked, "--json").stdout)["runs"]) == 2


def test_two_sweeps_in_one_folder(here, fake):
    (here / "s").mkdir()
    with (here / "s" / sweeping.LOCK).open("a") as file:
        assert sweeping.lock(file)
        assert "another process" in sweep("--over", "program.offset=0,1", "--out", "s", code=5).stderr


@pytest.mark.parametrize("span", ["-10..10", "-10.0..10.0"])
def test_a_search(span, here, fake):
    """The largest −(offset − 3)² is at 3. Of 30 random numbers in a range of 20, one is within 1 of it with 95 %."""
    asked = ("--over", f"program.offset={span}", "--trials", 30, "--out", "s", "--json")
    fake.ends_at = 8
    sweep(*asked, code=130)
    fake.ends_at = None
    shown = sweep(*asked, code=None)
    assert bool(shown.exit_code) == any(_offset(line) < -9 for line in InProcess.started)
    found = json.loads(shown.stdout)
    tried = {_offset(line) for line in InProcess.started}
    assert 10 <= len(tried) <= 30 and len(InProcess.started) <= len(tried) + 3  # one that was interrupted, and failures
    assert len(found["runs"]) == len(tried)
    best = float(found["runs"][0]["values"]["program.offset"])
    assert abs(best - 3) <= 1 and best == min(tried, key=lambda offset: abs(offset - 3))
    assert study().direction.name == "MAXIMIZE"
    trials = study().trials
    assert len(trials) == 30 and all(t.state.is_finished() for t in trials)
    for trial in trials:
        if trial.value is not None:
            assert trial.value == pytest.approx(-((trial.params["program.offset"] - 3) ** 2))
        else:
            assert trial.params["program.offset"] < -9
    InProcess.started.clear()
    again = json.loads(sweep(*asked, code=None).stdout)
    assert again["runs"][0] == found["runs"][0] and InProcess.started == []


def study():
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend("s/optuna.log"))
    return optuna.load_study(study_name="sweep", storage=storage)


def test_a_loss_is_minimised(here, fake):
    asked = ("--over", "program.offset=-3,3", "--set", "engine.kind=Minimise", "--trials", 2, "--out", "s")
    assert sweep(*asked).exit_code == 0 and study().direction.name == "MINIMIZE"


def _offset(arguments):
    return next(float(a.partition("=")[2]) for a in arguments if a.startswith("program.offset="))


def test_a_process_of_its_own(here):
    """Its message, and its end when the sweep is interrupted."""
    child = children.Child(["runs", "nowhere"])
    assert child.process.wait() == 5 and "there is no such folder" in child.message()
    child.files.close()
    child = children.Child(["sweep", "--help"])
    assert os.getpgid(child.process.pid) != os.getpgid(0)  # else Ctrl-C would reach it twice
    child.stop()
    assert child.poll() is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", "0..4"), ("0,3, 7", "0,3,7"), ("2..4", "2..4"), ("1", None), ("a", None), ("-1,2", None)],
)
def test_seeds(text, expected):
    if expected is None:
        with pytest.raises(SpecError, match="--seeds: got"):
            parse_seeds(text)
    else:
        assert parse_seeds(text) == expected


def test_the_spread_is_over_runs_that_have_the_number():
    pages = [{"validation": v, "elbo": 2.0 * v, "bits_per_dimension": None} for v in (1.0, 2.0, 6.0)]
    found = spread_of(pages)
    assert found["validation"] == {"mean": 3.0, "sd": pytest.approx(np.std([1, 2, 6], ddof=1)), "runs": 3}
    assert set(found) == {"validation", "elbo"} and spread_of([*pages, {"error": "no"}]) == found
    assert spread_of(pages[:1]) == {}


def test_fit_with_seeds_is_a_fit_of_each_seed(here):
    line = ["fit", "plain.py:Mean", "--data", "x.npy", "--steps", "4", "--no-compile", "--learning-rate", "0.1"]
    shown = CliRunner().invoke(app, [*line, "--seeds", "0,2", "--out", "s"])
    assert shown.exit_code == 0, shown.output
    assert sorted(p.name for p in (here / "s").iterdir() if p.is_dir()) == ["seed=0", "seed=2"]
    CliRunner().invoke(app, [*line, "--seed", "2", "--out", "one"])
    alone, found = (ppdgm.load(f, classes=[load_own()]) for f in ("one", "s/seed=2"))
    np.testing.assert_array_equal(alone.params["m"], found.params["m"])
    values = [ppdgm.load(f"s/seed={i}", classes=[load_own()]).history["validation_elbo"].max() for i in (0, 2)]
    told = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} (mean and standard deviation over 2 seeds)"
    assert f"validation ELBO: {told}" in shown.stdout
    InProcess.started.clear()
    more = CliRunner().invoke(app, [*line, "--seeds", "0,2,1", "--out", "s", "--json"])  # another one is added
    assert [arguments[-4:-2] for arguments in InProcess.started] == [["--out", "s/seed=1"]]
    assert json.loads(more.stdout)["spread"]["validation"]["runs"] == 3
    for flag in (["--seed", "1"], ["--overwrite"], ["--tensorboard"]):
        refused = CliRunner().invoke(app, [*line, "--seeds", "2", *flag])
        assert refused.exit_code == 2 and flag[0] in refused.stderr
