"""`ppdgm diagnose`: a report of a tiny run, its JSON, what it says, and its exit codes."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli.app import app
from ppdgm.inference.evaluation.diagnose import PARTS

SMALL = ("--set", "program.latent=3", "--set", "program.encoder.hidden=8", "--set", "program.decoder.hidden=8")
QUICK = ("--k", "30", "--part", "latents", "--part", "likelihood")


def cli(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, trained once, on images with labels."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("runs")
    x, label = load_digits(return_X_y=True)
    np.savez(folder / "some.npz", x=(x[:200] > 8).reshape(-1, 8, 8) * 1.0, label=label[:200])
    np.savez(folder / "table.npz", x=np.eye(7))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cli("fit", "vae", "--data", "some.npz", "--steps", 50, *SMALL, "--out", "run", "--quiet")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "all")
    monkeypatch.chdir(tmp_path / "all")
    return tmp_path / "all"


def test_a_report_and_a_verdict(here):
    found = cli("diagnose", "run", *QUICK, "--part", "pictures", "--pictures")
    assert found.stdout.startswith("run on 20 rows of some.npz (test, numpyro backend)\n")
    assert "Latents: " in found.stdout and "Fit: log p(x) = " in found.stdout
    assert "The report is in run/report.html, and figures in run/report_figures." in found.stdout
    assert [line.removeprefix("diagnosing: ") for line in found.stderr.splitlines()] == [
        "likelihood",
        "latents",
        "pictures",
    ]
    text = (here / "run/report.html").read_text()
    assert "Codes of the data" in text and "Boxes and colours are labels" in text  # though the program has none
    assert len(list((here / "run/report_figures").glob("*.png"))) == text.count("<figure") == 11
    assert ppdgm.load("run").backend == "numpyro"  # the run is as it was
    lines = cli("diagnose", "run", *QUICK, "--quiet")  # a report is replaced
    assert (lines.stdout, lines.stderr) == ("run/report.html\n", "")
    assert "Codes of the data" not in (here / "run/report.html").read_text()


def test_json_is_the_table_and_nothing_else(here):
    result = cli("diagnose", "run", *QUICK, "--split", "validation", "--seed", 2, "--out", "a.html", "--json")
    assert result.stderr == "" and (here / "a.html").is_file() and not (here / "run/report.html").exists()
    found = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"got {name}"))
    assert (found["run"], found["data"], found["split"], found["seed"]) == ("run", "some.npz", "validation", 2)
    assert found["report"] == "a.html" and found["size"] == 20
    expected = ppdgm.load("run").diagnose(
        ppdgm.load_data("some.npz").validation, parts=("likelihood", "latents"), k=30, seed=2
    )
    table = expected.table()
    assert found["log_likelihood"] == table["log_likelihood"] and found["use"] == table["use"]
    assert found["log_likelihood"]["k"] == 30 and found["surgery"] is None
    assert [f["about"] for f in found["verdict"]] == [f.about for f in expected.verdict]


@pytest.mark.parametrize(("options", "size"), [((), 20), (("--data", "some.npz"), 200), (("--split", "all"), 200)])
def test_labels_are_those_of_the_data(here, options, size, monkeypatch):
    from ppdgm.inference.evaluation.result import Fit

    seen, diagnose = [], Fit.diagnose

    def spy(self, data, labels=None, **rest):
        seen.append((np.asarray(data), labels))
        return diagnose(self, data, labels=labels, **rest)

    monkeypatch.setattr(Fit, "diagnose", spy)
    cli("diagnose", "run", "--part", "pictures", *options)
    ((data, labels),) = seen
    with np.load("some.npz") as raw:
        of = {np.float32(row).tobytes(): label for row, label in zip(raw["x"], raw["label"], strict=True)}
    assert len(labels) == size and [of[np.float32(row).tobytes()] for row in data] == labels.tolist()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("run", "--part", "likelyhood"), 2, "'likelyhood'. Did you mean 'likelihood'?"),
        (("run", "--k", "0"), 2, "at least 1"),
        (("run", "--split", "most"), 2, "--split"),
        (("run", "--backend", "numpy"), 2, "numpyro"),
        (("run", "--out", "report.pdf"), 5, "expected .html"),
        (("run", "--out", "missing/report.html"), 5, "does not exist"),
        (("run", "--out", "own.html"), 5, "own.html exists, and is not a ppdgm report"),
        (("nowhere",), 5, "there is no such run"),
        (("run", "--data", "table.npz"), 3, "shape"),
    ],
)
def test_mistakes_are_one_line_before_any_work(here, options, code, words):
    (here / "own.html").write_text("<html>my own page</html>")
    result = cli("diagnose", *options, code=code)
    assert words in result.stderr and len(result.stderr.splitlines()) == 1
    assert result.stdout == "" and (here / "own.html").read_text() == "<html>my own page</html>"


def test_help_names_every_part_and_fits_80_columns():
    text = cli("diagnose", "--help").stdout
    assert all(name in text for name in PARTS) and "ppdgm diagnose runs/vae " in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "│ diagnose " in cli("--help").stdout
