"""Every tutorial runs at a small size, from an empty folder, and ends in a figure."""

import runpy
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pyro
import pytest

FOLDER = Path(__file__).parents[1] / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.py"))


def test_there_are_tutorials():
    assert {"demo.py", "exact_ppca.py", "first_vae.py"} <= {path.name for path in TUTORIALS}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPDGM_SMALL", "1")
    matplotlib.use("agg")
    yield tmp_path
    plt.close("all")
    pyro.clear_param_store()


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_runs_and_writes_a_figure(path, folder, capsys):
    runpy.run_path(str(path), run_name="__main__")  # in this process, which has imported the libraries
    figures = [png.read_bytes() for png in folder.glob("runs/**/*.png")]
    assert figures and all(png.startswith(b"\x89PNG") and len(png) > 5000 for png in figures)
    assert "nats" in capsys.readouterr().out
