"""The Python of the README, and of the pages that go on from it, runs as it stands, but for the sizes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("first_model", "zoo", "engines", "diagnostics", "own_program")]
SMALL = {
    "epochs=200": "epochs=2",
    "epochs=20": "epochs=1",
    "k=5000": "k=50",
    "diagnose(data.test).report": "diagnose(data.test, parts='likelihood', k=40).report",
    "diagnose(data.test, k=200, few=8)": "diagnose(data.test, k=40, few=4, temperatures=5, num_leapfrog=2, "
    "refit_steps=5, replicated=20)",
    "draws=100": "draws=10",
}


def python(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_readmes_python_runs(tmp_path):
    blocks = [block for page in (README, *PAGES) for block in python(page)]
    assert len(blocks) == 10
    code = "\n".join(blocks)
    for size, small in SMALL.items():
        assert size in code, size
        code = code.replace(size, small)
    code += "\nppdgm.fit(TwoLayers(event_shape=(8, 8)), data.train, epochs=1).elbo(data.test)\n"
    code += "rows = {'x': data.test, 'length': [i % 8 + 1 for i in range(300)]}\n"
    code += "print(ppdgm.fit(Chain(event_shape=(8, 8)), rows, steps=3, progress=False).elbo(rows))\n"
    (tmp_path / "readme.py").write_text(code, encoding="utf-8")
    run = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("nats (N = 300") == 9
    assert all((tmp_path / "runs" / file).exists() for file in ("vae/recipe.toml", "first/recipe.toml", "report.html"))


def test_the_readme_is_short_and_begins_with_what_counts():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    screen = "\n".join(lines[:36])
    assert all(
        word in screen for word in ("docs/pictures/report.png", "make demo", "make test", "```python", "docs/index.md")
    )
    assert (ROOT / "docs/pictures/report.png").stat().st_size < 200_000


@pytest.mark.parametrize("page", ["notebooks", "sharing"])
def test_a_page_that_stands_alone_runs(page, tmp_path):
    code = "\n".join(python(ROOT / "docs" / f"{page}.md"))
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
