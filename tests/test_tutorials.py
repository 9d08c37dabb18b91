"""Every tutorial runs at a small size, from an empty folder, and ends in a figure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CACHED

FOLDER = Path(__file__).parents[1] / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.py"))


def test_there_are_tutorials():
    assert {"demo.py", "exact_ppca.py", "first_vae.py"} <= {path.name for path in TUTORIALS}


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_runs_and_writes_a_figure(path, tmp_path):
    environment = {**os.environ, **CACHED, "PPDGM_SMALL": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = [png.read_bytes() for png in tmp_path.glob("runs/**/*.png")]
    assert figures and all(png.startswith(b"\x89PNG") and len(png) > 5000 for png in figures)
    assert "nats" in done.stdout
